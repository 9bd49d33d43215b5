"""What follows from a folder and a slot, and what a claim gets: the test cluster's pure parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import binaries, certificates, control_plane, kwok, mounts, node_files, storage
from tests.cluster.__main__ import parser
from tests.cluster.bringup import Wanted, needed
from tests.cluster.layout import FIRST_PORT, SLOTS, Layout

FOLDER = Path("/tmp/cluster")


def test_clusters_in_two_slots_share_nothing() -> None:
    layouts = [Layout(FOLDER, slot, routed=True) for slot in range(SLOTS)]
    assert len({port for layout in layouts for port in layout.ports.values()}) == 3 * SLOTS
    assert len({layout.network for layout in layouts}) == len({layout.name for layout in layouts}) == SLOTS
    assert all(FIRST_PORT <= port < 32_768 for layout in layouts for port in layout.ports.values()), "below the ephemeral ports"
    assert all(len(layout.node(9).link) <= 15 for layout in layouts), "what the kernel takes as a link's name"


def test_nodes_of_a_cluster_share_nothing() -> None:
    nodes = [Layout(FOLDER, 3, routed=True).node(index) for index in (1, 2)]
    for field in ("name", "namespace", "link", "address", "pods", "pod_gateway"):
        assert len({getattr(node, field) for node in nodes}) == 2, field


@pytest.mark.parametrize(("routed", "host"), [(False, "127.0.0.1"), (True, "10.140.0.1")])
def test_the_api_server_listens_on_one_address(routed: bool, host: str) -> None:
    layout = Layout(FOLDER, 0, routed)
    flags = control_plane.apiserver(layout)
    assert f"--bind-address={host}" in flags
    assert ("--endpoint-reconciler-type=none" in flags) is not routed, "a loopback address may not stand behind the Service"


@pytest.mark.parametrize(("fsync", "flag"), [(False, True), (True, False)])
def test_etcd_writes_through_where_it_is_asked_to(fsync: bool, flag: bool) -> None:
    assert ("--unsafe-no-fsync" in control_plane.etcd(Layout(FOLDER, 0, False), fsync=fsync)) is flag


@pytest.mark.parametrize(
    ("wanted", "programs"),
    [
        (Wanted(kwok_nodes=0), set()),
        (Wanted(kwok_nodes=2), {"kwok"}),
        (Wanted(kwok_nodes=0, real_nodes=1), {"kubelet", "kube-proxy"}),
    ],
)
def test_programs_are_those_of_the_cluster(wanted: Wanted, programs: set[str]) -> None:
    assert set(needed(wanted)) - set(needed(Wanted(kwok_nodes=0))) == programs
    assert set(needed(wanted)) <= set(binaries.PROGRAMS)


@pytest.mark.parametrize(
    ("arguments", "kwok_nodes", "nodes"),
    [(["up"], 3, 0), (["up", "--kwok", "5"], 5, 0), (["up", "/tmp/x", "--node"], 3, 1), (["up", "--nodes", "2", "/tmp/x"], 3, 2)],
)
def test_command_line(arguments: list[str], kwok_nodes: int, nodes: int) -> None:
    options = parser().parse_args(arguments)
    assert (options.kwok, options.node) == (kwok_nodes, nodes)


@pytest.mark.parametrize(("address", "text"), [("10.96.0.1", "IP:10.96.0.1"), ("::1", "IP:::1"), ("node-1", "DNS:node-1")])
def test_names_in_certificates(address: str, text: str) -> None:
    assert certificates.alternative(address) == text
    assert "serverAuth" in certificates.extensions([address])
    assert "serverAuth" not in certificates.extensions([])


def test_a_changed_recipe_is_another() -> None:
    etcd, helm = binaries.PROGRAMS["etcd"], binaries.PROGRAMS["helm"]
    assert helm.recipe() != replace(helm, version="v0.0.1").recipe()
    assert etcd.recipe() != replace(etcd, module="kubernetes").recipe()
    assert binaries.kubernetes_version().startswith("v1.")


def test_programs_are_taken_from_the_assets_then_from_path(tmp_path: Path) -> None:
    for folder in ("assets", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "etcd").touch(mode=0o755)
    env = {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": str(tmp_path / "path")}
    assert binaries.find("etcd", env=env) == tmp_path / "assets/etcd"
    assert binaries.find("etcd", env={"PATH": env["PATH"]}) == tmp_path / "path/etcd"


def test_stages_are_documents_that_kwok_reads() -> None:
    stages = list(yaml.safe_load_all(kwok.stages()))
    assert [stage["metadata"]["name"] for stage in stages] == [
        "node-ready",
        "node-alive",
        "pod-runs",
        "pod-ends",
        "pod-stopped",
        "pod-gone",
    ]


def test_node_files_name_nothing_outside_the_cluster_s_folder() -> None:
    layout = Layout(FOLDER, 1, routed=True)
    plan, folder = layout.node(1), layout.node_folder("node-1")
    files = [
        node_files.containerd_configuration(folder),
        json.dumps(node_files.kubelet_configuration(layout, plan, folder)),
        json.dumps(node_files.proxy_configuration(layout, plan, folder)),
        json.dumps(node_files.cni_configuration(plan, folder)),
    ]
    paths = {part.strip('",[]}') for file in files for part in file.replace("unix://", "").split() if part.startswith('"/')}
    assert {path for path in paths if not path.startswith((str(FOLDER), "/ftc1/"))} <= {"/usr/lib/cni", "/usr/sbin/runc", "/usr/bin/runc"}


MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
40 22 0:40 / /tmp/cluster/nodes/node-1/kubelet rw - ext4 /dev/vda rw
41 40 0:41 / /tmp/cluster/nodes/node-1/kubelet/pods/a\\040b rw - tmpfs tmpfs rw
42 22 0:42 / /tmp/cluster-2/volumes rw - tmpfs tmpfs rw
"""


