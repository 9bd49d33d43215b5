"""Every manifest below examples/ is taken by a real API server as it stands, without a warning, where Pod Security `restricted` is enforced."""

from __future__ import annotations

import re
import subprocess

from scripts.demo_assets import ROOT
from tests.cluster import Cluster

MANIFESTS = sorted((ROOT / "examples").rglob("*.yaml"))


def test_every_example_is_taken(control_plane: Cluster, namespace: str) -> None:
    files = [word for path in MANIFESTS for word in ("-f", str(path))]
    command = ["kubectl", "--kubeconfig", str(control_plane.kubeconfig), "apply", "--dry-run=server", "--validate=strict", "-n", namespace]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"^\S+ created \(server dry run\)$", done.stdout, re.MULTILINE)) == len(MANIFESTS)
