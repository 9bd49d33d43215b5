"""What a machine needs to run real nodes, what it lacks, and Debian's packages for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import MissingPart

PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "crun": "crun",
    "buildah": "buildah",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "debootstrap": "debootstrap",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/bin/busybox": "busybox-static",
}
"""A program (by name, or by its path) and the package that brings it."""

CAPABILITIES: Mapping[str, int] = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""What root has, but not in every container: to make networks, and mounts."""


@dataclass(frozen=True)
class Machine:
    """What counts for a real node."""

    root: bool
    capabilities: int
    """The bits of CapEff in /proc/self/status."""
    cgroups: bool
    """Whether cgroups can be made."""
    apt: bool
    missing: tuple[str, ...]
    """Packages."""

    @classmethod
    def this(cls) -> Machine:
        status = Path("/proc/self/status").read_text()
        found = re.search(r"^CapEff:\s*(\w+)$", status, flags=re.MULTILINE)
        return cls(
            root=os.geteuid() == 0,
            capabilities=int(found[1], 16) if found else 0,
            cgroups=os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK) or os.access("/sys/fs/cgroup/pids/cgroup.procs", os.W_OK),
            apt=shutil.which("apt-get") is not None,
            missing=tuple(package for program, package in PACKAGES.items() if not shutil.which(program)),
        )

    def lacks(self) -> list[str]:
        """What a person must bring, a line each; packages only where they can't be installed from here."""
        found = [] if self.root else ["root: it makes containers and networks. Run the same command as root"]
        if self.root:
            lost = [name for name, bit in CAPABILITIES.items() if not self.capabilities >> bit & 1]
            found += [f"{name}: the container that this runs in was not given it (docker run --privileged)" for name in lost]
            found += [] if self.cgroups else ["cgroups: /sys/fs/cgroup is not there, or can't be written"]
        if self.missing and not (self.root and self.apt):
            found.append(f"programs; on Debian: apt-get install {' '.join(self.missing)}")
        return found


def prepare(say: Callable[[str], None]) -> None:
    """Install the packages that are missing. Raises MissingPart with everything that is lacking, and that this can't change."""
    machine = Machine.this()
    if lacking := machine.lacks():
        raise MissingPart("a real node can't run on this machine. It lacks\n" + "\n".join(f"  {part}" for part in lacking))
    if machine.missing:
        say(f"installing {' '.join(machine.missing)}")
        _apt(machine.missing)


def _apt(packages: tuple[str, ...]) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingPart(f"`{' '.join(command)}` failed, so these are missing: {' '.join(packages)}\n{done.stderr[-1000:]}")
