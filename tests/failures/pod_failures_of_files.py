"""What real pods meet in their image, their memory and on their volumes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from finetune_api.constants import ClusterReason, ConditionReason, Reason
from tests.failures.base import Layer
from tests.failures.pod_failure import OWN, Mend, Play, PodFailure, Spec, again, job, own, own_again, plainly
from tests.failures.site import LONG, MODEL, ROWS, STEPS, Site, described, limits
from tests.node.jobs import Job
from tests.node.platform import ASSETS

MISNAMED: Final = "localhost/Finetune-Trainer@sha256:" + "0" * 64
NOWHERE: Final = "localhost/finetune-nothing@sha256:" + "0" * 64
MAX_STEPS: Final = "spec.stages[0].training.maxSteps"
FULL: Final = {"spec.stages[0].method": {"type": "full"}}
KEPT: Final = {"storage": {"claimName": "finetune-runs"}}


def _small(site: Site) -> dict[str, Any]:
    return {"storage": {"claimTemplate": {"className": "tmpfs", "accessMode": "ReadWriteOnce", "size": "1Mi"}}}


def _larger(site: Site) -> dict[str, Any]:
    return {"storage": {"claimTemplate": {"className": "tmpfs", "accessMode": "ReadWriteOnce", "size": "64Mi"}}}


def _local(most: str) -> Spec:
    return lambda site: {"resources": limits(**{"ephemeral-storage": most})}


# Volumes


def _read_only(site: Site) -> Job:
    site.claim("finetune-runs")
    site.remounted(site.mounted("finetune-runs", "64m"), "ro")
    site.runtime(OWN, **KEPT)
    return site.job("tried", OWN)


def _writable(site: Site, job: Job) -> Job:
    site.remounted(site.folder("finetune-runs"), "rw")
    return site.again(job, OWN)


def _made(site: Site, job: Job) -> Job:
    site.claim("finetune-runs")
    return job


def _unbound(site: Site) -> Job:
    site.runtime(OWN, storage={"claimTemplate": {"className": "fast-ssd", "accessMode": "ReadWriteMany", "size": "64Mi"}})
    return site.job("tried", OWN)


def _described(site: Site, job: Job) -> Job:
    """`kubectl describe pvc` says that the class is not there."""
    assert 'storageclass.storage.k8s.io "fast-ssd" not found' in described(site, "pvc")
    return own_again(plainly)(site, job)


def _published_to(folder: str) -> dict[str, Any]:
    claims = [{"name": name, "claimName": name} for name in (ASSETS, "published")]
    return {"spec.references.claims": claims, "spec.output.uri": f"pvc://published/{folder}/birds"}


def _foreign_folder(site: Site) -> Job:
    """A folder that another user made, on a claim that is the pods' group's."""
    site.claim("published")
    folder = site.folder("published")
    (folder / "models").mkdir(mode=0o755)
    os.chown(folder, 0, 65532)
    folder.chmod(0o2775)
    return site.job("tried", **_published_to("models"))


def _damaged(site: Site) -> Job:
    """Suspended; then every checkpoint was cut off."""
    job = site.job("tried", **{MAX_STEPS: LONG})
    site.committed(job)
    job.patch(suspend=True)
    job.await_phase("Suspended")
    for weights in job.run_folder.glob("epochs/*/stages/*/checkpoint-*/weights.safetensors"):
        weights.write_bytes(b"")
    job.patch(suspend=False)
    return job


def _deleted(site: Site, job: Job) -> Job:
    shutil.rmtree(job.run_folder)
    return site.again(job, **{MAX_STEPS: STEPS})


# What is read from them


def file_of(site: Site, name: str) -> Path:
    return site.folder(ASSETS) / name


def kept(site: Site, name: str) -> Path:
    """A file that will be damaged; what it was lies beside the claim's folders."""
    path = file_of(site, name)
    (path.parent.parent / path.name).write_bytes(path.read_bytes())
    return path


