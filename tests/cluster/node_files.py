"""A node's configuration files: pure functions of where they lie. Each value that is not Kubernetes' own has its reason beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.cluster.layout import Layout, NodePlan

PAUSE = "finetune.test/pause:1"
"""The image that holds a pod's namespaces."""


def containerd_configuration(folder: Path) -> str:
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{folder / "containerd"}"
state = "{folder / "containerd-state"}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{folder / "containerd.sock"}"
{cri}]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE a sandbox can't be given a better score than this process has, and would not start.
  restrict_oom_score_adj = true
  # Below the cluster's folder, where they are found when it is taken down.
  netns_mounts_under_state_dir = true
{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{folder / "cni"}"
{cri}.containerd]
  snapshotter = "overlayfs"
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  BinaryName = "{shutil.which("runc") or "runc"}"
  Root = "{folder / "runc"}"
"""


APART = """\
set -e
for pair in "device-plugins /var/lib/kubelet/device-plugins" "container-links /var/log/containers"; do
    set -- $pair "$@"
    mkdir -p "$2"
    mount --make-private "$(findmnt --noheadings --output TARGET --target "$2")"
    mount --bind "$FOLDER/$1" "$2"
    shift 2
done
exec "$@"
"""


def apart(folder: Path) -> list[str]:
    """The beginning of a command line: two places that no option of a kubelet moves are this node's own for the program that follows."""
    return ["/usr/bin/unshare", "--mount", "--propagation", "unchanged", "/usr/bin/env", f"FOLDER={folder}", "/bin/sh", "-c", APART, "sh"]


def kubelet_flags(folder: Path, plan: NodePlan) -> list[str]:
    return [
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
        f"--root-dir={folder / 'kubelet'}",
        f"--hostname-override={plan.name}",
        f"--node-ip={plan.address}",
    ]


def kubelet_configuration(layout: Layout, plan: NodePlan, folder: Path) -> dict[str, Any]:
    certificates = layout.certificates
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificates / f"{plan.name}.crt"),
        "tlsPrivateKeyFile": str(certificates / f"{plan.name}.key"),
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.cluster}/{plan.name}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        # No DNS server answers there (names of Services do not resolve); without one the kubelet warns about each pod.
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "podLogsDir": str(folder / "pods-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        # No registry has these images: they are never collected, and a disk that fills evicts nothing before it must.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "nodeLeaseDurationSeconds": 12,
        "serializeImagePulls": False,
    }


def proxy_configuration(layout: Layout, plan: NodePlan, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "hostnameOverride": plan.name,
        "bindAddress": plan.address,
        "clusterCIDR": layout.pods,
        "mode": "iptables",
        "oomScoreAdj": 0,
        # These are the machine's own settings, and not this node's to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def cni_configuration(plan: NodePlan, folder: Path) -> dict[str, Any]:
    """Pods of a node share a bridge; without masquerading they reach this cluster's nodes and pods, and nothing else."""
    ipam = {
        "type": "host-local",
        "dataDir": str(folder / "addresses"),
        "ranges": [[{"subnet": plan.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": plan.namespace, "plugins": [bridge]}
