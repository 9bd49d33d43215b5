"""What training reads: the tokenised rows that `prepare` left in the run folder, as stages and suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune_api import constants as c
from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.status import Provenance
from finetune_api.wire import TrainerConfig
from finetune_trainer.data import order, splits
from finetune_trainer.data.cache import PartCache
from finetune_trainer.data.classifiers import classifiers_of, locate_classifier
from finetune_trainer.data.models import locate_model
from finetune_trainer.data.report import VERSION, ClassifierReport, ModelReport, PrepareReport, SourceReport, StageReport, SuiteReport
from finetune_trainer.data.rows import Part, RowSet
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder


@dataclass(frozen=True)
class PreparedStage:
    train: RowSet
    validation: RowSet | None
    labels: list[str] | None
    """The classes in their order (classification)."""
    selection: npt.NDArray[np.int64]
    """Rows of `train` that make one epoch, after mixing weights: ascending; a repeated row stands more than once. The engine shuffles."""
    max_length: int


@dataclass(frozen=True)
class PreparedSuite:
    rows: RowSet
    """Empty where the suite isn't applicable to this model."""
    labels: list[str] | None
    max_length: int


@dataclass(frozen=True)
class Prepared:
    stages: Mapping[str, PreparedStage]
    suites: Mapping[str, PreparedSuite]
    tokenizer_folder: Path
    model_folder: Path
    """The base model's folder, or its .gguf file (`tokenizer.gguf_arguments`)."""
    end_tokens: list[int]
    """Ids that end an answer."""
    provenance: Provenance
    report: PrepareReport
    classifiers: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the classifiers that judge answers, by their stage."""


def load_prepared(config: TrainerConfig) -> Prepared:
    """Open what `prepare` left for this config. Raises TrainerError (RunFolderMismatch) where there is none."""
    folder = RunFolder(Path(config.run_folder))
    report = read_report(folder)
    if report is None or report.error_count or report.config_hash != config.config_hash or report.model is None or report.tokenizer is None:
        raise TrainerError(
            Reason.RUN_FOLDER_MISMATCH, "the run folder holds no prepared data for this manifest: run prepare first", where=str(folder.root)
        )
    return Prepared(
        stages={stage.name: open_stage(stage, config.spec.data_seed, folder) for stage in report.stages},
        suites={suite.name: _open_suite(suite, folder) for suite in report.suites},
        tokenizer_folder=folder.prepared / report.tokenizer.folder,
        model_folder=_model_folder(report.model, config),
        end_tokens=report.tokenizer.end_tokens,
        provenance=Provenance.model_validate(
            {
                "modelRevision": report.model.revision,
                # A status is bounded; the report has every source.
                "datasetHashes": dict(list(dataset_hashes(report).items())[: c.MAX_SOURCES]),
                "configHash": config.config_hash,
                "seed": config.spec.data_seed,
            }
        ),
        report=report,
        classifiers={one.stage: _classifier_folder(one, config) for one in report.classifiers},
    )


def _model_folder(model: ModelReport, config: TrainerConfig) -> Path:
    """Where it was found; on another machine it is found again, at the same commit."""
    folder = Path(model.folder)
    return folder if folder.exists() else locate_model(config, revision=model.commit).path


def _classifier_folder(found: ClassifierReport, config: TrainerConfig) -> Path:
    """As the model's."""
    folder, named = Path(found.folder), classifiers_of(config.spec)[found.field].classifier
    return folder if folder.exists() else locate_classifier(named, config=config, where=found.field, revision=found.commit).path


def open_stage(stage: StageReport, seed: int, folder: RunFolder) -> PreparedStage:
    """Map a stage's rows, split them and choose an epoch's."""
    train = RowSet([open_part(source, folder, stage.labels) for source in stage.sources])
    validation = None if stage.validation_source is None else RowSet([open_part(stage.validation_source, folder, stage.labels)])
    if stage.validation_fraction is not None:
        train, validation = splits.split(train, stage.validation_fraction)
    sizes = np.ones(len(train), np.int64) if stage.objective == Objective.CLASSIFICATION else train.lengths
    selection = order.select(sizes, train.sources, [source.weight for source in stage.sources], seed)
    return PreparedStage(train=train, validation=validation, labels=stage.labels, selection=selection, max_length=stage.max_length)


def _open_suite(suite: SuiteReport, folder: RunFolder) -> PreparedSuite:
    parts = [] if suite.source is None else [open_part(suite.source, folder, suite.labels)]
    return PreparedSuite(rows=RowSet(parts), labels=suite.labels, max_length=suite.max_length)


def read_report(folder: RunFolder) -> PrepareReport | None:
    """The run folder's prepare.json, or None where there is none, or one of another version of this code."""
    if not folder.prepare_report.is_file():
        return None
    report = PrepareReport.model_validate_json(folder.prepare_report.read_bytes())
    return report if report.version == VERSION else None


def open_part(source: SourceReport, folder: RunFolder, labels: list[str] | None) -> Part:
    """The tokenised rows of a source, with the label numbers of the stage or suite."""
    place = PartCache.of(folder.prepared).find(source.key)
    if place is None:
        raise TrainerError(
            Reason.RUN_FOLDER_MISMATCH, f"the tokenised rows {source.key} are gone: run prepare again", where=str(folder.prepared)
        )
    return Part(place, [file.path for file in source.files], labels)


def dataset_hashes(report: PrepareReport) -> dict[str, str]:
    """SHA-256 of each source's content, and of each classifier's, by URI."""
    judges = {classifier.uri: classifier.sha256 for classifier in report.classifiers}
    return judges | {source.uri: source.sha256 for source in report.sources()}
