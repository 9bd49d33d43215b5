"""Where a failure of real pods is tried: a namespace on real nodes, with a tiny model and rows on a claim, and runtimes of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.apiserver.installation import apply
from tests.builders import edited
from tests.cluster.api import Object
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import pod_path
from tests.node.jobs import Job, strike
from tests.node.platform import ASSETS, Platform, claim, runtime
from tests.unit.data.stand_in import StandIn, serve

PLAIN: Final = "plain"
"""The runtime of jobs that name none: one pod does all, and takes no GPU."""
MODEL: Final = "demo/models/smollm2-135m-instruct"
ROWS: Final = "demo/data/glosses-1000.jsonl"
STEPS: Final = 2
LONG: Final = 2000
"""Steps that nobody waits for: so many that there is time to disturb them."""


class Site:
    def __init__(self, platform: Platform, namespace: str, hub: StandIn, hub_url: str) -> None:
        self.platform = platform
        self.namespace = namespace
        self.api = platform.cluster.api
        self.hub = hub
        self.hub_url = hub_url
        self.stack = contextlib.ExitStack()
        """What must be undone in the end."""
        self._runtimes: set[str] = set()

    # What the platform team does

    def runtime(self, word: str, **spec: Any) -> None:
        """Make a ClusterFineTuneRuntime, or write it anew: jobs that started keep theirs."""
        name = f"{self.namespace}-{word}"
        apply(self.api, runtime(name, self.platform.images.trainer, **{"prepare": "inTrainPod", "gpus": 0, **spec}))
        self._runtimes.add(name)

    def claim(self, name: str, storage_class: str = "shared", size: str = "64Mi") -> None:
        apply(self.api, claim(name, storage_class, size, self.namespace))

    def folder(self, name: str) -> Path:
        """The folder on this machine that a claim is."""
        return self.platform.volume(name, self.namespace)

    def made(self, kind: str, name: str, **content: Any) -> None:
        """Make an object of the namespace that other programs look at, or change it."""
        apply(self.api, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, **content})

    # What the team does

    def job(self, name: str, runtime: str = PLAIN, **edits: Any) -> Job:
        """Submit a FineTuneJob of one stage; edits by path, with `__` for a dot."""
        if runtime == PLAIN and f"{self.namespace}-{PLAIN}" not in self._runtimes:
            self.runtime(PLAIN)
        document = edited(self._document(name, runtime), {path.replace("__", "."): value for path, value in edits.items()})
        return Job.submit(self.platform, document)

    def again(self, job: Job, runtime: str = PLAIN, **edits: Any) -> Job:
        """Delete it, and make it again under its name."""
        uid = job.uid
        job.delete()
        job.await_gone(uid)
        return self.job(job.name, runtime, **edits)

    def _document(self, name: str, runtime: str) -> Object:
        stage = {
            "name": "domain",
            "objective": "causalLanguageModeling",
            "data": {"train": [{"uri": f"pvc://{ASSETS}/{ROWS}"}]},
            "method": {"type": "lora", "lora": {"r": 4}},
            "training": {"maxSteps": STEPS, "perDeviceTrainBatchSize": 8, "learningRate": 1e-3, "maxLength": 96},
            "checkpoint": {"everySteps": 10, "keep": 2},
        }
        return {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "runtimeRef": {"name": f"{self.namespace}-{runtime}"},
                "references": {"claims": [{"name": ASSETS, "claimName": ASSETS}]},
                "model": {"uri": f"pvc://{ASSETS}/{MODEL}"},
                "stages": [stage],
                "evaluation": {"baseline": False, "samples": {"count": 0}},
                "retry": {"maxAttempts": 1},
            },
        }

    # What happens to it

    def committed(self, job: Job, before: Object | None = None) -> Object:
        """The pod that trains (another one than `before`), once it has saved a checkpoint."""
        pod = job.next_trainer(before)
        job.await_commit_by(pod)
        return pod

    def killed(self, pod: Object) -> None:
        strike(pod, signal.SIGKILL)

    def mounted(self, name: str, size: str) -> Path:
        """The folder of a claim, in whose place a disk of its own lies now. It belongs to the pods' group."""
        folder = self.folder(name)
        _run("mount", "-t", "tmpfs", "-o", f"size={size},gid=65532,mode=2775", "tmpfs", folder)
        return folder

    def remounted(self, folder: Path, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", folder)

    def close(self) -> None:
        """Undo what would outlive the namespace, and end pods at once: a node that is busy with them slows the next failure."""
        self.stack.close()
        for name in sorted(self._runtimes):
            self.api.delete(f"/apis/finetune.dev/v1alpha1/clusterfinetuneruntimes/{name}")
        for job in self.api.items(f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs"):
            self.api.delete(f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs/{job['metadata']['name']}")
        for pod in self.api.items(f"/api/v1/namespaces/{self.namespace}/pods"):
            self.api.delete(pod_path(pod), grace=0)


@contextlib.contextmanager
def site(platform: Platform) -> Iterator[Site]:
    """A fresh one; the platform's model and rows are on its claim."""
    hub = StandIn()
    with fresh_namespace(platform.cluster) as namespace, serve(hub, platform.cluster.layout.host) as url:
        made = Site(platform, namespace, hub, url)
        made.claim(ASSETS)
        shutil.copytree(platform.volume(ASSETS) / "demo", made.folder(ASSETS) / "demo")
        try:
            yield made
        finally:
            made.close()


def described(site: Site, *what: str) -> str:
    """`kubectl describe`."""
    return site.platform.cluster.kubectl("describe", *what, "--namespace", site.namespace)


def limits(**amounts: str) -> Mapping[str, Any]:
    """Requests and limits of every role, as the tier's own, with other limits."""
    role = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi", **amounts}}
    return {"prepare": role, "train": role, "report": role}


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
