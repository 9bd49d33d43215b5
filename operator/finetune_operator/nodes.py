"""The cluster's nodes, read for all jobs together: a thousand jobs that wait for GPUs cost one list now and then, and little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from finetune_operator.kinds import NODE
from finetune_operator.kube import Kube
from finetune_operator.model import Manifest

KEPT: Final = timedelta(seconds=20)
"""Less than the time between two looks of a job that waits, so that each of its looks shows nodes that are newer."""


class Nodes:
    def __init__(self, kube: Kube, *, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._now = now
        self._read: tuple[datetime, tuple[Manifest, ...]] | None = None
        self._reading = asyncio.Lock()

    async def all(self) -> tuple[Manifest, ...]:
        """Return every node, as it was at most 20 s ago; whoever asks while they are read waits for that. Raises KubeError."""
        async with self._reading:
            if self._read is None or not timedelta() <= self._now() - self._read[0] < KEPT:
                at = self._now()
                self._read = at, tuple([_small(node) async for page in self._kube.pages(NODE) for node in page])
            return self._read[1]


def _small(node: Manifest) -> Manifest:
    """What decisions read of it: a Node has some ten kilobytes, most of them the names of images."""
    return {
        "metadata": {"name": node["metadata"]["name"]},
        "status": {"allocatable": (node.get("status") or {}).get("allocatable") or {}},
    }
