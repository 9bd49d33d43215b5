"""`python -m tests.cluster.prepare`: everything that tests need that takes long to get, before the first of them: packages, programs and images.

Tests have time limits, and a first build does not fit in one.
"""

from __future__ import annotations

import sys

from scripts import go
from tests.cluster import binaries, debian, machine, monitoring
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images


def main() -> int:
    try:
        machine.prepare(print)
        for name in binaries.PROGRAMS:
            binaries.resolve(name)
        for name in debian.PROGRAMS:
            debian.resolve(name)
        for name in ("crdvalidator", "gitops"):
            go.build(go.ROOT / "tests" / name)
        monitoring.definitions()
        ensure_images()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
