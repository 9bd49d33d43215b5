"""What the operator (or `finetune run`) and the trainer say to each other. JSON, camelCase, no secret ever in it.

TrainerConfig goes in, ProgressReport comes out while it runs, RunResult when it ends.
"""

from __future__ import annotations

import base64
import zlib
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from finetune_api.base import WireModel
from finetune_api.constants import MAX_NOTICES, MAX_SEEDS, STALLED_AFTER_SECONDS, ClusterReason, ExitCode, NoticeReason, Reason
from finetune_api.reading import Reading
from finetune_api.shown import safe
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.status import Artifact, EvaluationStatus, Provenance, SeedsStatus, StageStatus


class JobIdentity(WireModel):
    """Which job a run folder and a report belong to."""

    name: str
    namespace: str = "default"
    uid: str = ""


class SegmentKind(StrEnum):
    PREPARE = "prepare"
    TRAIN = "train"


class SegmentRef(WireModel):
    """The part of a job that one process (one pod) works through."""

    index: int
    """From 0; 0 is always prepare."""
    kind: SegmentKind
    stages: list[str]
    """Names of its stages, in order; prepare has all of them."""
    last: bool
    """Whether it ends the job: it publishes and writes the report."""
    gpus: int | None = None


class PodConfig(WireModel):
    """What only a trainer in a pod is told. There the run folder outlives the process, and nobody else keeps its log."""

    attempt: int = Field(ge=1)
    """The number at the end of its Job's name: pods of one Job share it, so the journal tells a replaced pod from a new attempt."""
    run_uri: str
    """The run folder as others find it: `pvc://CLAIM/NAMESPACE/NAME-UID`. Artifacts and checkpoints are named by it."""
    image_digest: str | None = None
    """Of the trainer image, for the provenance: `sha256:…`."""
    clean_up: bool = True
    """After success, remove from the run folder all but artifacts, logs and the result. Where the termination message could not hold the
    result, the report Job does it, so that what it reads is there."""


class TrainerConfig(WireModel):
    """Everything that a trainer process is told. It is read by `plan.read_config`, which fills in the spec's defaults."""

    wire_version: Literal["v1"] = "v1"
    job: JobIdentity
    config_hash: str = ""
    """SHA-256 of what decides the result; the run folder of another hash is refused. Whoever reads a config computes it."""
    segment: SegmentRef
    spec: FineTuneJobSpec
    run_folder: str
    base_folder: str
    """What relative `file://` paths are relative to: the manifest's folder."""
    mounts: dict[str, str] = {}
    """Name of a claim → the folder where it is mounted."""
    secret_files: dict[str, str] = {}
    """Name of a Secret reference → the file that holds its token. Never the token itself."""
    threads: int = Field(ge=1)
    """CPU threads of torch: part of the plan, because sums depend on it. A resumed run keeps the recorded number."""
    grace_seconds: int = 60
    """What is left between SIGTERM and SIGKILL."""
    stalled_after_seconds: int = Field(default=STALLED_AFTER_SECONDS, ge=1)
    """Seconds in which nothing advances, after which the process takes itself for hanging and ends."""
    pod: PodConfig | None = None
    """None in a local run."""
    reading: Reading | None = None
    """What a pod prints that a user asked for; None in all others."""


class Activity(StrEnum):
    """What a run is doing, for the progress line."""

    PREPARE = "prepare"
    LOAD = "load"
    EVALUATE = "evaluate"
    TRAIN = "train"
    SAVE = "save"
    HAND_OVER = "handOver"
    PUBLISH = "publish"


class Notice(WireModel):
    """What a trainer notices of itself. It is told with every report as long as it is so, because any of them may be lost."""

    reason: NoticeReason
    message: Annotated[str, Field(max_length=1024), AfterValidator(safe)]
    """What is so, since when, and what to try."""


class ProgressReport(WireModel):
    """How far a run is. Lines of JSON on the descriptor FINETUNE_PROGRESS_FD; dropped when nobody reads fast enough."""

    activity: Activity
    stage: str | None = None
    arm: int | None = None
    """Which of the job's arms (`finetune_api.arms`), from 0; None where it has one."""
    suite: str | None = None
    done: int = 0
    """Units of this activity done: optimizer steps, rows, files."""
    total: int | None = None
    unit: str = "steps"
    percent: float | None = None
    """Share of the whole job, 0 to 100."""
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    metrics: dict[str, float] = {}
    """Validation metrics of the stage, in the report that follows an evaluation."""
    notices: list[Notice] | None = None
    """Everything that the trainer notices now; None: this report does not say."""
    message: str | None = None
    """A sentence for the log pane: what happened, once ("checkpoint 40 saved", "resumed from step 40")."""
    at: float = 0.0
    """Seconds since the epoch."""


