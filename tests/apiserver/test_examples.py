"""Every manifest below examples/ is taken by a real API server as it stands, without a warning, where Pod Security `restricted` is enforced."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from scripts.demo_assets import ROOT
from tests.cluster import Cluster, binaries

MANIFESTS = sorted((ROOT / "examples").rglob("*.yaml"))


def test_every_example_is_taken(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    files = [word for path in MANIFESTS for word in ("-f", str(path))]
    kubectl = [str(binaries.resolve("kubectl")), "--kubeconfig", str(control_plane.kubeconfig)]
    # A cache of its own: kubectl's knows a cluster by its address, which an earlier one with other CRDs may have had.
    command = [*kubectl, "--cache-dir", str(tmp_path), "apply", "--dry-run=server", "--validate=strict", "-n", namespace]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"^\S+ created \(server dry run\)$", done.stdout, re.MULTILINE)) == len(MANIFESTS)
