"""What the watches delivered, kept small: who belongs to whom, and what each looked like last.

The index decides nothing. It finds a FineTuneJob's children without a list of the namespace, and lets the operator see for free that
nothing is to be done. It can be behind, and hold what is gone (a re-list after a 410 delivers no deletions): whatever would be
written is decided anew on what the API server says then.

Bodies are kept as compressed JSON: a twentieth of the memory of dicts, and nobody can change them in place. A finished job, and its
children, keep no body at all.
"""

from __future__ import annotations

import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import orjson

from finetune_api import constants as c
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD, Kind, controller_of, is_terminating, job_uid_label, key_of, uid_of, version_of
from finetune_operator.model import Key, Manifest, Output, Sibling
from finetune_operator.names import is_reader
from finetune_operator.outputs import folder_of, output_of
from finetune_operator.requests import is_served

CHILDREN = (JOB, POD)
WATCHED = (FINE_TUNE_JOB, *CHILDREN)
HEAVY_ANNOTATIONS = frozenset({c.TRAINER_CONFIG_ANNOTATION, c.PROGRESS_CA_ANNOTATION, "kubectl.kubernetes.io/last-applied-configuration"})
COUNTS = frozenset({"active", "ready", "terminating", "uncountedTerminatedPods"})
"""Of a Job's status: pods come with events of their own."""

K = TypeVar("K")


@dataclass(slots=True)
class Entry:
    """One object. Versions are resourceVersions as numbers."""

    kind: Kind
    uid: str
    namespace: str
    name: str
    parents: tuple[str, ...]
    """uids under which it is found: its controller's, and the one in its label."""
    controller: str | None
    version: int = 0
    """Of the newest body or metadata that anybody showed us."""
    delivered: int = 0
    """Of the newest that the watch itself delivered: by this a deaf watch is known."""
    written: int = 0
    """Of a FineTuneJob, after the newest status that we wrote: it rested on the one before."""
    body: bytes | None = None
    settled: bool = False
    """A FineTuneJob for which nothing remains to be done."""
    live: bool = False
    """A Job or pod that still does, or may do, something."""
    output: Output | None = None
    """Where a FineTuneJob writes, if it says so itself."""


class Listener(Protocol):
    """Is told of FineTuneJobs, each time that a newer one is known."""

    def saw(self, job: Manifest) -> None: ...

    def lost(self, namespace: str, name: str, uid: str) -> None:
        """It is gone."""


