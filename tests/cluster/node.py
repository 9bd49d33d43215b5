"""Real nodes: containerd, kubelet and kube-proxy of each in a network namespace and a cgroup of its own, so that one machine holds several."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tests.cluster import cgroups, mounts, network
from tests.cluster.api import Api, Object
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import write_json
from tests.cluster.errors import ClusterError
from tests.cluster.kubeconfig import kubeconfig, write
from tests.cluster.layout import Layout, NodePlan
from tests.cluster.node_files import (
    apart,
    cni_configuration,
    containerd_configuration,
    kubelet_configuration,
    kubelet_flags,
    proxy_configuration,
)
from tests.cluster.processes import Processes

LONGEST_FOLDER = 57
"""Of the cluster's folder, in characters: the path of a kubelet's socket holds 107."""
START_SECONDS = 240


class Node:
    """One node of a cluster. `kill_kubelet` loses it: its containers go on, and nobody tells the API server."""

    def __init__(self, layout: Layout, plan: NodePlan, processes: Processes, api: Api) -> None:
        self.plan = plan
        self.name = plan.name
        self.folder = layout.node_folder(plan.name)
        self._layout = layout
        self._processes = processes
        self._api = api

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    def kill_kubelet(self) -> None:
        """SIGKILL: the node is lost, its containers run on."""
        self._processes.kill(f"{self.name}.kubelet")

    def start_kubelet(self) -> None:
        """The kubelet comes back, and says so to the API server."""
        self._processes.again(f"{self.name}.kubelet")
        self.await_ready()

    def set_gpus(self, count: int) -> None:
        """The scheduler counts them; containers see no device."""
        amounts = {"nvidia.com/gpu": str(count)}
        self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": {"capacity": amounts, "allocatable": amounts}})

    def import_image(self, archive: Path, base_name: str = "finetune.test/image") -> str:
        """Load an oci-archive; returns `base_name@sha256:…`, which a pod can name with imagePullPolicy Never or IfNotPresent."""
        said = self.ctr("image", "import", "--base-name", base_name, "--digests", "--all-platforms", str(archive))
        found = [word for line in said.splitlines() for word in line.split() if word.startswith(f"{base_name}@sha256:")]
        if not found:
            raise ClusterError(f"{archive}: containerd imported no image {base_name} by digest. It said:\n{said}")
        return found[0]

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client prints."""
        return _run(["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments])

    def containers(self) -> list[int]:
        """Process ids of what runs in containers here, sandboxes too."""
        return [int(line.split()[1]) for line in self.ctr("task", "ls").splitlines()[1:] if line.split()[2] == "RUNNING"]

    def await_ready(self) -> None:
        """Wait until the node is Ready, by a kubelet that renewed its lease after this call."""
        now = time.time()

        def alive() -> bool:
            node = self._api.find(f"/api/v1/nodes/{self.name}")
            lease = self._api.find(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}")
            return bool(node and lease and ready(node) and datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp() >= now)

        self._processes.wait(f"{self.name}.kubelet", alive, what=f"{self.name} being Ready", timeout=START_SECONDS)

    def start(
        self, programs: Mapping[str, Path], pause: Path, others: Sequence[NodePlan], seed: Callable[[Path], None] | None = None
    ) -> None:
        """Bring up the node, until it is Ready. `seed` fills containerd's root with images."""
        self.folder.mkdir(parents=True)
        cgroups.make(f"{self.plan.cluster}/{self.name}/system")
        network.make_node(self._layout, self.plan, others)
        self._write_files()
        if seed:
            seed(self.folder / "containerd")
        self._run("containerd", ["/usr/bin/containerd", "--config", self.folder / "containerd.toml"])
        name = f"{self.name}.containerd"
        self._processes.wait(name, self.socket.exists, what="its socket being there", timeout=START_SECONDS)
        self.ctr("image", "import", str(pause))
        self._run("kubelet", [*apart(self.folder), programs["kubelet"], *kubelet_flags(self.folder, self.plan)])
        self._run("kube-proxy", [programs["kube-proxy"], f"--config={self.folder / 'kube-proxy.json'}"])
        self.await_ready()

    def _run(self, program: str, command: Sequence[str | Path]) -> None:
        inside = [*cgroups.joining(f"{self.plan.cluster}/{self.name}/system"), *network.entering(self.plan)]
        self._processes.start(f"{self.name}.{program}", [*inside, *command])

    def _write_files(self) -> None:
        folder, plan, layout = self.folder, self.plan, self._layout
        authority = Authority(layout.certificates)
        certificate = authority.pair.certificate
        pair = authority.issue(
            plan.name, user=f"system:node:{plan.name}", groups=["system:nodes"], addresses=[plan.name, plan.address, "127.0.0.1"]
        )
        proxy = authority.issue(f"{plan.name}-proxy", user="system:kube-proxy")
        write(folder / "kubelet.kubeconfig", kubeconfig(layout.server, certificate, pair))
        write(folder / "kube-proxy.kubeconfig", kubeconfig(layout.server, certificate, proxy))
        write_json(folder / "kubelet.json", kubelet_configuration(layout, plan, folder))
        write_json(folder / "kube-proxy.json", proxy_configuration(layout, plan, folder))
        write_json(folder / "cni/10-bridge.conflist", cni_configuration(plan, folder))
        (folder / "containerd.toml").write_text(containerd_configuration(folder))
        for name in ("device-plugins", "container-links", "pods-logs"):
            (folder / name).mkdir()
        # Volumes that the kubelet mounts, in a mount table of its own, are to be seen by containerd.
        mounts.share(folder / "kubelet")
        # A kubelet that finds no checkpoint of devices takes the node for a new one and sets its GPUs to 0, whenever it starts.
        (folder / "device-plugins/kubelet_internal_checkpoint").write_text("{}")


def ready(node: Object) -> bool:
    """Whether the API server holds this node for ready."""
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in node["status"].get("conditions", []))


def check_folder(folder: Path) -> None:
    """A ClusterError where the folder's path is too long for sockets."""
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(
            f"{folder}: the path is longer than {LONGEST_FOLDER} characters, and a kubelet's sockets would not fit: name a shorter one"
        )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-1500:]}")
    return done.stdout
