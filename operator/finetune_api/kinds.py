"""The kinds of the API, each with all that is generated from it: its model, its rules, its names, its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pydantic import BaseModel

from finetune_api import constants as c
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.rules import RULES, UNIQUE, Rule, Unique
from finetune_api.v1alpha1.rules.runtime import RUNTIME_RULES, RUNTIME_UNIQUE
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime


class Column(NamedTuple):
    """A column of `kubectl get`."""

    name: str
    type: str
    path: str
    priority: int
    """1 shows with -o wide."""
    description: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of the API."""

    model: type[BaseModel]
    plural: str
    short_name: str
    scope: str
    description: str
    introduction: str
    """Of its reference page."""
    page: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    unique: tuple[Unique, ...]

    @property
    def name(self) -> str:
        return self.model.__name__

    @property
    def has_status(self) -> bool:
        return "status" in self.model.model_fields


_AGE: Final = Column("Age", "date", ".metadata.creationTimestamp", 0, "Since its creation")
_GENERATED: Final = "Generated from the models by `make generate`; `kubectl explain {}.spec` shows the same texts."

FINE_TUNE_JOB: Final = Kind(
    model=FineTuneJob,
    plural=c.PLURAL,
    short_name=c.SHORT_NAME,
    scope="Namespaced",
    description="A model, stages in their order, what is measured, and where the result goes.",
    page="docs/reference/job.md",
    introduction=f"""# FineTuneJob: every field

{_GENERATED.format("finetunejob")} What the words mean stands in
`docs/explanation/`. `null` means that a field is left out. `file://` is for local runs, and `[]` marks the entries of a list.
""",
    columns=(
        Column("Phase", "string", ".status.phase", 0, "Where the job stands"),
        Column("Stage", "string", ".status.summary.stage", 0, "The stage that runs, and for which seed"),
        Column("Progress", "integer", ".status.progress.percent", 0, "Percent of the whole job"),
        Column("Loss", "number", ".status.progress.loss", 0, "Training loss a token"),
        Column("ETA", "string", ".status.progress.eta", 0, "Time left, estimated"),
        Column("Queue", "string", ".status.summary.queue", 0, "Kueue's queue"),
        _AGE,
        Column("Model", "string", ".spec.model.uri", 1, "The base model"),
        Column("Method", "string", ".status.summary.methods", 1, "The methods of its stages"),
        Column("Node", "string", ".status.summary.node", 1, "Where the newest pod runs"),
        Column("Attempts", "string", ".status.summary.attempts", 1, "Attempts so far"),
        Column("Score", "string", ".status.summary.score", 1, "The first gate's metric, base and tuned"),
    ),
    rules=RULES,
    unique=UNIQUE,
)
RUNTIME: Final = Kind(
    model=ClusterFineTuneRuntime,
    plural=c.RUNTIME_PLURAL,
    short_name=c.RUNTIME_SHORT_NAME,
    scope="Cluster",
    description="What the platform team decides for every job: image, resources, placement, storage, Secrets and claims.",
    page="docs/reference/runtime.md",
    introduction=f"""# ClusterFineTuneRuntime: every field

{_GENERATED.format("clusterfinetuneruntime")} It is the platform team's: a job
names a runtime, and nothing of what is in it. A job keeps what its runtime was when the job started. The annotation
`{c.DEFAULT_RUNTIME_ANNOTATION}: "true"` makes a runtime that of jobs that name none; there may be one.
""",
    columns=(
        Column("GPUs", "integer", ".spec.gpus", 0, "GPUs of a training pod whose stages ask for no number (empty: 1)"),
        Column(
            "Default",
            "string",
            rf".metadata.annotations.{c.GROUP.replace('.', chr(92) + '.')}/default-runtime",
            0,
            "Runtime of jobs that name none",
        ),
        Column("Queue", "string", ".spec.queueName", 0, "Kueue's queue"),
        _AGE,
        Column("Image", "string", ".spec.image", 1, "The trainer image"),
        Column("Storage", "string", ".spec.storage.claimTemplate.className", 1, "The StorageClass of run folders"),
        Column("Claim", "string", ".spec.storage.claimName", 1, "The claim of run folders"),
    ),
    rules=RUNTIME_RULES,
    unique=RUNTIME_UNIQUE,
)
KINDS: Final = (FINE_TUNE_JOB, RUNTIME)
