"""`python -m scripts.render_chart`: what is made from the chart and for it. The chart's copies of the CRDs, the plain manifest, the snapshots.

The plain manifest is for those without helm: the namespace, the CRDs and the chart's objects with the default values. The snapshots are
what a reviewer reads where a template changes.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster import binaries

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts/finetune-operator"
MANIFEST: Final = Path("deploy/finetune-operator.yaml")
NAMESPACE: Final = "finetune-system"
RELEASE: Final = "finetune-operator"
HEADER: Final = f"""\
# Rendered from charts/finetune-operator by `make generate`: change the chart, not this file.
# Install:  kubectl apply --server-side --force-conflicts -f {MANIFEST}
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
DIGEST: Final = "sha256:" + "0123456789abcdef" * 4
FULL: Final[Mapping[str, Any]] = {
    "image": {"repository": "registry.example.com/finetune-operator", "digest": DIGEST, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "watchNamespaces": ["team-a", "team-b"],
    "workers": 16,
    "aggregateRoles": False,
    "runtimeReaders": [],
    "defaultRuntime": {
        "create": True,
        "name": "torch-cpu",
        "spec": {
            "image": f"registry.example.com/finetune-trainer@{DIGEST}",
            "gpus": 0,
            "storage": {"claimTemplate": {"accessMode": "ReadWriteOnce", "size": "10Gi"}},
        },
    },
    "networkPolicy": {"enabled": True, "apiServerCIDRs": ["10.0.0.1/32"], "apiServerPorts": [6443]},
    "metrics": {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": "https://docs.example.com/alerts"},
        "boards": {"enabled": True, "annotations": {"grafana_folder": "Fine-tuning"}},
    },
    "progress": {"enabled": True, "port": 9443, "url": "https://10.96.0.99:9443/v1/progress"},
    "serviceAccount": {"annotations": {"example.com/owner": "platform"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "infrastructure", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"example.com/team": "platform"},
    "podAnnotations": {"example.com/scrape": "true"},
}
SNAPSHOTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "defaults": {},
    "namespaced": {"watchNamespaces": ["team-a"]},
    "everything": FULL,
}
"""Values of each snapshot, by its name."""


class HelmError(RuntimeError):
    """Helm refused; the message is its own."""


@functools.cache
def _helm() -> Path:
    return binaries.resolve("helm")


def run_helm(*arguments: str, values: Mapping[str, Any] | None = None, chart: Path | None = CHART) -> str:
    """Return what helm prints; `chart` becomes its last argument where there is one, `values` are read from its input.

    Raises:
        HelmError: Helm ended with an error.
        tests.cluster.errors.ClusterError: There is no helm, and none could be built.
    """
    command = [str(_helm()), *arguments, *([str(chart)] if chart else [])]
    if values is not None:
        command += ["--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(dict(values or {})), capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def rendered(values: Mapping[str, Any], *flags: str, chart: Path = CHART) -> str:
    """Return the chart's objects as YAML text, without CRDs unless a flag asks for them. Raises as `run_helm`."""
    return run_helm("template", "--namespace", NAMESPACE, *flags, RELEASE, values=values, chart=chart)


def objects(text: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML text, without the empty ones."""
    return [document for document in yaml.safe_load_all(text) if document]


def crd_copies() -> dict[Path, bytes]:
    """Return the chart's copies of the CRDs, by their paths in the repository."""
    return {Path("charts/finetune-operator/crds") / path.name: path.read_bytes() for path in sorted((ROOT / "crds").glob("*.yaml"))}


def generated() -> dict[Path, str]:
    """Return what is rendered, by its path in the repository. Raises as `run_helm`."""
    files = {Path(f"tests/chart/snapshots/{name}.yaml"): rendered(values) for name, values in SNAPSHOTS.items()}
    return {MANIFEST: HEADER + rendered({}, "--include-crds", "--skip-tests"), **files}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write everything below the repository's folder; copies of CRDs that are gone are removed."""
    copies = crd_copies()
    for stale in set((CHART / "crds").glob("*.yaml")) - {ROOT / path for path in copies}:
        stale.unlink()
    for path, content in copies.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(content)
    for path, text in generated().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
