"""The programs of a cluster: taken from $KUBEBUILDER_ASSETS, from PATH, from the user's cache, or built from Go modules into that cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts import go
from scripts.demo_assets import cache_folder
from tests.cluster.errors import ClusterError

SOURCES = Path(__file__).parent
Say = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """How one program is built: from a module of ours (where its own go.mod can't be installed from outside), or by `go install`."""

    package: str
    minutes: float
    """About how long the first build takes on two cores."""
    module: str = ""
    version: str = ""

    def recipe(self) -> str:
        """Changes when the program would: a cached build of another recipe is built anew."""
        files = [SOURCES / self.module / name for name in ("go.mod", "go.sum")] if self.module else []
        content = b"".join(file.read_bytes() for file in files)
        return hashlib.sha256(f"{self.package}@{self.version} {self.flags()}".encode() + content).hexdigest()

    def flags(self) -> list[str]:
        return ["-trimpath", "-ldflags", f"-s -w {_kubernetes_version()}" if self.module == "kubernetes" else "-s -w"]


PROGRAMS: Mapping[str, Program] = {
    **{
        name: Program(f"k8s.io/kubernetes/cmd/{name}", minutes, module="kubernetes")
        for name, minutes in {
            "kube-apiserver": 5,
            "kube-controller-manager": 1.5,
            "kube-scheduler": 0.2,
            "kubelet": 0.5,
            "kube-proxy": 0.5,
            "kubectl": 1,
        }.items()
    },
    "etcd": Program("go.etcd.io/etcd/server/v3", 1, module="etcd"),
    "kwok": Program("sigs.k8s.io/kwok/cmd/kwok", 1.5, version="v0.8.0"),
    "helm": Program("helm.sh/helm/v4/cmd/helm", 3.5, version="v4.3.1"),
}


def kubernetes_version() -> str:
    """The version that is built, as tests/cluster/kubernetes/go.mod requires it: v1.34.4."""
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", (SOURCES / "kubernetes/go.mod").read_text(), flags=re.MULTILINE)
    if found is None:
        raise ClusterError(f"{SOURCES / 'kubernetes/go.mod'} requires no k8s.io/kubernetes")
    return found[1]


def _kubernetes_version() -> str:
    """Without it the server calls itself v0.0.0-master, and clients refuse features."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    at = "k8s.io/component-base/version"
    return f"-X {at}.gitVersion={version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"


def find(name: str, *, env: Mapping[str, str] = os.environ) -> Path | None:
    """Where this program is, without a build; None where it would have to be built."""
    assets = env.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    if on_path := shutil.which(name, path=env.get("PATH")):
        return Path(on_path)
    cached = cache_folder() / "binaries" / name
    stamp = cached.with_suffix(".recipe")
    return cached if cached.exists() and stamp.exists() and stamp.read_text() == PROGRAMS[name].recipe() else None


def resolve(name: str, say: Say = print) -> Path:
    """Where this program is; built first where it is nowhere. Two that come together build once."""
    if found := find(name):
        return found
    folder = cache_folder() / "binaries"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find(name) or _build(name, folder, say)


def _build(name: str, folder: Path, say: Say) -> Path:
    program = PROGRAMS[name]
    say(f"building {name} (once; about {program.minutes:g} min on two cores)")
    env = {**go.environment(), "CGO_ENABLED": "0"}
    new = folder / "new"
    if program.module:
        command = ["go", "build", *program.flags(), "-o", str(new / name), program.package]
        place = SOURCES / program.module
    else:
        command = ["go", "install", *program.flags(), f"{program.package}@{program.version}"]
        env |= {"GOBIN": str(new), "GOFLAGS": ""}
        place = folder
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{name} could not be built: `{' '.join(command)}` in {place} said:\n{done.stderr[-2000:]}")
    (folder / f"{name}.recipe").unlink(missing_ok=True)
    (new / name).rename(folder / name)
    (folder / f"{name}.recipe").write_text(program.recipe())
    return folder / name
