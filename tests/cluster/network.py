"""A cluster's network: one bridge, and behind it a network namespace for each node, as if each were a machine.

kube-proxy's rules stay inside their node's namespace, so clusters never meet; nothing has a default route, so pods reach each other, the control
plane and nothing else. Removing the namespaces and the bridge removes links, routes and rules with them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout, NodePlan

NAMESPACES = Path("/run/netns")


def make_bridge(layout: Layout) -> None:
    """The cluster's bridge, with the control plane's address."""
    _ip("link", "add", layout.name, "type", "bridge")
    _ip("address", "add", f"{layout.host}/24", "dev", layout.name)
    _ip("link", "set", layout.name, "up")


def make_node(layout: Layout, node: NodePlan, others: Sequence[NodePlan]) -> None:
    """A namespace for this node, plugged into the bridge, with routes from and to the pods of the others and of the control plane."""
    _ip("netns", "add", node.namespace)
    _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
    _ip("link", "set", node.link, "master", layout.name, "up")
    _ip("link", "set", "lo", "up", inside=node)
    _ip("address", "add", f"{node.address}/24", "dev", "eth0", inside=node)
    _ip("link", "set", "eth0", "up", inside=node)
    # Written by a process of that namespace: the file shows its own namespace to each.
    _run([*entering(node), "/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    _ip("route", "add", node.pods, "via", node.address)
    for other in others:
        _ip("route", "add", other.pods, "via", other.address, inside=node)
        _ip("route", "add", node.pods, "via", node.address, inside=other)


def entering(node: NodePlan) -> list[str]:
    """The beginning of a command line: the program that follows runs in this node's network."""
    return ["/usr/bin/nsenter", f"--net={NAMESPACES / node.namespace}"]


def remove(layout: Layout) -> None:
    """Everything of this cluster that is there."""
    for namespace in sorted(NAMESPACES.glob(f"{layout.name}-*")):
        _ip("netns", "delete", namespace.name)
    if (Path("/sys/class/net") / layout.name).exists():
        _ip("link", "delete", layout.name)


def _ip(*arguments: str, inside: NodePlan | None = None) -> None:
    _run(["ip", *(["-n", inside.namespace] if inside else []), *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"the network could not be set up: `{' '.join(command)}` said: {done.stderr.strip()}")
