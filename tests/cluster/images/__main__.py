"""`python -m tests.cluster.images build | list`: the images of this checkout, and where they stand."""

from __future__ import annotations

import argparse
import sys

from scripts.demo_assets import cache_folder
from tests.cluster.errors import ClusterError
from tests.cluster.images import Image, built, ensure_images, recipes


def main() -> int:
    """Exit code 1 says what is wrong on one line or a few."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.images", description=__doc__)
    parser.add_argument("command", choices=("build", "list"))
    command = parser.parse_args().command
    try:
        if command == "build":
            ensure_images()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    _list()
    return 0


def _list() -> None:
    cache = cache_folder() / "images"
    keys, record = recipes.keys(), built(cache)
    for name in recipes.RECIPES:
        entry = record.get(name, {})
        state = "missing" if not entry else "current" if entry["key"] == keys[name] else "older than its sources"
        published = f"{entry['bytes'] / 1e6:8,.0f} MB  {Image(name, entry['digest']).reference}" if "bytes" in entry else ""
        print(f"{name:10}{state:24}{published}".rstrip())
    print(f"in {cache}")


if __name__ == "__main__":
    sys.exit(main())
