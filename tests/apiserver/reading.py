"""What a finished job left on its volume, and the pod that reads it: the real trainer, started here with the config of the pod's annotation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from finetune_api import constants as c
from finetune_operator.kinds import POD, uid_of
from finetune_trainer.export.place import measured
from tests.apiserver.kubelet_logs import LogServer
from tests.apiserver.trouble_job import Trial
from tests.builders import Document
from tests.cluster.api import Object
from tests.cluster.pods import await_value

STAMP = "2026-11-22T10:00:00Z"


class Volume:
    """The claim `runs`, with the run folder of one job that has succeeded."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial = trial
        self.folder = folder
        self.run = folder / trial.namespace / f"{trial.name}-{uid_of(trial.seen)}"
        (self.run / "artifacts/adapter").mkdir(parents=True)
        (self.run / "logs").mkdir()
        (self.run / "artifacts/adapter/adapter_model.safetensors").write_bytes(os.urandom(6_500_000))
        (self.run / "artifacts/adapter/adapter_config.json").write_text("{}")
        (self.run / "artifacts/report.html").write_text("<h1>report</h1>")
        (self.run / "artifacts/README.md").write_text("# card")
        (self.run / "logs/001-prepare.log").write_text("rows prepared\n")
        (self.run / "logs/002-train.log").write_text("loss 0.5\nwith hf_abcdefghijklmnopqrstuvwx\n")

    def artifacts(self) -> list[Document]:
        """As the trainer's last message has them."""
        found = []
        for kind, name in (("adapter", "adapter"), ("modelCard", "README.md"), ("report", "report.html")):
            digest, size = measured(self.run / "artifacts" / name)
            found.append({"kind": kind, "uri": f"pvc://runs/{self.run.name}/artifacts/{name}", "sha256": digest, "bytes": size})
        return found

    def reader(self, before: frozenset[str] = frozenset()) -> Object:
        """The next pod that reads, once it is on its node."""
        trial = self.trial
        labels = f"{c.JOB_UID_LABEL}={uid_of(trial.seen)},{c.READ_LABEL}"

        def found() -> Object | None:
            pods = [pod for pod in trial.api.items(POD.path(trial.namespace), labelSelector=labels) if pod["spec"].get("nodeName")]
            return next((pod for pod in pods if pod["metadata"]["name"] not in before), None)

        return await_value(found, what=f"a pod that reads {trial.name}", timeout=120)

    def play(self, kubelet: LogServer, before: frozenset[str] = frozenset()) -> Object:
        """Do what the kubelet does for the next pod that reads: run its containers one after the other, until one fails."""
        pod = self.reader(before)
        name = pod["metadata"]["name"]
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            code, message, lines = self._container(pod, container["args"])
            kubelet.logs[name, container["name"]] = [(STAMP, line) for line in lines]
            if code:
                return self.trial.puppet.finish(pod, code, message)
        return self.trial.puppet.finish(self.trial.puppet.run(pod))

    def _container(self, pod: Object, arguments: list[str]) -> tuple[int, str, list[bytes]]:
        config, message = self.folder / "config.json", self.folder / "message"
        config.write_text(pod["metadata"]["annotations"][c.TRAINER_CONFIG_ANNOTATION].replace(c.RUN_STORAGE, str(self.folder)))
        message.write_text("")
        command = [sys.executable, "-m", "finetune_trainer", *(str(config) if each == c.CONFIG_FILE else each for each in arguments)]
        environment = {**os.environ, "FINETUNE_TERMINATION_LOG": str(message)}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        return done.returncode, message.read_text(), [*done.stderr.splitlines(), *done.stdout.splitlines()]
