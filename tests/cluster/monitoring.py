"""The CRDs of the Prometheus operator's kinds that the chart renders: files of a Go module, which `monitors/go.sum` pins by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

from scripts import go
from scripts.demo_assets import cache_folder
from tests.cluster.errors import ClusterError

SOURCES: Final = Path(__file__).parent / "monitors"
MODULE: Final = "github.com/prometheus-operator/prometheus-operator"
KINDS: Final = ("servicemonitors", "podmonitors", "prometheusrules")


def definitions() -> list[Path]:
    """Where the CRDs are; fetched first where they are nowhere. Raises ClusterError."""
    pins = b"".join((SOURCES / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = cache_folder() / f"monitors-{hashlib.sha256(pins + ' '.join(KINDS).encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


def _fetch(folder: Path) -> None:
    command = ["go", "mod", "download", "-json", MODULE]  # refuses a module of another hash
    done = subprocess.run(command, cwd=SOURCES, env=go.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"the CRDs of {MODULE} could not be fetched: `{' '.join(command)}` in {SOURCES} said:\n{done.stderr[-2000:]}")
    source = Path(json.loads(done.stdout)["Dir"]) / "example/prometheus-operator-crd"
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for kind in KINDS:
        shutil.copyfile(source / f"monitoring.coreos.com_{kind}.yaml", new / f"monitoring.coreos.com_{kind}.yaml")
    new.rename(folder)
