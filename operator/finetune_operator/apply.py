"""Carries out what was decided, one write after the other. Doing it twice, or after a crash in the middle, ends the same."""

from __future__ import annotations

from finetune_operator.errors import AlreadyExists, Conflict, KubeError, NotFound, Refused, Waiting
from finetune_operator.index import Index
from finetune_operator.kinds import BY_NAME, CLAIM, JOB, Kind, controller_of, is_terminating, job_uid_label, uid_of
from finetune_operator.kube import Kube
from finetune_operator.model import Create, Delete, Manifest, Refusal


async def apply(kube: Kube, index: Index, job: Manifest, actions: tuple[Create | Delete, ...]) -> tuple[Refusal, ...]:
    """In order; the first refusal ends it, since what follows may rest on what was refused.

    Raises:
        Waiting: A name is held by what is Terminating.
        Transient: The API server can't be asked now.
    """
    uid = uid_of(job)
    if any(isinstance(action, Create) and action.manifest["kind"] == JOB.name for action in actions):
        index.reserve(uid)  # before the first await: two jobs that decide at once must not both have one output
    else:
        index.release(uid)
    for action in actions:
        refusal = await (_create(kube, index, job, action) if isinstance(action, Create) else _delete(kube, index, job, action))
        if refusal is not None:
            index.release(uid)
            return (refusal,)
    index.release(uid)
    return ()


async def _create(kube: Kube, index: Index, job: Manifest, action: Create) -> Refusal | None:
    manifest = action.manifest
    kind, name = BY_NAME[manifest["kind"]], manifest["metadata"]["name"]
    try:
        made = await kube.create(manifest)
    except AlreadyExists as error:
        # Our own from before a crash, from another operator, or by an answer that was lost: whose it is, its owner's uid says.
        try:
            made = await kube.get(kind, manifest["metadata"].get("namespace"), name)
        except NotFound as gone:
            raise Waiting(f"{kind.name} {name} was there at the create and is gone now") from gone
        if is_terminating(made):
            raise Waiting(f"{kind.name} {name} of before is still Terminating") from error
        if not _is_ours(kind, made, uid_of(job)):
            return _refusal(kind, name, error, found=made)
    except (Refused, NotFound) as error:  # a namespace that is gone answers 404
        return _refusal(kind, name, error)
    index.put(kind, made, watched=False)
    return None


async def _delete(kube: Kube, index: Index, job: Manifest, action: Delete) -> Refusal | None:
    kind = BY_NAME[action.kind]
    namespace = job["metadata"]["namespace"]
    try:
        await kube.delete(kind, namespace, action.name, uid=action.uid, grace_seconds=action.grace_seconds)
    except (NotFound, Conflict):  # a conflict is another uid: what was meant is gone
        index.drop(action.uid)
    except Refused as error:
        return _refusal(kind, action.name, error)
    return None


def _is_ours(kind: Kind, manifest: Manifest, uid: str) -> bool:
    """A claim that outlives its job has no owner: there the label says whose it is."""
    controller = controller_of(manifest)
    return controller == uid or (kind is CLAIM and controller is None and job_uid_label(manifest) == uid)


def _refusal(kind: Kind, name: str, error: KubeError, *, found: Manifest | None = None) -> Refusal:
    return Refusal(kind=kind.name, name=name, code=error.code, reason=error.reason, message=error.message, found=found)