def restored(name: str) -> Mend:
    """The file as it was, and the job made again."""

    def mend(site: Site, job: Job) -> Job:
        path = file_of(site, name)
        path.write_bytes((path.parent.parent / path.name).read_bytes())
        return site.again(job)

    return mend


def _cut_line(site: Site) -> Job:
    path = kept(site, ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"text": "cut off\n', *lines[3:]]))
    return site.job("tried")


def _torn(site: Site) -> Job:
    path = kept(site, f"{MODEL}/model.safetensors")
    path.write_bytes(path.read_bytes()[:20_000])
    return site.job("tried")


def _roots_own(name: str) -> Play:
    def play(site: Site) -> Job:
        file_of(site, name).chmod(0o600)
        return site.job("tried")

    return play


def _readable(name: str) -> Mend:
    """`chmod a+rX`."""

    def mend(site: Site, job: Job) -> Job:
        file_of(site, name).chmod(0o644)
        return site.again(job)

    return mend


FILE_FAILURES: Final = (
    PodFailure(
        name="image-not-there",
        layer=Layer.IMAGE,
        what="an image by a digest that no registry has",
        reason=ConditionReason.IMAGE_UNAVAILABLE,
        place=NOWHERE,
        hint="the runtime's image or imagePullSecrets are wrong",
        fix="the runtime's image was corrected, and the job made again",
        play=own(lambda site: {"image": NOWHERE, "imagePullPolicy": "IfNotPresent"}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="image-not-on-its-node",
        layer=Layer.IMAGE,
        what="an image that is never pulled, and not on the node",
        reason=ConditionReason.IMAGE_UNAVAILABLE,
        place="is not present with pull policy of Never",
        hint="the runtime's image or imagePullSecrets are wrong",
        fix="an image that the node has",
        play=own(lambda site: {"image": NOWHERE}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="image-misnamed",
        layer=Layer.IMAGE,
        what="an image's name with capitals",
        reason=ConditionReason.IMAGE_UNAVAILABLE,
        place=f"image {MISNAMED} can't be pulled",
        hint="the runtime's image or imagePullSecrets are wrong",
        fix="the runtime's image was corrected, and the job made again",
        play=own(lambda site: {"image": MISNAMED, "imagePullPolicy": "IfNotPresent"}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="image-without-trainer",
        layer=Layer.IMAGE,
        what="an image that holds no trainer",
        reason=ClusterReason.UNKNOWN_EXIT,
        place="exit code 2, and left no message",
        hint="its image is not a finetune trainer: look at the last lines of its log",
        fix="the trainer's image: the log is another program's",
        play=own(lambda site: {"image": site.platform.images.operator.reference}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="memory-limit",
        layer=Layer.MEMORY,
        what="a memory limit below what torch takes",
        reason=ClusterReason.MEMORY_LIMIT_EXCEEDED,
        place="its container reached its memory limit",
        hint="ask the platform team for a runtime with more memory",
        fix="a runtime with 2 GiB",
        play=own(lambda site: {"resources": {**limits(), "train": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="local-storage-limit",
        layer=Layer.NODE,
        what="a limit of local storage below what a job's log takes",
        reason=ClusterReason.LOCAL_STORAGE_EXCEEDED,
        place="exceeds the total limit of containers",
        hint="a runtime with more ephemeral-storage",
        fix="a runtime with 1 GiB",
        play=own(_local("1Ki"), **{MAX_STEPS: LONG}),
        mend=own_again(_local("1Gi")),
    ),
    PodFailure(
        name="volume-full",
        layer=Layer.STORAGE,
        what="a volume too small for a checkpoint",
        reason=Reason.STORAGE_FULL,
        place="no space left",
        hint="enlarge its volume",
        fix="a larger claim in the runtime, and the job made again",
        play=own(_small, **FULL),
        mend=own_again(_larger, **FULL),
    ),
    PodFailure(
        name="volume-read-only",
        layer=Layer.STORAGE,
        what="a volume whose disk has become read-only",
        reason=Reason.STORAGE_UNWRITABLE,
        place="/finetune/run",
        hint="Make the run folder writable",
        fix="writable again, and the job made again",
        play=_read_only,
        mend=_writable,
    ),
    PodFailure(
        name="runs-claim-not-there",
        layer=Layer.STORAGE,
        what="the runtime's claim for runs is not in the namespace",
        reason=ConditionReason.CLAIM_MISSING,
        place="claim finetune-runs is not there",
        hint="make it",
        fix="the claim was made",
        play=own(lambda site: KEPT),
        mend=_made,
    ),
    PodFailure(
        name="claim-never-bound",
        layer=Layer.STORAGE,
        what="a StorageClass that is not there",
        reason=ConditionReason.CLAIM_UNBOUND,
        place="a claim is not bound to a volume",
        hint="`kubectl describe pvc` says why",
        fix="a class that is there in the runtime, and the job made again",
        play=_unbound,
        mend=_described,
    ),
    PodFailure(
        name="output-not-writable",
        layer=Layer.STORAGE,
        what="another user's folder where the model shall be published",
        reason=Reason.STORAGE_UNWRITABLE,
        place="spec.output.uri",
        hint="or write another spec.output.uri",
        fix="another `spec.output.uri`",
        play=_foreign_folder,
        mend=again(**_published_to("team")),
    ),
    PodFailure(
        name="checkpoints-damaged-on-a-claim",
        layer=Layer.STORAGE,
        what="every checkpoint of a suspended job is cut off",
        reason=Reason.CHECKPOINT_INVALID,
        place="weights.safetensors",
        hint="delete the folder to start anew",
        fix="the run folder was deleted, and the job made again",
        play=_damaged,
        mend=_deleted,
    ),
    PodFailure(
        name="row-cut-off-on-a-claim",
        layer=Layer.DATA,
        what="a line of JSON on a claim that is cut off",
        reason=Reason.DATA_INVALID,
        place="glosses-1000.jsonl:3",
        hint="Correct what the message lists, by file and line",
        fix="line 3 is whole, and the job made again",
        play=_cut_line,
        mend=restored(ROWS),
    ),
    PodFailure(
        name="rows-of-another-user",
        layer=Layer.DATA,
        what="rows that the pod's user may not read",
        reason=Reason.SOURCE_FORBIDDEN,
        place="spec.stages[0].data.train[0]",
        hint="Make it readable for user 65532",
        fix="`chmod a+rX`, and the job made again",
        play=_roots_own(ROWS),
        mend=_readable(ROWS),
    ),
    PodFailure(
        name="model-not-on-its-claim",
        layer=Layer.MODEL,
        what="a model's folder that the claim does not have",
        reason=Reason.SOURCE_NOT_FOUND,
        place="spec.model.uri: there is no folder",
        hint="Check the URI",
        fix="the folder that is there",
        play=job(spec__model={"uri": f"pvc://{ASSETS}/demo/models/smollm3"}),
        mend=again(),
    ),
    PodFailure(
        name="model-torn-on-its-claim",
        layer=Layer.MODEL,
        what="weights on a claim that were not copied whole",
        reason=Reason.MODEL_UNSUPPORTED,
        place="model.safetensors",
        hint="Copy or download the model's files again",
        fix="copied again, and the job made again",
        play=_torn,
        mend=restored(f"{MODEL}/model.safetensors"),
    ),
    PodFailure(
        name="model-of-another-user",
        layer=Layer.MODEL,
        what="weights that the pod's user may not read",
        reason=Reason.SOURCE_FORBIDDEN,
        place="spec.model.uri",
        hint="Make it readable for user 65532",
        fix="`chmod a+rX`, and the job made again",
        play=_roots_own(f"{MODEL}/model.safetensors"),
        mend=_readable(f"{MODEL}/model.safetensors"),
    ),
)