class Index:
    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, tuple[str, ...]] = {}  # few each, and tuples are a quarter of sets
        self._jobs: dict[Key, str] = {}
        self._writers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # namespace and folder → FineTuneJobs that write there
        self._unread: defaultdict[str, set[str]] = defaultdict(set)  # namespace → FineTuneJobs of which only metadata was seen
        self._reserved: set[str] = set()
        self.gone: set[str] = set()
        """uids that were dropped since the re-list last emptied this: a list that was on its way then may still show them."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, kind: Kind, manifest: Manifest, *, watched: bool) -> Entry:
        """Take in an object: as a watch delivered it, or as an answer to a request of ours showed it. The newer one stays."""
        entry, version = self._place(kind, manifest), version_of(manifest)
        if watched:
            entry.delivered = max(entry.delivered, version)
        if kind is FINE_TUNE_JOB and (version >= entry.version or entry.uid in self._unread.get(entry.namespace, ())):
            self._take_output(entry, output_of(manifest))
        if version > entry.version or (version == entry.version and entry.body is None):
            entry.version = version
            entry.settled = kind is FINE_TUNE_JOB and is_settled(manifest)
            entry.live = kind in (JOB, POD) and is_live(kind, manifest)
            entry.body = None if entry.settled or self._belongs_to_settled(entry) else slim(manifest)
            if self._listener is not None and kind is FINE_TUNE_JOB:
                self._listener.saw(manifest)
            if entry.settled:
                for child in self._descendants(entry.uid):
                    child.body = None
        return entry

    def wrote(self, job: Manifest) -> None:
        """Take in the answer to a status write."""
        self.put(FINE_TUNE_JOB, job, watched=False).written = version_of(job)

    def note(self, kind: Kind, manifest: Manifest, *, watched: bool = False) -> Entry:
        """Take in that an object exists at a version, from its metadata alone: an older body is no longer believed."""
        entry, version = self._place(kind, manifest), version_of(manifest)
        if watched:
            entry.delivered = max(entry.delivered, version)
        if version > entry.version:
            entry.version, entry.body, entry.settled = version, None, False
        return entry

    def drop(self, uid: str) -> None:
        """The object is gone."""
        self.gone.add(uid)
        entry = self._entries.pop(uid, None)
        if entry is None:
            return
        for parent in entry.parents:
            self._disown(parent, uid)
        key = Key(entry.namespace, entry.name)
        if entry.kind is FINE_TUNE_JOB:
            self._take_output(entry, None)
            self._reserved.discard(uid)
        if entry.kind is FINE_TUNE_JOB and self._jobs.get(key) == uid:
            del self._jobs[key]
        if self._listener is not None and entry.kind is FINE_TUNE_JOB:
            self._listener.lost(entry.namespace, entry.name, uid)

    def get(self, uid: str) -> Entry | None:
        return self._entries.get(uid)

    def entries(self, kind: Kind) -> tuple[Entry, ...]:
        return tuple(entry for entry in self._entries.values() if entry.kind is kind)

    def job(self, key: Key) -> Entry | None:
        """The FineTuneJob of this name."""
        uid = self._jobs.get(key)
        return self._entries[uid] if uid is not None else None

    def children(self, uid: str) -> tuple[Entry, ...]:
        """What belongs to the FineTuneJob of this uid, or says so: Jobs, their pods, pods that lost their Job, the claim."""
        return tuple(sorted(self._descendants(uid), key=lambda entry: entry.name))

    def keys_of(self, entry: Entry) -> frozenset[Key]:
        """The FineTuneJobs to look at after something happened to this object."""
        if entry.kind is FINE_TUNE_JOB:
            return frozenset({Key(entry.namespace, entry.name)})
        ancestors = set(entry.parents)
        for parent in entry.parents:
            if (above := self._entries.get(parent)) is not None and above.kind is JOB:
                ancestors.update(above.parents)
        found = (self._entries.get(uid) for uid in ancestors)
        return frozenset(
            Key(job.namespace, job.name)
            for job in found
            if job is not None and job.kind is FINE_TUNE_JOB and job.namespace == entry.namespace  # in another, the label lies
        )

    def reserve(self, uid: str) -> None:
        """The first Job of this FineTuneJob is about to be made: from now on it counts as begun, so that no other takes its output."""
        self._reserved.add(uid)

    def release(self, uid: str) -> None:
        """That Job is there, and speaks for itself; or it could not be made."""
        self._reserved.discard(uid)

    def unread(self, namespace: str) -> bool:
        """Whether the namespace has a FineTuneJob of which nothing but metadata was ever seen."""
        return bool(self._unread.get(namespace))

    def siblings(self, uid: str, namespace: str, uri: str) -> tuple[Sibling, ...]:
        """Other FineTuneJobs of the namespace that write into a folder of the same name, on whatever claim."""
        if uid in self._reserved:  # it has the output: what it began came to no end that we know of
            return ()
        others = [self._entries[other] for other in self._writers.get((namespace, folder_of(uri)), ()) if other != uid]
        return tuple(
            Sibling(other.name, other.uid, replace(other.output, begun=other.output.begun or self._has_begun(other.uid)))
            for other in others
            if other.output is not None
        )

    def settled(self, key: Key) -> bool:
        """Whether nothing remains to be done for this FineTuneJob, as far as it was delivered."""
        job = self.job(key)
        return job is not None and job.settled

    def at_rest(self, key: Key) -> bool:
        """Whether this FineTuneJob is settled, and none of its Jobs and pods does anything."""
        job = self.job(key)
        return job is not None and job.settled and not any(child.live for child in self._descendants(job.uid))

    def matters(self, key: Key) -> bool:
        """Whether this FineTuneJob is to be looked at when something happens to a child of it.

        Not once it is settled: a finished job costs nothing. Not before its own watch delivered it: that is when it is looked at.
        """
        job = self.job(key)
        return job is None or (job.delivered > 0 and not job.settled)

    def _place(self, kind: Kind, manifest: Manifest) -> Entry:
        metadata = manifest["metadata"]
        uid, controller = uid_of(manifest), controller_of(manifest)
        claimed = () if kind is FINE_TUNE_JOB else (controller, job_uid_label(manifest))
        parents = tuple({self._same(each): None for each in claimed if each is not None})
        entry = self._entries.get(uid)
        if entry is None:
            if kind is FINE_TUNE_JOB:
                self._unread[metadata["namespace"]].add(uid)
            entry = self._entries[uid] = Entry(kind, uid, sys.intern(metadata["namespace"]), metadata["name"], parents, controller)
        for parent in entry.parents:
            if parent not in parents:
                self._disown(parent, entry.uid)
        entry.parents, entry.controller = parents, self._same(controller) if controller is not None else None
        for parent in parents:
            held = self._children.get(parent, ())
            if uid not in held:
                self._children[parent] = (*held, entry.uid)
        if kind is FINE_TUNE_JOB:
            holder = self.job(key_of(manifest))
            # Made again under its name: events of two objects may come in any order.
            if holder is None or holder.version <= version_of(manifest):
                self._jobs[key_of(manifest)] = uid
        return entry

    def _disown(self, parent: str, uid: str) -> None:
        left = tuple(each for each in self._children.get(parent, ()) if each != uid)
        if left:
            self._children[parent] = left
        else:
            self._children.pop(parent, None)

    def _same(self, uid: str) -> str:
        """The same string as the object's own entry has, where there is one: each manifest brings copies."""
        entry = self._entries.get(uid)
        return entry.uid if entry is not None else uid

    def _take_output(self, entry: Entry, output: Output | None) -> None:
        """Keep where a FineTuneJob writes, now that it was seen whole; None where it doesn't say, or is gone."""
        _take_out(self._unread, entry.namespace, entry.uid)
        if entry.output is not None:
            _take_out(self._writers, (entry.namespace, folder_of(entry.output.uri)), entry.uid)
        if output is not None:
            self._writers[entry.namespace, folder_of(output.uri)].add(entry.uid)
        entry.output = output

    def _has_begun(self, uid: str) -> bool:
        return uid in self._reserved or any(child.kind is JOB for child in self._descendants(uid))

    def _descendants(self, uid: str) -> list[Entry]:
        owner = self._entries.get(uid)
        children = (self._entries[child] for child in self._children.get(uid, ()))
        found = {child.uid: child for child in children if owner is None or child.namespace == owner.namespace}
        for job in [entry for entry in found.values() if entry.kind is JOB]:
            found |= {pod: self._entries[pod] for pod in self._children.get(job.uid, ())}
        return list(found.values())

    def _belongs_to_settled(self, entry: Entry) -> bool:
        keys = self.keys_of(entry) if entry.kind is not FINE_TUNE_JOB else frozenset()
        return bool(keys) and all(self.settled(key) for key in keys)


