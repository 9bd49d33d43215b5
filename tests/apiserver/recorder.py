"""Remembers every batch Job that ever was, from a watch of its own: what nobody shows any more afterwards, a duplicate above all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from finetune_api.constants import SEGMENT_LABEL
from finetune_operator.kinds import JOB, controller_of, uid_of
from tests.cluster.api import Api, Object
from tests.cluster.pods import await_value


@dataclass(frozen=True)
class Seen:
    """A batch Job, as it was when it was made. `owner`: uid of its controller."""

    uid: str
    namespace: str
    name: str
    owner: str | None
    segment: str


class Recorder:
    """Every batch Job of a namespace since the block began, deleted ones too."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._path = JOB.path(namespace)
        self._seen: dict[str, Seen] = {}
        self._live: dict[str, set[str]] = {}
        self._most: Counter[str] = Counter()
        self._ended = threading.Event()
        self._version = api.get(self._path)["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._follow, name="recorder")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(30)

    def jobs(self, owner: str) -> list[Seen]:
        """Of this FineTuneJob, in the order in which they were made."""
        return [seen for seen in self._seen.values() if seen.owner == owner]

    def at_once(self, owner: str) -> int:
        """The most Jobs of this FineTuneJob that were there and not over at one time."""
        return self._most[owner]

    def duplicates(self, owners: Iterable[str]) -> list[str]:
        """Names and segments that an owner had twice: none where no attempt was ever repeated."""
        found = []
        for owner in owners:
            jobs = self.jobs(owner)
            found += [f"{owner}: {name} twice" for name, count in Counter(seen.name for seen in jobs).items() if count > 1]
            found += [f"{owner}: segment {part} twice" for part, count in Counter(seen.segment for seen in jobs).items() if count > 1]
            found += [f"{owner}: {self._most[owner]} Jobs at once"] if self._most[owner] > 1 else []
        return found

    def await_all(self) -> None:
        """Until everything that was written before now has been recorded: a Job of its own, made now, marks the place."""
        marker = {"metadata": {"generateName": "marker-"}, "spec": {"suspend": True, "template": {"spec": _NOTHING}}}
        made = self._api.post(self._path, marker)
        await_value(lambda: uid_of(made) in self._seen or not self._thread.is_alive(), what="the recorder sees what it made itself")
        self._api.delete(f"{self._path}/{made['metadata']['name']}")
        assert self._thread.is_alive(), "the recorder's watch ended"

    def _follow(self) -> None:
        while not self._ended.is_set():
            # A watch that ends goes on where it was; bookmarks keep that where the server still remembers.
            for change, job in self._api.watch(self._path, version=self._version, stop=self._ended.is_set, bookmarks=True):
                self._take(change, job)

    def _take(self, change: str, job: Object) -> None:
        if change == "ERROR":
            raise AssertionError(f"the recorder's watch has a gap: {job}")
        self._version = job["metadata"]["resourceVersion"]
        if change == "BOOKMARK":
            return
        uid, metadata = uid_of(job), job["metadata"]
        segment = (metadata.get("labels") or {}).get(SEGMENT_LABEL, "")
        seen = self._seen.setdefault(uid, Seen(uid, metadata["namespace"], metadata["name"], controller_of(job), segment))
        if seen.owner is not None:
            live = self._live.setdefault(seen.owner, set())
            (live.discard if change == "DELETED" or _over(job) else live.add)(uid)
            self._most[seen.owner] = max(self._most[seen.owner], len(live))


_NOTHING = {
    "restartPolicy": "Never",
    "containers": [{"name": "none", "image": "example/none", "securityContext": {"allowPrivilegeEscalation": False}}],
}


def _over(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
