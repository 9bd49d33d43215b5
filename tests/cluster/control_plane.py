"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler: their files and their flags (pure), and the order they start in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.certificates import Authority
from tests.cluster.kubeconfig import kubeconfig, write
from tests.cluster.layout import API_SERVICE, SERVICES, Layout

NODE_GRACE_SECONDS = 20
CALLS_A_SECOND = 2000
"""A node without a sign of life for so long is NotReady (Kubernetes' own value is 50: tests of lost nodes wait for it)."""

AUDIT_POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # Who did what to which object, once for each request; bodies could hold secrets.
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def etcd(layout: Layout, *, fsync: bool) -> list[str]:
    client, peer = layout.etcd, f"http://127.0.0.1:{layout.ports['etcd-peer']}"
    return [
        "--name=test",
        f"--data-dir={layout.data / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--log-level=warn",
        # A test's data need not outlive a power cut; a benchmark of writes asks for the real thing.
        *([] if fsync else ["--unsafe-no-fsync"]),
    ]


def apiserver(layout: Layout) -> list[str]:
    folder, configuration = layout.certificates, layout.configuration
    return [
        f"--etcd-servers={layout.etcd}",
        f"--bind-address={layout.host}",
        f"--secure-port={layout.ports['apiserver']}",
        # Without real nodes nobody looks for the server behind its service address, and a loopback address may not stand there.
        *([f"--advertise-address={layout.host}"] if layout.routed else ["--endpoint-reconciler-type=none"]),
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'service-accounts.key'}",
        f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--kubelet-certificate-authority={folder / 'ca.crt'}",
        f"--kubelet-client-certificate={folder / 'apiserver-to-kubelet.crt'}",
        f"--kubelet-client-key={folder / 'apiserver-to-kubelet.key'}",
        # Nodes have no name that resolves: without this `kubectl logs` fails.
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        # On top of the default ones (PodSecurity, LimitRanger, ResourceQuota, ...): what OpenShift adds is the stricter case.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        "--allow-privileged=true",
        f"--audit-policy-file={configuration / 'audit.json'}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-mode=blocking",
        # Never rotated: a test reads it from where it stood.
        "--audit-log-maxsize=100000",
        "--profiling=false",
    ]


def controller_manager(layout: Layout) -> list[str]:
    folder = layout.certificates
    return [
        f"--kubeconfig={folder / 'controller-manager.kubeconfig'}",
        f"--service-account-private-key-file={folder / 'service-accounts.key'}",
        f"--root-ca-file={folder / 'ca.crt'}",
        # Each controller under its own name and rights: the audit log tells them apart.
        "--use-service-account-credentials=true",
        f"--cluster-cidr={layout.pods}",
        "--allocate-node-cidrs=false",
        f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
        "--leader-elect=false",
        "--secure-port=0",
        # Raised as large clusters have them: with the defaults nothing makes more than four Jobs a second.
        f"--kube-api-qps={CALLS_A_SECOND}",
        f"--kube-api-burst={2 * CALLS_A_SECOND}",
        "--concurrent-job-syncs=50",
    ]


def scheduler(layout: Layout) -> list[str]:
    return [f"--config={layout.configuration / 'scheduler.json'}", "--secure-port=0"]


def scheduler_configuration(layout: Layout) -> dict[str, Any]:
    connection = {"kubeconfig": str(layout.certificates / "scheduler.kubeconfig"), "qps": CALLS_A_SECOND, "burst": 2 * CALLS_A_SECOND}
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": connection,
        "leaderElection": {"leaderElect": False},
    }


def write_files(layout: Layout) -> Authority:
    """Certificates, kubeconfigs and configuration, all new."""
    authority = Authority.make(layout.certificates)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    authority.issue("apiserver", user="kube-apiserver", addresses=[*names, layout.host, API_SERVICE])
    authority.issue("apiserver-to-kubelet", user="apiserver-to-kubelet", groups=["system:masters"])
    admin = authority.issue("admin", user="admin", groups=["system:masters"])
    write(layout.kubeconfig, kubeconfig(layout.server, authority.pair.certificate, admin))
    for name in ("controller-manager", "scheduler"):
        pair = authority.issue(name, user=f"system:kube-{name}")
        write(layout.certificates / f"{name}.kubeconfig", kubeconfig(layout.server, authority.pair.certificate, pair))
    write_json(layout.configuration / "audit.json", AUDIT_POLICY)
    write_json(layout.configuration / "scheduler.json", scheduler_configuration(layout))
    layout.logs.mkdir(parents=True, exist_ok=True)
    return authority


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    return path


PROGRAMS: Mapping[str, Callable[[Layout], list[str]]] = {
    "kube-apiserver": apiserver,
    "kube-controller-manager": controller_manager,
    "kube-scheduler": scheduler,
}
