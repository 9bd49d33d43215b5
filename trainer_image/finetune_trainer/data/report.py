"""prepare.json: what `prepare` found in the data, and where it put the tokenised rows. Written by `prepare`, read by the trainer and the report.

Hashes are SHA-256 in hexadecimal, lengths are tokens, shares are between 0 and 1.
"""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import WireModel

VERSION = 2
"""Counts up when the meaning of a field or of the cached rows changes; what an older version prepared is prepared again."""


class Histogram(WireModel):
    """Rows by their length in tokens, before truncation. Bucket i holds lengths from edges[i] up to edges[i + 1] - 1."""

    edges: list[int] = []
    counts: list[int] = []


class Problem(WireModel):
    """A row, a file or a source that can't be used."""

    where: str
    """The file, or the field of the manifest."""
    lines: list[int] = []
    """Counted from 1 (rows, for parquet); the first thousand."""
    message: str
    count: int = 1
    """Rows that have it."""


class FileRecord(WireModel):
    path: str
    sha256: str
    bytes: int
    notes: list[str] = []
    """Such as: starts with a byte-order mark, which was skipped."""


class SourceReport(WireModel):
    """One source of one stage or suite."""

    uri: str
    field: str
    """Where it stands in the manifest. Example: spec.stages[0].data.train[1]"""
    format: str
    revision: str | None = None
    """The commit that an hf:// source was resolved to."""
    sha256: str
    """Over the hashes of its files, in their order."""
    files: list[FileRecord] = []
    key: str
    """Folder of the tokenised rows under prepared/ (or the shared cache)."""
    weight: float | None = None
    read_rows: int = 0
    """Rows in the files; documents for plain text."""
    rows: int = 0
    """Rows that are used (plain text: chunks of maxLength)."""
    tokens: int = 0
    supervised: int = 0
    """Tokens that are predicted and counted in the loss."""
    truncated: int = 0
    """Rows cut to maxLength."""
    tokens_cut: int = 0
    dropped_long: int = 0
    """Rows dropped because they are longer than maxLength (overflow: drop)."""
    dropped_unsupervised: int = 0
    """Rows dropped because truncation left nothing to learn from."""
    dropped_empty: int = 0
    """Blank rows of language modelling."""
    augmented: int = 0
    """Changed copies among the rows (data.augmentation)."""
    histogram: Histogram = Histogram()


class SetReport(WireModel):
    """Rows as they are used: the training or validation rows of a stage, or a suite."""

    rows: int = 0
    tokens: int = 0
    mean_length: float = 0.0
    longest: int = 0
    supervised_share: float = 0.0
    truncated_share: float = 0.0
    dropped_share: float = 0.0
    histogram: Histogram = Histogram()
    exact_duplicates: int = 0
    """Rows that are an exact repetition of an earlier one."""
    classes: dict[str, int] = {}
    """Rows a class (classification)."""


class Leak(WireModel):
    """Rows of a measured set that also stand in training data."""

    measured: str
    """The set. Example: suite in-domain, or stage task validation"""
    stage: str
    """The stage whose training rows were searched."""
    exact: int
    """Rows with the same content."""
    input: int
    """Rows with the same prompt (supervised) or text (otherwise), whatever the answer."""
    share: float
    """input / rows of the measured set."""
    examples: list[str] = []
    """Where the first of them stand."""


class StageReport(WireModel):
    name: str
    objective: str
    max_length: int
    labels: list[str] | None = None
    sources: list[SourceReport]
    validation_source: SourceReport | None = None
    validation_fraction: float | None = None
    train: SetReport
    validation: SetReport | None = None
    epoch_rows: int = 0
    """Rows of one epoch after mixing weights."""
    epoch_tokens: int = 0
    shares: list[float] = []
    """What each source is of the epoch: a share of tokens (of rows for classification)."""


class SuiteReport(WireModel):
    name: str
    objective: str
    max_length: int
    labels: list[str] | None = None
    source: SourceReport | None = None
    """None where the suite isn't applicable: this tokenizer can't give its rows, whatever the weights are."""
    rows: SetReport = SetReport()


class TokenizerReport(WireModel):
    sha256: str
    """Of all that decides how text becomes tokens, template included."""
    folder: str
    """Under prepared/."""
    vocabulary: int
    pad_token: str
    pad_why: str
    end_tokens: list[int] = []
    """Ids that end an answer."""
    chat_template: bool = False


class ModelReport(WireModel):
    uri: str
    folder: str
    """The folder on this machine, or the .gguf file."""
    commit: str | None = None
    """What an hf:// model was resolved to."""
    revision: str | None = None
    """The commit of the hub, or the hash of the model's files."""
    max_length: int | None = None
    """The longest row that the model takes; None where it doesn't say."""


class ClassifierReport(WireModel):
    """A trained classifier that judges the answers of a stage."""

    stage: str
    field: str
    """Where it stands in the manifest. Example: spec.stages[0].training.earlyStopping.classifier"""
    uri: str
    folder: str
    commit: str | None = None
    """What an hf:// classifier was resolved to."""
    sha256: str
    """Over the hashes of its files, in their order."""


class PrepareReport(WireModel):
    version: int = VERSION
    config_hash: str = ""
    inputs: str = ""
    """What this was made from: while it is the same, nothing has to be prepared again."""
    model: ModelReport | None = None
    tokenizer: TokenizerReport | None = None
    classifiers: list[ClassifierReport] = []
    stages: list[StageReport] = []
    suites: list[SuiteReport] = []
    leaks: list[Leak] = []
    warnings: list[str] = []
    """Sentences for people: leakage, truncation, tiny sets, missing end tokens."""
    errors: list[Problem] = []
    """The first of them; errorCount has them all."""
    error_count: int = 0
    seconds: float = Field(default=0.0, description="How long the preparation took.")

    def sources(self) -> list[SourceReport]:
        """Every source of every stage and suite, in the manifest's order."""
        stages = [source for stage in self.stages for source in (*stage.sources, stage.validation_source) if source is not None]
        return [*stages, *(suite.source for suite in self.suites if suite.source is not None)]
