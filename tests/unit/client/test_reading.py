"""What a job left, brought here: slices put together again, nothing damaged or foreign taken, and a request that always goes away again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from finetune_api import constants as c
from finetune_api.reading import (
    BEGIN,
    DATA,
    SLICE_BYTES,
    FileEntry,
    ReadRequest,
    Slice,
    SliceHead,
    What,
    digest_of,
    part_of,
    printed,
    read_slice,
    safe_name,
    slices_of,
)
from finetune_client import Conflict, Job, OperatorMissing, Unreachable, Unreadable, Unwritable, WaitTimeout
from finetune_client.fetch import Fetched, Transfer, fetch, waits_for
from finetune_client.staging import staging
from finetune_client.transport import Body, Transport

Files = dict[str, bytes]
ADAPTER: Files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\x00\xff" * 5000, "base/config.json": b""}


def sliced(files: Files, size: int = SLICE_BYTES) -> list[Slice]:
    """The slices of these files; smaller ones than real pods print."""
    stream = b"".join(files.values())
    entries = [FileEntry(name=name, bytes=len(data)) for name, data in files.items()]
    pieces = [stream[start : start + size] for start in range(0, max(1, len(stream)), size)]
    return [Slice(SliceHead(slice=number, slices=len(pieces), bytes=len(data), files=entries), data) for number, data in enumerate(pieces)]


def lines(one: Slice) -> list[bytes]:
    return [line.encode() for line in printed(one)]


def digest(files: Files) -> str:
    return digest_of({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


def job(*artifacts: Body, phase: str = "Succeeded", annotation: str | None = None, last: Body | None = None) -> Body:
    said = {"status": "True", "reason": phase, "message": "", "lastTransitionTime": "2030-01-01T12:00:00Z"}
    conditions = [{"type": kind, **said} for kind in ("Finished", "Complete" if phase == "Succeeded" else "Failed")]
    status = {"phase": phase, "conditions": conditions if phase in ("Succeeded", "Failed") else [], "artifacts": list(artifacts)}
    annotations = {c.READ_ANNOTATION: annotation} if annotation else {}
    metadata = {"name": "lamp", "namespace": "team-a", "uid": "u1", "resourceVersion": "7", "annotations": annotations}
    return {"metadata": metadata, "spec": {}, "status": {**status, **({"lastRead": last} if last else {})}}


def artifact(kind: str, sha256: str, size: int = 10) -> Body:
    return {"kind": kind, "uri": f"pvc://runs/lamp/{kind}", "sha256": sha256, "bytes": size}


# The form


@pytest.mark.parametrize("size", [0, 1, 8999, 9000, 9001, 100_000])
def test_a_slice_arrives_as_it_was_printed_among_whatever_else_is_in_the_log(size: int) -> None:
    one = sliced({"x": bytes(range(256)) * (size // 256 + 1)})[0]
    noise = [b"2030-01-01 WARNING something", b"\xff\xfe", b""]
    told = [each for line in lines(one) for each in (*noise, line)]
    assert read_slice([*told, *noise]) == one
    assert max(map(len, lines(one)), default=0) < 16_384, "a container runtime breaks longer lines"


DAMAGES: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (lambda told: told[1:], "its beginning is missing"),
    (lambda told: told[:-1], "its end is missing"),
    (lambda told: [], "its beginning is missing"),
    (lambda told: [told[0], *told[2:]], "damaged"),
    (lambda told: [told[0], *told[1:-1], told[1], told[-1]], "longer than it said"),
    (lambda told: [told[0], DATA.encode() + b"####", told[-1]], "damaged"),
    (lambda told: [told[0], told[2], told[1], *told[3:]], "damaged"),
    (lambda told: [BEGIN.encode() + b"{}", *told[1:]], "validation error"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_a_damaged_slice_is_not_taken(damage: Callable[[list[bytes]], list[bytes]], says: str) -> None:
    one = sliced({"x": bytes(range(256)) * 100})[0]
    with pytest.raises(ValueError, match=says):
        read_slice(damage(lines(one)))


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", ".ssh", "a/.x", "a\\b", "a\x00", "a\n", "ä", "a" * 256, "/".join("a" * 9)],
)
def test_a_name_that_leads_elsewhere_is_not_taken(name: str) -> None:
    assert not safe_name(name)


@pytest.mark.parametrize(("size", "slices"), [(0, 1), (1, 1), (SLICE_BYTES, 1), (SLICE_BYTES + 1, 2), (100 * SLICE_BYTES, 100)])
def test_the_parts_of_a_request_cover_all_slices_once(size: int, slices: int) -> None:
    from finetune_api.v1alpha1.status import Artifact

    found = [Artifact.model_validate(artifact("merged", "0" * 64, size))]
    parts = [part_of(ReadRequest(id="00000000", what=What.MERGED, part=part), found) for part in range(1, 15)]
    assert [number for part in parts for number in part] == list(range(slices_of(size))) == list(range(slices))


# What is written


def test_files_are_there_at_once_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "adapter"
    with staging(folder, force=False) as staged:
        for one in sliced(ADAPTER, 3000):
            staged.take(one)
            assert [path.name for path in folder.iterdir()] == [staged.root.name]
        assert staged.complete
        assert digest_of(staged.digests) == digest(ADAPTER)
        staged.commit()
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == ADAPTER
    with pytest.raises(Unwritable, match="is not empty"), staging(folder, force=False):
        pass
    (folder / "mine.txt").write_text("kept")
    with staging(folder, force=True) as staged:
        staged.take(sliced({"adapter_config.json": b"new"})[0])
        staged.commit()
    assert ((folder / "mine.txt").read_text(), (folder / "adapter_config.json").read_text()) == ("kept", "new")


def test_what_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    with pytest.raises(KeyboardInterrupt), staging(folder, force=False) as staged:
        staged.take(sliced(ADAPTER, 3000)[0])
        raise KeyboardInterrupt
    assert not folder.exists()
    (folder / f".finetune-part-{2**30}").mkdir(parents=True)  # of a process that was killed
    with staging(folder, force=False):
        pass
    assert list(folder.iterdir()) == [], "a folder that was there stays"
    with staging(folder, force=False) as staged:
        with pytest.raises(Unwritable, match="is not empty"), staging(folder, force=False):
            pass
        staged.take(sliced({"x": b"1"})[0])
        staged.commit()
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match="is a file"), staging(tmp_path / "file", force=True):
        pass


@pytest.mark.parametrize(
    "slices",
    [
        sliced({"../evil": b"1"}),
        sliced(ADAPTER, 3000)[1:],
        [sliced(ADAPTER, 3000)[0], sliced({"other": b"1" * 6000}, 3000)[1]],
        [Slice(SliceHead(slice=0, slices=1, bytes=2, files=[FileEntry(name="x", bytes=1)]), b"12")],
        [Slice(SliceHead(slice=0, slices=1, bytes=1, files=[FileEntry(name="x", bytes=2)]), b"1")],
        [Slice(SliceHead(slice=0, slices=1, bytes=2, files=[FileEntry(name="x", bytes=1)] * 2), b"12")],
        [Slice(SliceHead(slice=0, slices=1, bytes=0, files=[FileEntry(name=f"x{n}", bytes=1 << 30) for n in range(2)]), b"")],
    ],
    ids=["name", "order", "another stream", "too much", "too little", "twice", "too large"],
)
def test_a_pod_that_lies_is_not_believed(slices: list[Slice], tmp_path: Path) -> None:
    with pytest.raises(Unreadable), staging(tmp_path / "x", force=False) as staged:
        for one in slices:
            staged.take(one)
    assert list(tmp_path.rglob("*")) == []


# The conversation


class Cluster:
    """An API server, an operator and a kubelet in one: `pods` answers a look at the pods of a request."""

    def __init__(self, found: Body, pods: Callable[[ReadRequest], list[Body]], logs: Mapping[str, list[bytes]]) -> None:
        self.found, self.pods, self.logs = found, pods, dict(logs)
        self.asked: list[str | None] = []
        self.looks = 0
        self.overwrite: str | None = None
        """Another request that takes the place of the first one."""
        self.overtaken = 0
        """So many writes that name a version meet another one: the operator wrote the status in between."""

    @property
    def annotation(self) -> str | None:
        return cast("str | None", self.found["metadata"]["annotations"].get(c.READ_ANNOTATION))

    async def call(self, verb: str, path: str, *, what: str, **more: Any) -> tuple[int, Body]:
        if verb == "PATCH":
            if "resourceVersion" in more["body"]["metadata"] and self.overtaken:
                self.overtaken -= 1
                raise Conflict("the object has been modified")
            text = more["body"]["metadata"]["annotations"][c.READ_ANNOTATION]
            self.asked.append(text)
            self.overwrite, text = None, self.overwrite or text
            self.found = {**self.found, "metadata": {**self.found["metadata"], "annotations": {c.READ_ANNOTATION: text} if text else {}}}
        if path.endswith("/pods"):
            self.looks += bool(self.asked)
            last = next((text for text in reversed(self.asked) if text), None)
            asked = ReadRequest.read(last) if last and self.asked[-1] else None
            return 200, {"items": self.pods(asked) if asked is not None else [], "metadata": {}}
        return 200, self.found

    @asynccontextmanager
    async def stream(self, path: str, *, what: str, query: Mapping[str, str], **more: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        log = self.logs[query["container"]]
        if not log:
            raise OperatorMissing("404")

        async def pieces() -> AsyncIterator[bytes]:
            for line in log:
                yield line + b"\n"

        yield pieces()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def fetch(self, what: What, folder: Path, *, timeout: float | None = 20, force: bool = False) -> tuple[Fetched, list[Transfer]]:
        seen: list[Transfer] = []
        transport = cast(Transport, self)
        work = fetch(transport, "/job", Job(self.found), what, folder, force=force, timeout=timeout, seen=seen.append, sleep=self.sleep)
        return asyncio.run(work), seen


def pod(*ended: int | None, phase: str = "Running", message: str = "", **status: Any) -> Body:
    """A pod whose containers ended with these exit codes; None for one that runs."""
    statuses = [
        {"name": f"slice-{number}", "state": {"running": {}} if code is None else {"terminated": {"exitCode": code, "message": message}}}
        for number, code in enumerate(ended)
    ]
    return {
        "metadata": {"name": "ft-lamp-0a1b2c3d-read-1a2b3c4d-x7k2p", "creationTimestamp": "2030-01-01T12:00:00Z"},
        "status": {"phase": phase, "initContainerStatuses": statuses[:-1], "containerStatuses": statuses[-1:], **status},
    }


def test_an_adapter_arrives_and_the_request_is_withdrawn(tmp_path: Path) -> None:
    size = sum(map(len, ADAPTER.values()))
    cluster = Cluster(job(artifact("adapter", digest(ADAPTER), size)), lambda _: [pod(0)], {"slice-0": lines(sliced(ADAPTER)[0])})
    fetched, seen = cluster.fetch(What.ADAPTER, tmp_path / "adapter")
    assert {path.relative_to(tmp_path / "adapter").as_posix() for path in fetched.files} == set(ADAPTER)
    assert (fetched.bytes, seen[-1].done, seen[-1].total) == (size, size, size)
    assert json.loads(cluster.asked[0] or "") | {"id": ""} == {"id": "", "what": "adapter", "part": 1}
    assert cluster.asked[-1] is None and cluster.annotation is None


def test_each_slice_is_read_when_its_container_has_ended(tmp_path: Path) -> None:
    files = {"model.safetensors": bytes(1000) * 7000}
    slices = sliced(files)
    states = iter([[], [pod(None, None)], [pod(0, None)], [pod(0, None)], [pod(0, 0)]])
    cluster = Cluster(
        job(artifact("merged", digest(files), 7_000_000), last={"id": "0"}),
        lambda _: next(states),
        {f"slice-{number}": lines(one) for number, one in enumerate(slices)},
    )
    fetched, seen = cluster.fetch(What.MERGED, tmp_path / "model")
    assert fetched.files[0].read_bytes() == files["model.safetensors"]
    assert [transfer.done for transfer in seen if "arrived" in transfer.waits_for] == [SLICE_BYTES, 7_000_000]


def test_logs_of_more_than_a_slice_take_several_requests(tmp_path: Path) -> None:
    slices = sliced({"010-train.log": b"x" * 10, "002-prepare.log": b"y" * 4}, 6)
    cluster = Cluster(
        job(phase="Failed"), lambda request: [pod(*[0] * request.part)], {f"slice-{n}": lines(one) for n, one in enumerate(slices)}
    )
    fetched, _ = cluster.fetch(What.LOGS, tmp_path / "logs")
    assert [path.read_bytes() for path in fetched.files] == [b"x" * 10, b"y" * 4]
    assert [json.loads(text)["part"] for text in cluster.asked if text] == [1, 2, 3]


GOOD = artifact("adapter", digest(ADAPTER))
TOLD = json.dumps({"message": "it is not there any more", "hint": "Somebody removed it.", "outcome": "Failed", "exitCode": 12})


@pytest.mark.parametrize(
    ("found", "pods", "says"),
    [
        (job(phase="Running"), [], "lamp has not ended yet: it is Running"),
        (job(phase="Failed"), [], "published nothing"),
        (job(artifact("merged", "0" * 64)), [], r"published no adapter: there is merged\n→ Its merged model: --kind merged"),
        (job(artifact("adapter", "0" * 64, 2 << 30)), [], "2,048 MiB"),
        (job(artifact("adapter", "0" * 64)), [pod(0)], "what arrived is not the adapter that was published"),
        (job(GOOD), [pod(12, phase="Failed", message=TOLD)], r"it is not there any more \(exit code 12\)\n→ Somebody removed it."),
        (job(GOOD), [pod(1, phase="Failed", message="exec format error")], "exec format error"),
        (job(GOOD), [pod(None, phase="Failed", reason="Evicted", message="x")], "failed"),
    ],
    ids=["runs", "failed", "only merged", "too large", "another hash", "the trainer's words", "no trainer", "evicted"],
)
def test_what_can_not_be_read_says_why_and_leaves_nothing(found: Body, pods: list[Body], says: str, tmp_path: Path) -> None:
    cluster = Cluster(found, lambda _: pods, {"slice-0": lines(sliced(ADAPTER)[0])})
    with pytest.raises(Unreadable, match=says):
        cluster.fetch(What.ADAPTER, tmp_path / "adapter")
    assert cluster.annotation is None
    assert not (tmp_path / "adapter").exists()


def test_what_the_operator_refuses_is_said(tmp_path: Path) -> None:
    cluster = Cluster(job(GOOD), lambda _: [], {})

    def refuse(request: ReadRequest) -> list[Body]:
        cluster.found["status"]["lastRead"] = {"id": request.id, "message": "exceeded quota: pods"}
        return []

    cluster.pods = refuse
    with pytest.raises(Unreadable, match="exceeded quota: pods"):
        cluster.fetch(What.ADAPTER, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("pods", "says"),
    [
        ([], "the operator has not looked at the request yet"),
        ([pod(None, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}])], "0/3 nodes"),
    ],
)
def test_patience_ends_with_what_is_waited_for(pods: list[Body], says: str, tmp_path: Path) -> None:
    cluster = Cluster(job(GOOD), lambda _: pods, {})
    with pytest.raises(WaitTimeout, match=says):
        cluster.fetch(What.ADAPTER, tmp_path / "adapter", timeout=0.2)
    assert cluster.annotation is None


def test_a_log_that_was_rotated_is_said(tmp_path: Path) -> None:
    cluster = Cluster(job(GOOD), lambda _: [pod(0)], {"slice-0": lines(sliced(ADAPTER)[0])[1:]})
    with pytest.raises(Unreadable, match="containerLogMaxSize"):
        cluster.fetch(What.ADAPTER, tmp_path / "adapter")


def test_a_request_that_another_took_the_place_of_is_made_again(tmp_path: Path) -> None:
    other = ReadRequest(id="00000001", what=What.REPORT)
    cluster = Cluster(
        job(GOOD, last={"id": "00000001"}), lambda _: [pod(0)] if cluster.looks > 2 else [], {"slice-0": lines(sliced(ADAPTER)[0])}
    )
    cluster.overwrite = other.text
    cluster.fetch(What.ADAPTER, tmp_path / "adapter")
    texts = [text for text in cluster.asked if text]
    assert len(texts) == 2 and texts[0] == texts[1]


def test_a_request_is_withdrawn_though_the_status_is_written_meanwhile(tmp_path: Path) -> None:
    cluster = Cluster(job(GOOD), lambda _: [pod(0)], {"slice-0": lines(sliced(ADAPTER)[0])})
    cluster.overtaken = 2
    cluster.fetch(What.ADAPTER, tmp_path / "adapter")
    assert (cluster.annotation, cluster.overtaken) == (None, 0)


def test_a_connection_that_breaks_is_waited_for(tmp_path: Path) -> None:
    def pods(request: ReadRequest) -> list[Body]:
        if cluster.looks < 3:
            raise Unreachable("no connection")
        return [pod(0)]

    cluster = Cluster(job(GOOD), pods, {"slice-0": lines(sliced(ADAPTER)[0])})
    fetched, seen = cluster.fetch(What.ADAPTER, tmp_path / "adapter")
    assert len(fetched.files) == 3 and seen[0].waits_for == "no connection"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            pod(None, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}]),
            "waits for a node: no node",
        ),
        (
            {
                "metadata": {"name": "p"},
                "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "404"}}}]},
            },
            "p: ImagePullBackOff: 404",
        ),
        ({"metadata": {"name": "p"}}, "p is Pending"),
    ],
)
def test_what_a_pod_waits_for(found: Body, says: str) -> None:
    assert says in waits_for(found)
