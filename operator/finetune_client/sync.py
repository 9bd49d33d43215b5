"""The same client for notebooks and scripts: every method waits, and every stream is a plain iterator.

Its loop runs in a thread of its own, so that it works where a loop runs already, as in Jupyter.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from finetune_api.reading import What
from finetune_client.client import Applied, AsyncClient, JobChange, Manifest
from finetune_client.fetch import Fetched, Transfer
from finetune_client.objects import Event, Job, LogLine

T = TypeVar("T")
CANCEL_SECONDS = 15.0


class Client:
    """AsyncClient without `await`. Use it in a `with` block, or close it."""

    def __init__(self, *, kubeconfig: Path | str | None = None, context: str | None = None, namespace: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="finetune-client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(kubeconfig=kubeconfig, context=context, namespace=namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def namespace(self) -> str:
        """The namespace that is meant where a method names none."""
        return self._run(self._client.namespace())

    def apply(self, manifest: Manifest, *, namespace: str | None = None, force: bool = False, dry_run: bool = False) -> Applied:
        """See AsyncClient.apply."""
        return self._run(self._client.apply(manifest, namespace=namespace, force=force, dry_run=dry_run))

    def create(self, manifest: Manifest, *, namespace: str | None = None, dry_run: bool = False) -> Job:
        """See AsyncClient.create."""
        return self._run(self._client.create(manifest, namespace=namespace, dry_run=dry_run))

    def get(self, name: str, *, namespace: str | None = None) -> Job:
        """See AsyncClient.get."""
        return self._run(self._client.get(name, namespace=namespace))

    def list(self, *, namespace: str | None = None, all_namespaces: bool = False, labels: str = "") -> list[Job]:
        """See AsyncClient.list."""
        return self._run(self._client.list(namespace=namespace, all_namespaces=all_namespaces, labels=labels))

    def suspend(self, name: str, *, namespace: str | None = None) -> Job:
        """See AsyncClient.suspend."""
        return self._run(self._client.suspend(name, namespace=namespace))

    def resume(self, name: str, *, namespace: str | None = None) -> Job:
        """See AsyncClient.resume."""
        return self._run(self._client.resume(name, namespace=namespace))

    def cancel(self, name: str, *, namespace: str | None = None, timeout: float | None = 600) -> Job:
        """See AsyncClient.cancel."""
        return self._run(self._client.cancel(name, namespace=namespace, timeout=timeout))

    def delete(self, name: str, *, namespace: str | None = None) -> None:
        """See AsyncClient.delete."""
        self._run(self._client.delete(name, namespace=namespace))

    def events(self, job: Job) -> tuple[Event, ...]:
        """See AsyncClient.events."""
        return self._run(self._client.events(job))

    def wait(
        self,
        name: str,
        condition: str = "Finished",
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        seen: Callable[[Job], None] = lambda job: None,
    ) -> Job:
        """See AsyncClient.wait. `seen` is called from the client's thread."""
        return self._run(self._client.wait(name, condition, namespace=namespace, timeout=timeout, seen=seen))

    def watch(
        self, name: str | None = None, *, namespace: str | None = None, all_namespaces: bool = False, labels: str = ""
    ) -> Iterator[JobChange | None]:
        """See AsyncClient.watch."""
        return self._iterate(self._client.watch(name, namespace=namespace, all_namespaces=all_namespaces, labels=labels))

    def stream(self, name: str, *, namespace: str | None = None) -> Iterator[Job]:
        """See AsyncClient.stream."""
        return self._iterate(self._client.stream(name, namespace=namespace))

    def logs(
        self, name: str, *, namespace: str | None = None, follow: bool = False, every: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See AsyncClient.logs."""
        return self._iterate(self._client.logs(name, namespace=namespace, follow=follow, every=every, tail=tail))

    def fetch(
        self,
        name: str,
        what: What | str,
        folder: Path | str,
        *,
        namespace: str | None = None,
        force: bool = False,
        timeout: float | None = 300,
        seen: Callable[[Transfer], None] = lambda transfer: None,
    ) -> Fetched:
        """See AsyncClient.fetch. `seen` is called from the client's thread."""
        return self._run(self._client.fetch(name, what, folder, namespace=namespace, force=force, timeout=timeout, seen=seen))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        ended = threading.Event()

        async def whole() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: the thread must not go on waiting
            ended.wait(CANCEL_SECONDS)  # and what it takes back must not be cut short
            raise

    def _iterate(self, generator: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._run(_next(generator))
                except StopAsyncIteration:
                    return
        finally:
            self._run(generator.aclose())


async def _next(generator: AsyncGenerator[T, None]) -> T:
    return await anext(generator)
