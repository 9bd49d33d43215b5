"""Plays the kubelet for many pods at once: each runs as soon as it has a node, and ends well as soon as its FineTuneJob's status tells of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from finetune_operator.kinds import FINE_TUNE_JOB, POD, Kind, job_uid_label, uid_of
from finetune_operator.model import Manifest
from tests.apiserver.puppet import Puppet
from tests.apiserver.trouble_operator import Informer
from tests.cluster.api import Object

Words = Callable[[Object], dict[str, str]]
"""A pod's last messages, by container."""


class Kubelet:
    def __init__(self, informer: Informer, puppet: Puppet, words: Words) -> None:
        self._informer = informer
        self._puppet = puppet
        self._words = words
        self._heard: queue.SimpleQueue[tuple[Kind, str, Manifest] | None] = queue.SimpleQueue()
        self._told: dict[str, set[str]] = {}
        self._running: dict[str, Object] = {}
        self._started: set[str] = set()
        self._thread = threading.Thread(target=self._play, name="kubelet")

    def __enter__(self) -> Self:
        self._thread.start()
        self._informer.subscribe(self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._informer.unsubscribe(self._hear)
        self._heard.put(None)
        self._thread.join(60)

    def _hear(self, kind: Kind, change: str, manifest: Manifest) -> None:
        if kind in (FINE_TUNE_JOB, POD) and change != "DELETED":
            self._heard.put((kind, change, manifest))

    def _play(self) -> None:
        while (heard := self._heard.get()) is not None:
            kind, _, manifest = heard
            if kind is FINE_TUNE_JOB:
                attempts = (manifest.get("status") or {}).get("attempts") or []
                self._told[uid_of(manifest)] = {each.get("pod", "") for each in attempts}
            else:
                self._begin(dict(manifest))
            for name, pod in list(self._running.items()):
                if name in self._told.get(job_uid_label(pod) or "", ()):
                    self._puppet.finish(pod, messages=self._words(pod))
                    del self._running[name]

    def _begin(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if pod["spec"].get("nodeName") and pod["status"].get("phase") == "Pending" and name not in self._started:
            self._started.add(name)
            self._running[name] = self._puppet.run(pod)
