"""Where each thing of one cluster lies, and which ports, addresses and names it uses. Pure: all of it follows from a folder and a slot.

Each cluster on a machine holds another slot. Whatever is not inside its folder (ports, a bridge, network namespaces, cgroups, routes) is named
after the slot, so that two clusters run side by side and a killed one can be cleaned up even where its folder is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SLOTS = 16
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
FIRST_PORT = 21_000
"""Below the ephemeral ports: nothing else on the machine is given one of these by chance."""


@dataclass(frozen=True)
class NodePlan:
    """One real node: a network namespace of its own behind the cluster's bridge."""

    cluster: str
    network: str
    index: int
    """1 and up: the number of its pods' /24."""

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def namespace(self) -> str:
        return f"{self.cluster}-{self.name}"

    @property
    def link(self) -> str:
        """The end of its cable on the bridge (names of links hold 15 characters)."""
        return f"{self.cluster}v{self.index}"

    @property
    def address(self) -> str:
        return f"{self.network}.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        return f"{self.network}.{self.index}.0/24"

    @property
    def pod_gateway(self) -> str:
        return f"{self.network}.{self.index}.1"


@dataclass(frozen=True)
class Layout:
    """One cluster's places and names."""

    folder: Path
    slot: int
    routed: bool
    """With real nodes: the API server listens where pods reach it, else on loopback only."""

    @property
    def name(self) -> str:
        return f"ftc{self.slot}"

    @property
    def network(self) -> str:
        """The first half of every address of this cluster's nodes and pods."""
        return f"10.{140 + self.slot}"

    @property
    def pods(self) -> str:
        return f"{self.network}.0.0/16"

    @property
    def host(self) -> str:
        """The address of the control plane."""
        return f"{self.network}.0.1" if self.routed else "127.0.0.1"

    @property
    def ports(self) -> dict[str, int]:
        names = ("apiserver", "etcd", "etcd-peer")
        return {name: FIRST_PORT + 10 * self.slot + number for number, name in enumerate(names)}

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.ports['apiserver']}"

    @property
    def etcd(self) -> str:
        return f"http://127.0.0.1:{self.ports['etcd']}"

    def node(self, index: int) -> NodePlan:
        return NodePlan(self.name, self.network, index)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def configuration(self) -> Path:
        return self.folder / "configuration"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.jsonl"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    def node_folder(self, name: str) -> Path:
        return self.folder / "nodes" / name