def is_settled(job: Manifest) -> bool:
    """Whether a FineTuneJob has ended, says so for its present spec, is not to be deleted by itself, and nobody asks to read it."""
    status = job.get("status") or {}
    finished = any(item.get("type") == "Finished" and item.get("status") == "True" for item in status.get("conditions") or [])
    current = status.get("observedGeneration") == job["metadata"].get("generation")
    return finished and current and job["spec"].get("ttlSecondsAfterFinished") is None and is_served(job)


def is_live(kind: Kind, manifest: Manifest) -> bool:
    """Whether a Job or pod still does, or may do, something for the job; one that only reads what a user asked for does not."""
    status = manifest.get("status") or {}
    if is_terminating(manifest) or is_reader(manifest["metadata"]["name"]):
        return False
    if kind is POD:
        return status.get("phase") not in ("Succeeded", "Failed")
    return not any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in status.get("conditions") or [])


def slim(manifest: Manifest) -> bytes:
    """An object, compressed, without what no decision reads: who wrote which field, what was applied last, the trainer's config; of a child, its
    version and finalizers; of a Job, what it makes and how it counts. So two bodies of a child that are equal are decided on alike."""
    small, kind = {**manifest, "metadata": _slim_metadata(manifest["metadata"])}, manifest.get("kind")
    if kind != FINE_TUNE_JOB.name:
        for name in ("resourceVersion", "finalizers"):
            small["metadata"].pop(name, None)
    if kind == JOB.name:
        for part, left_out in (("spec", {"template"}), ("status", COUNTS)):
            if part in manifest:
                small[part] = {name: value for name, value in manifest[part].items() if name not in left_out}
    return zlib.compress(orjson.dumps(small), 1)


def whole(body: bytes) -> Manifest:
    """The object of a body."""
    manifest: Manifest = orjson.loads(zlib.decompress(body))
    return manifest


def _take_out(sets: dict[K, set[str]], key: K, uid: str) -> None:
    """Take a uid out of one of many sets, and leave no empty one."""
    held = sets.get(key)
    if held is not None:
        held.discard(uid)
        if not held:
            del sets[key]


def _slim_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    slim = {name: value for name, value in metadata.items() if name != "managedFields"}
    if annotations := metadata.get("annotations"):
        slim["annotations"] = {name: value for name, value in annotations.items() if name not in HEAVY_ANNOTATIONS}
    return slim
