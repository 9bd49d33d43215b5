"""Mistakes of a manifest, which `finetune validate` finds before anything runs, each with the edit that its hint asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from finetune_api.constants import Reason
from tests.builders import LEFT_OUT, Document, job, stage
from tests.failures.base import Failure, Layer, Level

JOB: Final = job()
LORA_THEN_FULL: Final = job(stage("domain", handOver="continue"), stage("task", method="full"))


@dataclass(frozen=True, kw_only=True)
class ManifestFailure(Failure):
    layer: Layer = Layer.MANIFEST
    reason: str = Reason.INVALID_SPEC
    edits: Mapping[str, Any]
    mends: Mapping[str, Any]
    base: Document = field(default_factory=lambda: JOB)

    @property
    def level(self) -> Level:
        return Level.VALIDATE


MANIFEST_FAILURES: Final = (
    ManifestFailure(
        name="misspelt-field",
        what="a field is misspelt",
        edits={"spec.stages[0].traning": {"maxSteps": 5}},
        place="spec.stages[0].traning",
        hint="did you mean training?",
        fix="the field is called training",
        mends={"spec.stages[0].traning": LEFT_OUT, "spec.stages[0].training": {"maxSteps": 5}},
    ),
    ManifestFailure(
        name="misplaced-field",
        what="a field stands one level too high",
        edits={"spec.stages[0].learningRate": 1e-4},
        place="spec.stages[0].learningRate",
        hint="it belongs in spec.stages[].training, as learningRate",
        fix="it stands in training",
        mends={"spec.stages[0].learningRate": LEFT_OUT, "spec.stages[0].training": {"learningRate": 1e-4}},
    ),
    ManifestFailure(
        name="number-as-text",
        what="a number is quoted",
        edits={"spec.seed": "7"},
        place="spec.seed",
        hint="write 7 without quotes",
        fix="`seed: 7`",
        mends={"spec.seed": 7},
    ),
    ManifestFailure(
        name="yes-for-true",
        layer=Layer.TRAINER,
        what='`"yes"` for true',
        edits={"spec.stages[0].training": {"packing": "yes"}},
        place="spec.stages[0].training.packing",
        hint="write true or false, without quotes",
        fix="`packing: true`",
        mends={"spec.stages[0].training.packing": True},
    ),
    ManifestFailure(
        name="objective-misspelt",
        what="an objective is off by a letter",
        edits={"spec.stages[0].objective": "causalLanguageModelling"},
        place="spec.stages[0].objective",
        hint="did you mean causalLanguageModeling?",
        fix="the name that was meant",
        mends={"spec.stages[0].objective": "causalLanguageModeling"},
    ),
    ManifestFailure(
        name="absurd-learning-rate",
        what="a learning rate of 50",
        edits={"spec.stages[0].training": {"learningRate": 50}},
        place="spec.stages[0].training.learningRate",
        hint="2e-5 to 1e-3 is usual",
        fix="`learningRate: 2e-4`",
        mends={"spec.stages[0].training.learningRate": 2e-4},
    ),
    ManifestFailure(
        name="no-model",
        what="the model is left out",
        edits={"spec.model": LEFT_OUT},
        place="spec.model",
        hint="add model",
        fix="a model was added",
        mends={"spec.model": {"uri": "hf://owner/model"}},
    ),
    ManifestFailure(
        name="bucket",
        layer=Layer.STORAGE,
        what="a model in a bucket, of a kind that is not there",
        edits={"spec.model.uri": "s3://bucket/model"},
        place="spec.model.uri",
        hint="pvc://CLAIM/PATH",
        fix="the model lies on a claim",
        mends={"spec.model.uri": "pvc://models/model", "spec.references": {"claims": [{"name": "models", "claimName": "team-models"}]}},
    ),
    ManifestFailure(
        name="rows-of-a-model",
        layer=Layer.DATA,
        what="rows from a model's repository",
        edits={"spec.stages[0].data.train[0].uri": "hf://owner/rows"},
        place="spec.stages[0].data.train[0].uri",
        hint="hf://datasets/OWNER/NAME/PATH",
        fix="the data set's URI",
        mends={"spec.stages[0].data.train[0].uri": "hf://datasets/owner/rows/train.jsonl"},
    ),
    ManifestFailure(
        name="revision-of-a-file",
        layer=Layer.MODEL,
        what="a revision of a folder",
        edits={"spec.model": {"uri": "file://model", "revision": "main"}},
        place="spec.model.revision",
        hint="leave revision out",
        fix="without it",
        mends={"spec.model.revision": LEFT_OUT},
    ),
    ManifestFailure(
        name="retain-never-elsewhere",
        layer=Layer.STORAGE,
        what="`retain: Never` for an output that is not the job's own",
        edits={
            "spec.output": {"uri": "pvc://models/x", "retain": "Never"},
            "spec.references": {"claims": [{"name": "models", "claimName": "m"}]},
        },
        place="spec.output.retain",
        hint="write retain: Always",
        fix="`retain: Always`",
        mends={"spec.output.retain": "Always"},
    ),
    ManifestFailure(
        name="hand-over-missing",
        what="a stage does not say what the next one starts from",
        edits={"spec.stages[0].handOver": LEFT_OUT},
        place="spec.stages[0].handOver",
        hint="handOver: merge or stack after lora",
        fix="`handOver: merge`",
        mends={"spec.stages[0].handOver": "merge"},
    ),
    ManifestFailure(
        name="adapter-continued-as-full",
        what="an adapter that shall go on as full tuning",
        base=LORA_THEN_FULL,
        edits={},
        place="spec.stages[0].handOver",
        hint="write handOver: merge, which folds the adapter in first",
        fix="`handOver: merge`",
        mends={"spec.stages[0].handOver": "merge"},
    ),
    ManifestFailure(
        name="stages-of-one-name",
        what="two stages of one name",
        edits={"spec.stages[1].name": "domain", "spec.evaluation.gates[1].stage": "domain"},
        place="spec.stages[1].name",
        hint="write another name",
        fix="another name",
        mends={"spec.stages[1].name": "task"},
    ),
    ManifestFailure(
        name="two-lengths",
        layer=Layer.TRAINER,
        what="steps and epochs, both",
        edits={"spec.stages[0].training": {"maxSteps": 5, "numTrainEpochs": 2}},
        place="spec.stages[0].training.maxSteps",
        hint="write one of maxSteps and numTrainEpochs",
        fix="steps only",
        mends={"spec.stages[0].training.numTrainEpochs": LEFT_OUT},
    ),
    ManifestFailure(
        name="packed-and-grouped",
        layer=Layer.TRAINER,
        what="rows packed and grouped by length",
        edits={"spec.stages[0].training": {"packing": True, "groupByLength": True}},
        place="spec.stages[0].training.groupByLength",
        hint="write one of packing and groupByLength",
        fix="packed only",
        mends={"spec.stages[0].training.groupByLength": LEFT_OUT},
    ),
    ManifestFailure(
        name="measuring-on-nothing",
        layer=Layer.DATA,
        what="`evalSteps` without validation rows",
        edits={"spec.stages[0].evalSteps": 5},
        place="spec.stages[0].evalSteps",
        hint="add data.validation: {fraction: 0.02}",
        fix="`data.validation: {fraction: 0.02}`",
        mends={"spec.stages[0].data.validation": {"fraction": 0.02}},
    ),
    ManifestFailure(
        name="adapter-of-full-tuning",
        what="an adapter is to be published, and there is none",
        edits={"spec.stages[1].method": {"type": "full"}, "spec.output": {"format": ["adapter"]}},
        place="spec.output.format",
        hint="write format: [merged]",
        fix="`format: [merged]`",
        mends={"spec.output.format": ["merged"]},
    ),
    ManifestFailure(
        name="gate-on-no-suite",
        what="a gate's suite is misspelt",
        edits={"spec.evaluation.gates[0].suite": "in-domian"},
        place="spec.evaluation.gates[0].suite",
        hint="did you mean in-domain?",
        fix="the name that was meant",
        mends={"spec.evaluation.gates[0].suite": "in-domain"},
    ),
    ManifestFailure(
        name="gate-on-no-metric",
        what="a gate on a metric that is not computed",
        edits={"spec.evaluation.gates[1].metric": "loss"},
        place="spec.evaluation.gates[1].metric",
        hint="add it to the suite's metrics",
        fix="the metric was added",
        mends={"spec.evaluation.suites[1].metrics[1]": "loss"},
    ),
)
