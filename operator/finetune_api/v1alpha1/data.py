"""Where rows come from, which columns are read, and what happens to rows that are too long."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.types import Column, Label, Name, Revision, Share, Uri


class DataFormat(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"


class Overflow(StrEnum):
    TRUNCATE = "truncate"
    DROP = "drop"
    REFUSE = "refuse"


class Source(ApiModel):
    """Files of rows: one file, a folder, or a glob."""

    uri: Uri
    """A file, a folder or a glob: `file://data/*.jsonl`, `pvc://CLAIM/path`, or `hf://datasets/OWNER/NAME/path`. A relative `file://` path is relative to the manifest. Example: pvc://data/support/*.jsonl"""
    format: Annotated[DataFormat, Field(strict=False)] | None = None
    """jsonl, csv, parquet or text (plain text, one document a file; documents are split at maxLength). Default: by the file's ending. Example: jsonl"""
    revision: Revision | None = None
    """Commit, tag or branch of an `hf://` repository. Default: the newest commit, resolved once and recorded. Example: main"""
    credentials: Name | None = None
    """The name, in spec.references.secrets, of the Secret with a token for the hub. Default: none. Example: hub"""


class TrainSource(Source):
    weight: Annotated[float, Field(gt=0, le=1000)] | None = None
    """The share of this source among the stage's sources, relative to the other weights: a share of tokens (of rows for classification). Sources are repeated or thinned to meet it. Default: every row once. Example: 0.9"""
    replay: bool | None = None
    """Whether these rows are of what the model knows already and has to keep; their weight is below 1. ewc learns from them what matters. Default: false. Example: true"""


class AugmentationType(StrEnum):
    TYPOS = "typos"
    CASE = "case"
    WORD_DROP = "wordDrop"
    WORD_SWAP = "wordSwap"


class Augmentation(ApiModel):
    """Changed copies of training rows, beside them."""

    type: Annotated[AugmentationType, Field(strict=False)]
    """typos (a slip in a word), case (a word in upper, lower or title case), wordDrop (a word is left out) or wordSwap (a word changes places with the next). Example: typos"""
    probability: Annotated[float, Field(gt=0, le=1)] | None = None
    """How probable it is that a word is changed. Default: 0.1. Example: 0.1"""
    copies: Annotated[int, Field(ge=1, le=100)] | None = None
    """Copies of each row, each changed anew. Default: 1. Example: 2"""


class Columns(ApiModel):
    """The names that the columns have in the file, where they differ from the defaults."""

    text: Column | None = None
    """Plain text (language modelling; classification). Default: text. Example: body"""
    prompt: Column | None = None
    """What the model is given (supervised). Default: prompt. Example: question"""
    completion: Column | None = None
    """What the model shall say (supervised). Default: completion. Example: answer"""
    messages: Column | None = None
    """A chat: a list of {role, content} (supervised). Default: messages. Where a row has messages, prompt and completion are not read. Example: conversation"""
    label: Column | None = None
    """The class (classification). Default: label. Example: intent"""
    domain: Column | None = None
    """The row's domain, which its features shall not tell (regularization dann). No default. Example: source"""
    confounder: Column | None = None
    """What goes with the class by accident: features shall not tell it beside the class (regularization dann). No default. Example: hospital"""


GROUPS: Final = ("domain", "confounder")
"""The columns that dann reads."""


class Validation(ApiModel):
    """Rows that are measured during training and never trained on: a share of the training rows, or a source of their own."""

    fraction: Share | None = None
    """The share of the training rows, chosen by a hash of the row's content, so that it stays the same when rows are added. Example: 0.02"""
    uri: Uri | None = None
    """A source of validation rows. Example: file://data/dev.jsonl"""
    format: Annotated[DataFormat, Field(strict=False)] | None = None
    """As for training sources. Default: by the file's ending. Example: jsonl"""
    revision: Revision | None = None
    """As for training sources. Example: main"""
    credentials: Name | None = None
    """As for training sources. Example: hub"""


class DataSpec(ApiModel):
    train: Annotated[list[TrainSource], Field(min_length=1, max_length=c.MAX_SOURCES)]
    """The training rows, from 1 to 64 sources. Example: [{uri: pvc://data/train.jsonl}]"""
    columns: Columns = Columns()
    """The names of the columns in the files. Default: text, prompt, completion, messages, label. Example: {prompt: question, completion: answer}"""
    augmentation: Annotated[list[Augmentation], Field(min_length=1, max_length=c.MAX_AUGMENTATIONS)] | None = None
    """Changed copies of the training rows: of the text, or of the prompt and what the user says; answers and labels stay. Seeded by spec.seed. Default: none. Example: [{type: typos, probability: 0.1}]"""
    overflow: Annotated[Overflow, Field(strict=False)] = Overflow.TRUNCATE
    """What happens to rows longer than training.maxLength tokens: truncate, drop, or refuse (the job fails before a GPU is taken). Counted in the data report. Example: drop"""
    validation: Validation | None = None
    """Rows to validate on. Default: none. Example: {fraction: 0.02}"""
    labels: Annotated[list[Label], Field(min_length=2, max_length=c.MAX_LABELS)] | None = None
    """The classes in their order (classification). Default: the labels of the training rows, sorted. Example: [billing, delivery, other]"""


class SuiteData(Source):
    columns: Columns = Columns()
    """The names of the columns in the files. Default: text, prompt, completion, messages, label. Example: {prompt: question, completion: answer}"""
