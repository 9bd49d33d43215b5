"""`python -m finetune_operator`: exit code 0 after SIGTERM, 2 where it was started wrongly, 1 where a part died."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time

import uvloop

from finetune_operator.app import run
from finetune_operator.decide import decide
from finetune_operator.errors import KubeError, SettingsError
from finetune_operator.memory import map_large
from finetune_operator.settings import USAGE, parse

log = logging.getLogger("finetune_operator")


def main() -> int:
    """Start the operator with the process's arguments and environment. Returns the exit code."""
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        print(USAGE, end="")
        return 0
    try:
        spare_collections()
        map_large()
        settings = parse(sys.argv[1:], os.environ)
        write_logs(settings.log_level)
        uvloop.run(run(settings, decide))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KubeError as error:
        log.error("%s", error)
        return 1
    except ExceptionGroup as group:
        if wrongly := group.subgroup(SettingsError):
            print(f"error: {'; '.join(map(str, leaves(wrongly)))}", file=sys.stderr)
            return 2
        for part in group.exceptions:
            log.error("a part of the operator died: %s", part, exc_info=part)
        return 1
    return 0


def leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """Return what a group, and the groups in it, are made of."""
    return [leaf for part in group.exceptions for leaf in (leaves(part) if isinstance(part, BaseExceptionGroup) else [part])]


def spare_collections() -> None:
    """Have Python look for cycles less often: a restart parses thousands of objects without any, and looking was a third of its work."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(20_000, 20, 50)


def write_logs(level: str) -> None:
    """One line an event on standard error, times in UTC. Kopf tells of each object's each event: only its warnings stay."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    for name in ("kopf.objects", "kopf._core.reactor", "asyncio"):
        logging.getLogger(name).setLevel("WARNING")


if __name__ == "__main__":
    sys.exit(main())
