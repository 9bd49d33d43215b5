"""What a machine lacks for a real node is said part by part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cluster.machine import CAPABILITIES, Machine

WHOLE = Machine(root=True, capabilities=sum(1 << bit for bit in CAPABILITIES.values()), cgroups=True, apt=True, missing=())


@pytest.mark.parametrize(
    ("machine", "lacking"),
    [
        (WHOLE, []),
        (replace(WHOLE, missing=("runc",)), []),
        (replace(WHOLE, missing=("runc", "buildah"), apt=False), ["programs; on Debian: apt-get install runc buildah"]),
        (replace(WHOLE, root=False, missing=("runc",)), ["root", "programs; on Debian: apt-get install runc"]),
        (replace(WHOLE, capabilities=1 << 12), ["CAP_SYS_ADMIN"]),
        (replace(WHOLE, capabilities=0, cgroups=False), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "cgroups"]),
    ],
)
def test_each_part_that_is_lacking_is_named(machine: Machine, lacking: list[str]) -> None:
    found = machine.lacks()
    assert len(found) == len(lacking)
    assert all(line.startswith(start) for line, start in zip(found, lacking, strict=True))
