"""Every state that a FineTuneJob was ever in, as whoever watches it saw it: from its creation to its deletion."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from finetune_operator.kinds import FINE_TUNE_JOB
from tests.cluster.api import Api, Object
from tests.cluster.pods import await_value


class Follower:
    """A watch on one FineTuneJob, in a thread of its own."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._path = FINE_TUNE_JOB.path(namespace)
        self._name = name
        self._ended = threading.Event()
        self._version: str = api.get(self._path)["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._follow, name=f"follow-{name}")
        self.seen: list[Object] = []
        """In order; the last one of a job that was deleted is as it was at its end."""
        self.gone = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(30)

    def await_state(self, version: str) -> None:
        """Until this resourceVersion has been seen."""

        def found() -> bool:
            assert self._thread.is_alive(), f"the watch ended after {self.versions()}"
            return version in self.versions()

        try:
            await_value(found, what=f"version {version} was seen")
        except AssertionError as error:
            raise AssertionError(f"{error}; there were {self.versions()}") from error

    def versions(self) -> list[str]:
        return [each["metadata"]["resourceVersion"] for each in self.seen]

    def await_gone(self) -> None:
        """Until its deletion has been seen."""
        await_value(lambda: self.gone, what=f"the end of {self._name} was seen", timeout=120)

    def phases(self) -> list[Any]:
        """Each phase once, in the order in which they came; None before the first."""
        found = [(each.get("status") or {}).get("phase") for each in self.seen]
        return [phase for index, phase in enumerate(found) if index == 0 or phase != found[index - 1]]

    def _follow(self) -> None:
        query = {"fieldSelector": f"metadata.name={self._name}"}
        while not self._ended.is_set():  # a watch may end at any time, and goes on where it ended
            for change, manifest in self._api.watch(self._path, version=self._version, stop=self._ended.is_set, bookmarks=True, **query):
                assert change != "ERROR", f"the watch has a gap: {manifest}"
                self._version = manifest["metadata"]["resourceVersion"]
                if change == "BOOKMARK":
                    continue
                self.seen.append(manifest)
                self.gone = self.gone or change == "DELETED"