def test_mounts_below_a_folder_come_innermost_first() -> None:
    inside = "/tmp/cluster/nodes/node-1/kubelet"
    assert mounts.below(FOLDER, MOUNTS) == [f"{inside}/pods/a b", inside]


def claim(**changes: Any) -> dict[str, Any]:
    annotations = {storage.SELECTED_NODE: changes.pop("node")} if "node" in changes else {}
    spec = {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "metadata": {"name": "data", "namespace": "ns", "uid": "u-1", "annotations": annotations},
        "spec": spec | changes,
        "status": {"phase": "Pending"},
    }


NODES = [{"metadata": {"name": name, "labels": {storage.HOSTNAME: name}}} for name in ("node-1", "node-2")]
CLASSES = {found["metadata"]["name"]: found for found in storage.classes()}


@pytest.mark.parametrize(
    ("name", "found", "where"),
    [
        ("local", claim(), None),
        ("local", claim(node="node-2"), ["node-2"]),
        ("local", claim(node="gone"), None),
        ("local-immediate", claim(), ["node-1"]),
        ("shared", claim(), "everywhere"),
        ("tmpfs", claim(node="node-1"), ["node-1"]),
    ],
)
def test_a_claim_gets_its_volume(name: str, found: dict[str, Any], where: list[str] | str | None) -> None:
    volume = storage.volume(found, CLASSES[name], NODES, FOLDER)
    if where is None:
        assert volume is None
        return
    assert volume is not None
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0].get("values", "everywhere") == where
    assert volume["spec"]["claimRef"]["uid"] == "u-1"
    assert volume["spec"]["local"]["path"] == "/tmp/cluster/pvc-u-1"


@pytest.mark.parametrize(
    ("found", "answer"),
    [(claim(), True), (claim(volumeName="pv"), False), (claim(storageClassName=""), False)],
)
def test_a_claim_waits_until_it_has_a_volume(found: dict[str, Any], answer: bool) -> None:
    assert storage.waits(found) is answer


@pytest.mark.parametrize(("quantity", "number"), [("1Ki", 1024), ("1.5Gi", 1_610_612_736), ("20M", 20_000_000), ("512", 512)])
def test_quantities(quantity: str, number: int) -> None:
    assert storage.bytes_of(quantity) == number
