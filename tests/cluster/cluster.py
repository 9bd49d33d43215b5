"""One whole Kubernetes in a folder: brought up, used by a test or a person, taken down again with everything that belongs to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.cluster import binaries, machine, slots
from tests.cluster.api import Api, Object
from tests.cluster.bringup import START_SECONDS, Wanted, needed, start
from tests.cluster.certificates import Authority
from tests.cluster.errors import ClusterError
from tests.cluster.keeper import Keeper
from tests.cluster.kubeconfig import kubeconfig, write
from tests.cluster.node import Node, check_folder
from tests.cluster.pods import await_served
from tests.cluster.processes import Identity, Processes
from tests.cluster.slots import State
from tests.cluster.teardown import sweep, take_down

Say = Callable[[str], None]


DEFAULT = Wanted()


class Cluster:
    """A cluster that runs. As a context manager, it is gone when the block ends; whatever kills this process takes it down too."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.layout = state.layout(folder)
        self.processes = Processes(folder)
        self._keeper: Keeper | None = None

    @classmethod
    def up(cls, folder: Path, wanted: Wanted = DEFAULT, *, say: Say = print) -> Self:
        """Bring up a cluster in this folder, which must be empty or missing; it lives as long as this process, or until `keep`."""
        folder = folder.resolve()
        if wanted.real_nodes:
            check_folder(folder)
            machine.prepare(say)
        programs = {name: binaries.resolve(name, say) for name in needed(wanted)}
        with slots.locked():
            sweep(say)
            if State.read(folder):
                raise ClusterError(f"{folder} holds a cluster already: python -m tests.cluster down {folder}")
            if folder.exists() and {path.name for path in folder.iterdir()} - {"logs"}:
                raise ClusterError(f"{folder} holds other files, and `down` would remove them: name an empty folder")
            folder.mkdir(parents=True, exist_ok=True)
            state = State(slots.take(folder), bool(wanted.real_nodes), Identity.of(os.getpid()))
            state.write(folder)
        cluster = cls(folder, state)
        cluster._keeper = Keeper.start(folder)
        try:
            start(cluster, wanted, programs, say)
        except BaseException:
            cluster.down()
            raise
        return cluster

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The cluster that runs in this folder."""
        state = State.read(folder.resolve())
        if state is None:
            raise ClusterError(f"{folder} holds no cluster: python -m tests.cluster up {folder}")
        return cls(folder.resolve(), state)

    def keep(self) -> None:
        """Let it live on when this process ends."""
        State(self.layout.slot, self.layout.routed, None).write(self.folder)
        if self._keeper:
            self._keeper.release()

    def down(self) -> None:
        """End everything, and remove the folder's contents but for the logs."""
        self.api.close()
        if self._keeper:
            self._keeper.release()
        take_down(self.folder, self.layout.slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator (group system:masters)."""
        return self.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON object a line: who (`user`), what (`verb`), of which resource (`objectRef`), and the answer."""
        return self.layout.audit_log

    def audit(self) -> Iterator[Object]:
        """The audit log's events so far."""
        with self.audit_log.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    @cached_property
    def api(self) -> Api:
        """As the administrator."""
        folder = self.layout.certificates
        return Api(self.layout.server, folder / "ca.crt", certificate=folder / "admin.crt", key=folder / "admin.key")

    def api_as(self, token: str) -> Api:
        """As whoever this bearer token belongs to."""
        return Api(self.layout.server, self.layout.certificates / "ca.crt", token=token)

    def client(self) -> Any:
        """A `kubernetes.client.ApiClient` of the administrator."""
        from kubernetes import config  # half a second: only for those who want it

        return config.new_client_from_config(str(self.kubeconfig))  # type: ignore[no-untyped-call]  # the library has no types

    def user(self, name: str, *groups: str) -> Path:
        """The kubeconfig of a person without rights: grant some by a RoleBinding to this name, or one of these groups."""
        authority = Authority(self.layout.certificates)
        path = self.folder / "users" / f"{name}.kubeconfig"
        if not path.exists():
            pair = authority.issue(f"user-{name}", user=name, groups=groups)
            write(path, kubeconfig(self.layout.server, authority.pair.certificate, pair))
        return path

    def service_account(self, namespace: str, name: str, *, seconds: int = 86_400) -> Path:
        """The kubeconfig of a service account that exists, with a token as its pods would have one."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
        token = self.api.post(path, body)["status"]["token"]
        content = kubeconfig(self.layout.server, self.layout.certificates / "ca.crt", token, namespace)
        return write(self.folder / "users" / f"{namespace}.{name}.kubeconfig", content)

    def kubectl(self, *arguments: str | Path, given: str = "", user: Path | None = None) -> str:
        """What kubectl prints; a ClusterError with what it complained about where it fails."""
        command = [
            str(binaries.resolve("kubectl")),
            *("--kubeconfig", str(user or self.kubeconfig)),
            # The usual cache knows a cluster by its address, which an earlier one with other CRDs may have had.
            *("--cache-dir", str(self.folder / "kubectl-cache")),
            *map(str, arguments),
        ]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Path) -> None:
        """Server-side apply; for CRDs, wait until they are served."""
        files = [part for manifest in manifests for part in ("-f", str(manifest))]
        self.kubectl("apply", "--server-side", "--force-conflicts", *files)
        for document in (each for manifest in manifests for each in yaml.safe_load_all(manifest.read_text())):
            if document and document["kind"] == "CustomResourceDefinition":
                await_served(self.api, document["metadata"]["name"])

    def node(self, name: str = "node-1") -> Node:
        """A real node of this cluster."""
        plan = self.layout.node(int(name.removeprefix("node-")))
        if not self.layout.node_folder(plan.name).exists():
            raise ClusterError(f"{self.folder} has no real node {name}: python -m tests.cluster up --node")
        return Node(self.layout, plan, self.processes, self.api)

    @property
    def nodes(self) -> list[Node]:
        """The real nodes."""
        return [self.node(folder.name) for folder in sorted(self.layout.node_folder("").glob("node-*"))]

    def import_image(self, archive: Path, base_name: str = "finetune.test/image") -> str:
        """Load an oci-archive on every real node; returns `base_name@sha256:…`, for pods with imagePullPolicy Never or IfNotPresent."""
        (reference,) = {node.import_image(archive, base_name) for node in self.nodes}
        return reference

    def await_api_server(self) -> None:
        """Wait until every part of the API server is ready."""
        self.processes.wait("kube-apiserver", self.api.ready, what="/readyz answering ok", timeout=START_SECONDS)


if sys.platform != "linux":
    raise ClusterError("The test cluster runs on Linux only")
