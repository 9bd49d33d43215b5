"""Where Go is: this machine's, else the package index's pinned one. Tests build a few programs with it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """This environment, with `go` on its PATH: fetched by scripts/go.sh where the machine has none. Never writes go.mod."""
    env = {**os.environ, "GOFLAGS": "-buildvcs=false -mod=readonly"}
    if shutil.which("go"):
        return env
    said = subprocess.run(["scripts/go.sh"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    folder = said.split('export PATH="', 1)[1].split(":", 1)[0]
    return {**env, "PATH": f"{folder}:{env.get('PATH', '')}"}


def build(sources: Path) -> Path:
    """Return the program of this folder as its sources are, built where it is missing. Those who come together wait for the first."""
    digest = hashlib.sha256()
    for source in sorted(path for path in sources.iterdir() if path.suffix in (".go", ".mod", ".sum")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    program = ROOT / ".cache/bin" / f"{sources.name}-{digest.hexdigest()[:12]}"
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / f"{sources.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            new = program.with_suffix(".new")
            subprocess.run(["go", "build", "-o", str(new), "."], cwd=sources, env=environment(), check=True)
            new.rename(program)
    return program
