"""From parts to the report: labels, splits, shares, leakage; and the checks that need more than one source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_trainer.data.audit import describe, found_in, leak
from finetune_trainer.data.draws import check_start, stage_seed
from finetune_trainer.data.prepared import PreparedStage, open_part, open_stage
from finetune_trainer.data.problems import Problems
from finetune_trainer.data.report import Leak, SetReport, SourceReport, StageReport, SuiteReport
from finetune_trainer.data.rows import RowSet
from finetune_trainer.data.tasks import StageTasks, Task, Tasks
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder

SHARE_TOLERANCE: Final = 0.01
"""By which a source's share of an epoch may differ from the one that was asked for."""


@dataclass
class Summary:
    """Builds the reports of stages and suites, in the manifest's order.

    sources: by field; one with a problem isn't there. inapplicable: by field, why this model can't serve a suite.
    """

    spec: FineTuneJobSpec
    tasks: Tasks
    sources: Mapping[str, SourceReport]
    inapplicable: Mapping[str, str]
    folder: RunFolder
    problems: Problems

    def __post_init__(self) -> None:
        self.stages: list[StageReport] = []
        self.suites: list[SuiteReport] = []
        self.leaks: list[Leak] = []
        self.warnings: list[str] = []
        self.prepared: dict[str, PreparedStage] = {}
        """Of the stages without a problem, by name."""
        self._labels: list[str] | None = None

    def run(self) -> Summary:
        """Fill in everything that can be: a stage or suite with a problem in a source is left out."""
        notes = {f"{file.path} {note}": None for source in self.sources.values() for file in source.files for note in file.notes}
        self.warnings += list(notes)
        for index, (stage, own) in enumerate(zip(self.spec.stages, self.tasks.stages, strict=True)):
            self._stage(index, stage, own)
        for name, task in self.tasks.suites:
            self._suite(name, task)
        return self

    def _stage(self, index: int, stage: Stage, own: StageTasks) -> None:
        train = [self.sources[task.where] for task in own.train if task.where in self.sources]
        checked = None if own.validation is None else self.sources.get(own.validation.where)
        if len(train) < len(own.train) or (own.validation is not None and checked is None):
            return
        if not self._has_rows(train, f"stage {stage.name}", own.train[0]):
            return
        labels = self._stage_labels(stage, train, own.train[0].where) if stage.objective is Objective.CLASSIFICATION else None
        if stage.objective is Objective.CLASSIFICATION and labels is None:
            return
        if checked is not None and own.validation is not None and not self._usable(checked, labels, own.validation, f"stage {stage.name}"):
            return
        report = StageReport(
            name=stage.name,
            objective=stage.objective,
            max_length=own.train[0].options.max_length,
            labels=labels,
            sources=train,
            validation_source=checked,
            validation_fraction=None if stage.data.validation is None else stage.data.validation.fraction,
            train=SetReport(),
        )
        prepared = open_stage(report, self.spec.data_seed, self.folder)
        if self._has_groups(prepared, own.train[0]) and self._splits(report, prepared, own):
            self._check_start(index, stage, prepared)
            self.stages.append(self._described(report, prepared))
            self.prepared[stage.name] = prepared

    def _check_start(self, index: int, stage: Stage, prepared: PreparedStage) -> None:
        """Ask for every seed: each draws rows of its own to begin from."""
        try:
            for seed in self.spec.every_seed:
                check_start(stage, prepared.train, stage_seed(seed, index), f"spec.stages[{index}]")
        except TrainerError as error:
            self.problems.add_error(error)

    def _described(self, report: StageReport, prepared: PreparedStage) -> StageReport:
        rows, sources = prepared.train, [*report.sources]
        checked = sources if report.validation_source is None else [report.validation_source]
        validation = None if prepared.validation is None else describe(prepared.validation, checked, report.labels)
        lengths = rows.lengths[prepared.selection].astype(np.int64)
        counted = np.ones_like(lengths) if report.objective == Objective.CLASSIFICATION else lengths
        shares = np.bincount(rows.sources[prepared.selection], weights=counted, minlength=len(sources)) / max(int(counted.sum()), 1)
        train = describe(rows, sources, report.labels)
        self._warn(f"stage {report.name}", train)
        self._warn_of_shares(report, shares.tolist())
        return report.model_copy(
            update={
                "train": train,
                "validation": validation,
                "epoch_rows": len(prepared.selection),
                "epoch_tokens": int(lengths.sum()),
                "shares": shares.round(6).tolist(),
            }
        )

    def _has_groups(self, prepared: PreparedStage, task: Task) -> bool:
        """Whether rows are of several domains (and have several confounders), where a guard tells them apart."""
        lone = [role for role in task.groups if len(prepared.train.group_names.get(role, [])) < 2]
        for role in lone:
            found = prepared.train.group_names.get(role, [])
            only = f"all rows have the one {role} {found[0]!r}" if found else f"no row names its {role}"
            where = f"{task.where.rpartition('.')[0]}.columns.{role}"
            self.problems.add(
                where,
                None,
                f"{only}: dann needs two at least; add rows of another, name another column, or leave dann out",
                Reason.DATA_INVALID,
            )
        return not lone

    def _warn_of_shares(self, report: StageReport, shares: list[float]) -> None:
        """Say where few or long rows can't make up the share that was asked for."""
        weights = [source.weight or 0.0 for source in report.sources]
        for source, weight, share in zip(report.sources, weights, shares, strict=True):
            asked = weight / (sum(weights) or 1.0)
            if weight and abs(share - asked) > SHARE_TOLERANCE:
                self.warnings.append(
                    f"stage {report.name}: {source.uri} makes up {share:.1%} of an epoch instead of {asked:.1%}: its rows are too few or too long for it"
                )

    def _suite(self, name: str, task: Task) -> None:
        length = task.options.max_length
        if task.where in self.inapplicable:
            self.warnings.append(f"suite {name} is not applicable to this model: {self.inapplicable[task.where]}")
            self.suites.append(SuiteReport(name=name, objective=task.objective, max_length=length))
            return
        source = self.sources.get(task.where)
        if source is None or not self._has_rows([source], f"suite {name}", task):
            return
        labels = None
        if task.objective is Objective.CLASSIFICATION:
            labels = list(task.options.labels) if task.options.labels else self._labels
            labels = labels or sorted(self._part_labels(source))
        if not self._usable(source, labels, task, f"suite {name}"):
            return
        rows = RowSet([open_part(source, self.folder, labels)])
        report = describe(rows, [source], labels)
        self._warn(f"suite {name}", report)
        self.suites.append(
            SuiteReport(name=name, objective=task.objective, max_length=task.options.max_length, labels=labels, source=source, rows=report)
        )
        for stage, prepared in self.prepared.items():
            self._leak(f"suite {name}", rows, stage, prepared.train)

    def _splits(self, report: StageReport, prepared: PreparedStage, own: StageTasks) -> bool:
        """Check training against validation rows; adds the problem where they can't be used."""
        validation = prepared.validation
        if validation is None:
            return True
        if report.validation_fraction is not None and (not len(validation) or not len(prepared.train)):
            total, side = len(validation) + len(prepared.train), "validation" if not len(validation) else "training"
            self.problems.add(
                f"{own.train[0].where.rsplit('.', 1)[0]}.validation.fraction",
                None,
                f"{report.validation_fraction} of {total} rows leaves none for {side}; choose another fraction, or give a uri",
                Reason.DATA_EMPTY,
            )
            return False
        if own.validation is None:
            return True
        same = found_in(validation.contents, prepared.train.contents)
        if same.all():
            self.problems.add(
                own.validation.where,
                None,
                f"every one of the {len(validation)} validation rows is a training row too, so they would measure what was learned by heart",
                Reason.VALIDATION_LEAKS,
            )
            return False
        self._leak(f"stage {report.name} validation", validation, report.name, prepared.train)
        return True

    def _leak(self, measured: str, rows: RowSet, stage: str, training: RowSet) -> None:
        found = leak(measured, rows, stage, training)
        if found is not None:
            self.leaks.append(found)
            self.warnings.append(
                f"{measured}: {found.input} of {len(rows)} rows ({found.share:.1%}) have an input that stage {stage} trains on "
                f"({found.exact} with the same answer); the first is {found.examples[0]}"
            )

    def _has_rows(self, sources: list[SourceReport], name: str, task: Task) -> bool:
        """Adds NothingSupervised where no row is left to use."""
        if sum(source.rows for source in sources):
            return True
        read = sum(source.read_rows for source in sources)
        length = task.options.max_length
        if long := sum(source.dropped_long for source in sources):
            why = f"{long} of {read} rows are longer than maxLength {length}, and overflow is drop"
        elif cut := sum(source.dropped_unsupervised for source in sources):
            why = f"{cut} of {read} rows have no token to learn"
            if task.objective is Objective.SUPERVISED:
                why = (
                    f"in {cut} of {read} rows the prompt alone fills the first {length} tokens (training.maxLength), so no answer is left: "
                    "raise it, or shorten the prompts"
                )
        else:
            why = f"all {read} rows are blank"
        self.problems.add(task.where, None, f"{name} has nothing to learn from: {why}", Reason.NOTHING_SUPERVISED)
        return False

    def _part_labels(self, source: SourceReport) -> list[str]:
        labels: list[str] = open_part(source, self.folder, None).meta["labels"]
        return labels

    def _stage_labels(self, stage: Stage, train: list[SourceReport], where: str) -> list[str] | None:
        """The manifest's; else those of the classification stage before, if they cover this one's; else the training rows', sorted."""
        own = {label for source in train for label in self._part_labels(source)}
        if stage.data.labels:
            labels = list(stage.data.labels)
        elif self._labels is not None and own <= set(self._labels):
            labels = self._labels
        else:
            labels = sorted(own)
        if len(labels) < 2:
            self.problems.add(where, None, f"all training rows have the label {labels[0]!r}: a classifier needs at least two")
            return None
        missing = [label for label in labels if label not in own]
        if missing:
            self.warnings.append(f"stage {stage.name}: no training row has the label {missing[0]!r} ({len(missing)} such label(s))")
        self._labels = labels
        return labels

    def _usable(self, source: SourceReport, labels: list[str] | None, task: Task, name: str) -> bool:
        """Whether a measured source has rows, and only labels that are known; adds what is wrong, by file and line."""
        if not self._has_rows([source], name, task):
            return False
        if labels is None:
            return True
        part = open_part(source, self.folder, None)
        rows = RowSet([part])
        unknown = {number: label for number, label in enumerate(part.meta["labels"]) if label not in labels}
        for row in np.flatnonzero(np.isin(rows.labels, list(unknown))).tolist():
            file, line = rows.where(row).rsplit(":", 1)
            message = f"label {unknown[rows.label(row)]!r} does not occur in the training data, so it can't be predicted"
            self.problems.add(file, int(line), message, Reason.LABEL_UNKNOWN)
        return not unknown

    def _warn(self, name: str, report: SetReport) -> None:
        if report.truncated_share > 0:
            self.warnings.append(f"{name}: {report.truncated_share:.1%} of the rows are cut to maxLength")
        if report.dropped_share > 0:
            self.warnings.append(f"{name}: {report.dropped_share:.1%} of the rows are dropped: too long, or nothing left to learn in them")
        if report.exact_duplicates:
            self.warnings.append(f"{name}: {report.exact_duplicates} of {report.rows} rows repeat an earlier one exactly")
