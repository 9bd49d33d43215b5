"""A run folder as a two-stage job leaves it, with invented figures: written by the same functions as a real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune_api.constants import ExitCode
from finetune_api.plan import config_hash, resolve
from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.status import Artifact, Provenance
from finetune_api.wire import JobIdentity, RunResult, SegmentKind, SegmentRef, TrainerConfig
from finetune_trainer.arms import RESOLVED
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.epochs import CURVE
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.manifest import Evaluation, Kind
from finetune_trainer.checkpoint.steplog import StepLog
from finetune_trainer.data.report import (
    FileRecord,
    Histogram,
    Leak,
    ModelReport,
    PrepareReport,
    SetReport,
    SourceReport,
    StageReport,
    SuiteReport,
)
from finetune_trainer.evaluation import metrics
from finetune_trainer.evaluation.bootstrap import estimates, paired_difference
from finetune_trainer.evaluation.gates import judge
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import (
    PointResult,
    PointSamples,
    Sample,
    SuiteResult,
    point_path,
    samples_path,
    to_status,
    write,
)
from finetune_trainer.run_folder import RunFolder

MARKUP = "<script>alert('x')</script> & $a_1$ </style> {{ 7 * 7 }}"
"""What a user may type, and what must be shown as it is."""

MANIFEST: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "animals-and-plants"},
    "spec": {
        "model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac"},
        "seed": 7,
        "stages": [
            {
                "name": "domain",
                "objective": "causalLanguageModeling",
                "data": {"train": [{"uri": "file://data/glosses.jsonl"}], "validation": {"fraction": 0.05}},
                "method": {"type": "lora"},
                "training": {"learningRate": 5e-4, "numTrainEpochs": 1, "perDeviceTrainBatchSize": 16, "warmupRatio": 0.1},
                "handOver": "merge",
                "evalSteps": 20,
            },
            {
                "name": "task",
                "objective": "supervised",
                "data": {"train": [{"uri": "file://data/pairs.jsonl"}]},
                "method": {"type": "lora"},
                "training": {"learningRate": 3e-4, "numTrainEpochs": 3, "perDeviceTrainBatchSize": 16, "warmupRatio": 0.1},
            },
        ],
        "evaluation": {
            "suites": [
                {
                    "name": "in-domain",
                    "objective": "supervised",
                    "data": {"uri": "file://data/test.jsonl"},
                    "metrics": ["loss", "tokenAccuracy", "exactMatch"],
                },
                {
                    "name": "knowledge",
                    "objective": "causalLanguageModeling",
                    "data": {"uri": "file://data/python.txt"},
                    "metrics": ["perplexity"],
                },
                {
                    "name": "noun-class",
                    "objective": "classification",
                    "data": {"uri": "file://data/classes.csv"},
                    "metrics": ["accuracy"],
                },
            ],
            "gates": [
                {"suite": "in-domain", "metric": "loss", "minImprovement": {"absolute": 1.0}},
                {"suite": "knowledge", "metric": "perplexity", "maxRegression": {"relative": 0.03}},
            ],
        },
    },
}

SAMPLES = [
    ("otter", "any of various aquatic mammals with a thick fur coat"),
    ("maple", "any of numerous trees or shrubs of the genus Acer bearing winged seeds in pairs"),
    (MARKUP, "a word that is not in the dictionary"),
]
WRITTEN = {
    "base": "An {word} is a word that can be used in many ways. Here are some examples of how it may be used in a sentence:\n\n1. The {word} was …",
    "0-domain": "{word}: a small tree of the genus of the family of the family",
    "1-task": "any of several small aquatic mammals having a dense soft coat",
}


def config(folder: Path) -> TrainerConfig:
    """What the trainer of this run is told."""
    job = FineTuneJob.model_validate(MANIFEST)
    return TrainerConfig(
        job=JobIdentity(name=job.metadata.name),
        config_hash=config_hash(job.spec),
        segment=SegmentRef(index=1, kind=SegmentKind.TRAIN, stages=["domain", "task"], last=True),
        spec=resolve(job.spec),
        run_folder=str(folder),
        base_folder=".",
        threads=2,
    )


def make_run(folder: Path, *, finished: bool = True) -> RunFolder:
    """Write the folder: a run that was killed once in its first stage; without a result where it is not `finished`."""
    run = RunFolder(folder)
    told = config(folder)
    claim(run, told)
    write(run.prepare_report, prepare_report(told))
    _epochs(run)
    if not finished:
        return run
    points = _points(run, told)
    provenance = Provenance.model_validate(
        {
            "modelRevision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
            "datasetHashes": {f"file://data/{name}": name[0] * 64 for name in ("glosses.jsonl", "pairs.jsonl", "test.jsonl")},
            "configHash": told.config_hash,
            "seed": 7,
            "versions": {"torch": "2.15.0", "transformers": "5.23.0", "peft": "0.21.2", "finetune": "0.1.0"},
        }
    )
    result = RunResult(
        outcome="Succeeded",
        exit_code=ExitCode.SUCCESS,
        evaluation=to_status(points),
        artifacts=[Artifact(kind="adapter", uri="file:///models/animals/adapter", sha256="a" * 64, bytes=19_600_000)],
        provenance=provenance,
    )
    run.result.write_text(result.model_dump_json(exclude_none=True))
    return run


def _points(run: RunFolder, told: TrainerConfig) -> list[PointResult]:
    generator = np.random.default_rng(0)
    lengths, difficulty = generator.integers(6, 30, 300), generator.normal(0, 0.5, 300)
    points: list[PointResult] = []
    bases: dict[str, RowRecords] = {}
    for point, stage, loss, perplexity in (("base", None, 5.34, 2.911), ("0-domain", "domain", 4.25, 2.905), ("1-task", "task", 3.31, 2.9)):
        results = []
        for suite in told.spec.evaluation.suites[:2]:
            mean = loss if suite.name == "in-domain" else perplexity
            rows = _records(mean, lengths, difficulty, generator, generated=suite.name == "in-domain")
            statistics = [metrics.STATISTICS[metric] for metric in suite.metrics]
            found = {metric: one for metric, one in zip(suite.metrics, estimates(rows, statistics, seed=1), strict=True) if one}
            before = bases.setdefault(suite.name, rows)
            changes = {
                metric: change
                for metric, statistic in zip(suite.metrics, statistics, strict=True)
                if before is not rows and (change := paired_difference(rows, before, statistic, seed=1))
            }
            results.append(
                SuiteResult(
                    name=suite.name, objective=suite.objective, rows=300, tokens=int(lengths.sum()), estimates=found, changes=changes,
                    note="exactMatch: greedy, one beam, no penalties, at most 64 tokens" if Metric.EXACT_MATCH in found else None,
                )
            )  # fmt: skip
        results.append(
            SuiteResult(name="noun-class", objective=Objective.CLASSIFICATION, not_applicable="no stage has trained a classification head")
        )
        measured = PointResult(point=point, stage=stage, suites=results)
        points.append(measured)
        if stage:
            gates = judge(told.spec.evaluation.gates, points, stage, stages=["domain", "task"])
            points[-1] = measured = measured.model_copy(update={"gates": gates})
        write(point_path(run.evaluation, point), measured)
        texts = [
            Sample(
                row=f"{index:016x}",
                prompt=f"Define: {word}",
                full_prompt=f"system\nYou define words.\nuser\nDefine: {word}\nassistant",
                reference=reference,
                completion=WRITTEN[point].replace("{word}", word),
            )
            for index, (word, reference) in enumerate(SAMPLES)
        ]
        write(samples_path(run.evaluation, point), PointSamples(point=point, suite="in-domain", max_new_tokens=64, samples=texts))
    return points


def _records(mean: float, lengths: Any, difficulty: Any, generator: np.random.Generator, *, generated: bool) -> RowRecords:
    rows = len(lengths)
    share = np.clip(0.75 - mean / 10, 0.05, 0.95)
    return replace(
        RowRecords.empty([f"{index:016x}" for index in range(rows)]),
        nll=(mean + difficulty + generator.normal(0, 0.2, rows)) * lengths,
        tokens=lengths,
        correct=generator.binomial(lengths, share),
        exact=generator.binomial(1, 0.06 if mean < 4 else 0.01, rows) if generated else np.full(rows, -1),
    )


def _epochs(run: RunFolder) -> None:
    """Two epochs: the second went on from step 40 of the first stage."""
    files = FileLayer()
    journal = Journal(run.journal, files, clock=iter([1_790_000_000.0, 1_790_000_400.0]).__next__)
    start = CheckpointRef(Path("unused"), 1, Kind.CHECKPOINT, "0-domain", 40, Evaluation.DONE, "0" * 64)
    for number, parent, came_from in ((1, None, None), (2, 1, start)):
        folder = lineage.epoch_folder(run.epochs, number)
        folder.mkdir(parents=True)
        lineage.write_lineage(folder, parent=parent, start=came_from, files=files)
        journal.append(
            Event.START,
            epoch=number,
            start=came_from.document() if came_from else None,
            stepsLost=3 if came_from else 0,
            rejected=["epochs/0001/stages/0-domain/checkpoint-00000060: adapter.safetensors is truncated"] if came_from else [],
        )
    generator = np.random.default_rng(1)
    for key, steps, first, last, rate, validated in (("0-domain", 63, 4.6, 3.4, 5e-4, True), ("1-task", 30, 4.1, 2.6, 3e-4, False)):
        log = StepLog(lineage.epoch_folder(run.epochs, 2) / lineage.STAGES / key / CURVE)
        for step in range(1, steps + 1):
            mean = last + (first - last) * np.exp(-3 * step / steps)
            warm = min(1.0, step / (0.1 * steps), (steps - step) / (0.9 * steps))
            log.append(step, epoch=step / steps, loss=float(mean + generator.normal(0, 0.06)), learningRate=rate * warm, gradNorm=1.0)
            if validated and step % 20 == 0:
                log.append(step, epoch=step / steps, evalLoss=float(mean + 0.08))
        log.close()
    resolved = {
        "training": {
            "learningRate": 5e-4,
            "optimizer": "adamw_torch_fused",
            "mixedPrecision": {"trainableWeights": "float32", "autocast": "off"},
            "course": {"frozen": {"layers.0.q_proj": 21}},
            "told": {"frozen": "28 of 28 matrices, by their scores, after steps 21 to 60"},
        },
        "model": {
            "startsFrom": "the base model",
            "parameters": 139_403_520,
            "trainedParameters": 4_884_480,
            "onTheBaseInFp32": {"argmax_agreement": 0.99, "loss_fp32": None},
        },
        "steps": 63,
        "stoppedEarly": False,
    }
    (lineage.epoch_folder(run.epochs, 2) / lineage.STAGES / "0-domain" / RESOLVED).write_text(json.dumps(resolved))


def prepare_report(told: TrainerConfig) -> PrepareReport:
    """What `prepare` would have found."""

    def source(name: str) -> SourceReport:
        files = [FileRecord(path=f"data/{name}", sha256=name[0] * 64, bytes=90_000)]
        return SourceReport(uri=f"file://data/{name}", field="spec", format="jsonl", sha256=name[0] * 64, files=files, key="k" * 64)

    def rows(count: int, *, classes: dict[str, int] | None = None) -> SetReport:
        counts = [int(count * share) for share in (0.05, 0.22, 0.34, 0.21, 0.11, 0.05, 0.02)]
        return SetReport(
            rows=count, tokens=count * 19, mean_length=19.2, longest=61, supervised_share=0.42, truncated_share=0.012, exact_duplicates=count // 250,
            histogram=Histogram(edges=[1, 8, 16, 24, 32, 40, 48, 64], counts=counts), classes=classes or {},
        )  # fmt: skip

    stages = [
        StageReport(
            name="domain", objective="causalLanguageModeling", max_length=48, sources=[source("glosses.jsonl")], train=rows(950), validation=rows(50)
        ),
        StageReport(name="task", objective="supervised", max_length=64, sources=[source("pairs.jsonl")], train=rows(150)),
    ]  # fmt: skip
    classes = {f"noun.{name}": 130 - 11 * index for index, name in enumerate(["animal", "plant", "artifact", "act", "state", "person"])}
    suites = [
        SuiteReport(name="in-domain", objective="supervised", max_length=64, source=source("test.jsonl"), rows=rows(300)),
        SuiteReport(
            name="noun-class", objective="classification", max_length=64, source=source("classes.csv"), rows=rows(600, classes={**classes, MARKUP: 9})
        ),
    ]  # fmt: skip
    return PrepareReport(
        config_hash=told.config_hash,
        model=ModelReport(uri=told.spec.model.uri, folder="/models/smollm2", revision=told.spec.model.revision),
        stages=stages,
        suites=suites,
        leaks=[Leak(measured="suite in-domain", stage="domain", exact=1, input=2, share=2 / 300, examples=["data/test.jsonl:17"])],
        warnings=["suite in-domain: 2 rows (0.7 %) also stand in the training data of stage domain"],
    )


if __name__ == "__main__":
    import sys

    from finetune_trainer.report.html import write_report

    print(write_report(make_run(Path(sys.argv[1]))))