LARGEST_COUNT: Final = 10**12
LARGEST_FIGURE: Final = 1e9
"""A loss, a rate or a metric beyond it says nothing more than that it is out of hand, and has no place in a status."""
_Text = Annotated[str, Field(max_length=256)]
_Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
_Size = Annotated[float, Field(ge=0, le=LARGEST_FIGURE)]
_Figure = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE)]


class ProgressUpdate(WireModel):
    """What a pod tells the operator over HTTPS: a ProgressReport of which every field is bounded, because it ends in a status."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    activity: Annotated[Activity, Field(strict=False)]
    stage: _Text | None = None
    arm: Annotated[int, Field(ge=0, lt=2 * MAX_SEEDS)] | None = None
    """Which of the job's arms; None where it has one, or the trainer is older than they."""
    suite: _Text | None = None
    done: _Count = 0
    total: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None = None
    unit: Annotated[str, Field(max_length=32)] = "steps"
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of the whole job."""
    epoch: _Size | None = None
    loss: _Figure | None = None
    learning_rate: _Size | None = None
    grad_norm: _Size | None = None
    tokens_per_second: _Size | None = None
    gpu_memory_bytes: _Count | None = None
    """Of the GPU that trains: what tensors hold now. This and the next three: None where torch sees no GPU, or the trainer is older than they."""
    gpu_memory_peak_bytes: _Count | None = None
    """The most that torch has taken, since the process began."""
    gpu_memory_total_bytes: _Count | None = None
    """What it has."""
    gpu_utilization_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the last second, about, in which it computed."""
    metrics: Annotated[dict[Annotated[str, Field(max_length=64)], _Figure], Field(max_length=32)] = {}
    notices: Annotated[list[Notice], Field(max_length=MAX_NOTICES)] | None = None
    """Everything that the trainer notices now. None: it does not say, as trainers that are older than notices."""

    @field_validator("notices", mode="before")
    @classmethod
    def _without_what_nobody_knows(cls, notices: Any) -> Any:
        """A newer trainer may notice more than this program has words for."""
        if not isinstance(notices, list):
            return notices
        return [each for each in notices if not isinstance(each, dict) or each.get("reason") in set(NoticeReason)]

    @model_validator(mode="after")
    def _no_more_than_all(self) -> ProgressUpdate:
        if self.total is not None and self.done > self.total:
            raise ValueError("done is more than total")
        return self


class StageResult(WireModel):
    """What a stage came to."""

    status: StageStatus
    steps: int
    resumed_from_step: int | None = None
    steps_lost: int | None = None


class RunResult(WireModel):
    """How a trainer process ended: `result.json` in the run folder, and (cut to size) the pod's termination message."""

    outcome: Literal["Succeeded", "Failed", "Stopped"]
    exit_code: ExitCode
    reason: Reason | ClusterReason | None = None
    """A ClusterReason where the journal counted too many disruptions: it ends the job, whatever the exit code."""
    stage: str | None = None
    step: int | None = None
    message: str = ""
    hint: str = ""
    stages: list[StageResult] = []
    evaluation: list[EvaluationStatus] = []
    seeds: SeedsStatus | None = None
    """Which of several seeds is published, once that is decided."""
    artifacts: list[Artifact] = []
    provenance: Provenance | None = None
    resumed_from_step: int | None = None
    """The step from which this process went on in the middle of a stage."""
    steps_lost: int | None = None
    """Steps that the process before it had done and this one did again."""
    log_tail: list[str] = []
    """Of a failure: the end of the log, at most 1 KiB, secrets masked."""
    truncated: bool = False
    """In a termination message: evaluation, provenance or more were left out, and a report Job can tell them."""


class ResultPage(WireModel):
    """A termination message of a report pod: a part of the base64 of the zlib of a RunResult's JSON."""

    page: int
    """From 0."""
    pages: int
    """How many there are; a page beyond the last has no data."""
    data: str


def read_pages(pages: list[ResultPage]) -> RunResult:
    """Put a result together again. Raises ValueError where a page is missing or damaged."""
    ordered = sorted(pages, key=lambda page: page.page)
    if not ordered or [page.page for page in ordered[: ordered[0].pages]] != list(range(ordered[0].pages)):
        raise ValueError(f"pages {[page.page for page in ordered]} are not the whole of a result")
    try:
        return RunResult.model_validate_json(zlib.decompress(base64.b64decode("".join(page.data for page in ordered), validate=True)))
    except zlib.error as error:
        raise ValueError(f"the pages of the result are damaged: {error}") from error
