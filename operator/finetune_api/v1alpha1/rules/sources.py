"""Rules about where things lie: models, training rows, validation rows, suites, and the folder of the result."""

from __future__ import annotations

from typing import Final

from finetune_api.v1alpha1.rules.rule import Rule

TRAIN: Final = "spec.stages[].data.train[]"
VALIDATION: Final = "spec.stages[].data.validation"
SUITE: Final = "spec.evaluation.suites[].data"
MODEL: Final = "spec.model"
CLASSIFIER: Final = "spec.stages[].training.earlyStopping.classifier"
OUTPUT: Final = "spec.output"
_FILE: Final = "file://."
_CLAIM: Final = "pvc://[a-z0-9][-a-z0-9]*(/|$)"
_HUB: Final = "[^/]+/[^/]+"
_TABULAR: Final = "self.objective in ['supervised', 'classification']"


def _form(scope: str, pattern: str, message: str, instead: str) -> Rule:
    return Rule(
        scopes=(scope,),
        field="uri",
        holds=f"!has(self.uri) || self.uri.matches('^({_FILE}|{_CLAIM}{pattern})')",
        message=message,
        instead=f"write {instead}; there is no other kind yet",
    )


def _known_secret(each: str) -> Rule:
    """A warning: a cluster's runtime may give Secrets too, and the operator, which knows them, refuses what neither gives."""
    return Rule(
        scopes=("spec",),
        each=each,
        field="credentials",
        holds="!has(it.credentials) || (has(self.references) && has(self.references.secrets) && self.references.secrets.exists(secret, secret.name == it.credentials))",
        message="names no Secret of this job",
        instead="add {name, secretName} to spec.references.secrets, or write the name of one that is there or that the runtime gives",
        choices="self.references.secrets.map(secret, secret.name)",
        warning=True,
    )


def _rows(scope: str, each: str, columns: str) -> tuple[Rule, ...]:
    """Rules on the rows of one objective: a stage's, or a suite's."""

    def unused(column: str, allowed: str, instead: str) -> Rule:
        return Rule(
            scopes=(scope,),
            each=columns,
            field=column,
            holds=f"!has(it.{column}) || self.objective in [{allowed}]",
            message="this objective reads no such column",
            instead=instead,
        )

    language, supervised, classes = "'causalLanguageModeling', 'maskedLanguageModeling'", "'supervised'", "'classification'"
    return (
        unused("text", f"{language}, {classes}", "for supervised name columns.prompt and columns.completion, or columns.messages"),
        *(
            unused(column, supervised, "leave it out (language modelling reads text; classification reads text and label)")
            for column in ("prompt", "completion", "messages")
        ),
        unused("label", classes, "leave it out, or write objective: classification"),
        Rule(
            scopes=(scope,),
            each=each,
            field="format",
            holds=f"!has(it.format) || it.format != 'text' || !({_TABULAR})",
            message="plain text has no columns, and this objective needs them",
            instead="give the rows as jsonl, csv or parquet",
        ),
    )


_ROWS_FORM: Final = (
    f"|hf://datasets/{_HUB}",
    "this names no rows",
    "file://PATH, pvc://CLAIM/PATH or hf://datasets/OWNER/NAME/PATH",
)
_MODEL_FORM: Final = (f"|hf://[^/]+$|hf://{_HUB}$", "this names no model", "file://PATH, pvc://CLAIM/PATH or hf://OWNER/NAME")

RULES: Final = (
    *(_form(scope, *_MODEL_FORM) for scope in (MODEL, CLASSIFIER)),
    Rule(
        scopes=(MODEL, CLASSIFIER),
        field="uri",
        holds="!has(self.uri) || !self.uri.matches('^hf://[^/]+$')",
        message="the owner is missing",
        instead="write hf://OWNER/NAME, both as the hub shows them",
    ),
    *(_form(scope, *_ROWS_FORM) for scope in (TRAIN, VALIDATION, SUITE)),
    _form(OUTPUT, "", "a result cannot be written there", "file://PATH or pvc://CLAIM/PATH"),
    Rule(
        scopes=(MODEL, CLASSIFIER, TRAIN, VALIDATION, SUITE),
        field="revision",
        holds="!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
        message="only a repository of the hub has revisions",
        instead="leave revision out, or write a uri that begins with hf://",
    ),
    Rule(
        scopes=(MODEL, CLASSIFIER, TRAIN, VALIDATION, SUITE),
        field="credentials",
        holds="!has(self.credentials) || (has(self.uri) && self.uri.startsWith('hf://'))",
        message="credentials are for the hub only",
        instead="leave credentials out, or write a uri that begins with hf://",
    ),
    Rule(
        scopes=(MODEL, CLASSIFIER, TRAIN, VALIDATION, SUITE, OUTPUT),
        field="uri",
        holds="!has(self.uri) || self.uri.startsWith('file://') || !(self.uri.contains('/../') || self.uri.endsWith('/..'))",
        message="a path may not lead out of its claim or repository",
        instead="write the path without '..'",
    ),
    Rule(
        scopes=(VALIDATION,),
        holds="has(self.fraction) != has(self.uri)",
        message="validation rows are either a share of the training rows or a source of their own",
        instead="write one of validation.fraction and validation.uri",
    ),
    Rule(
        scopes=(VALIDATION,),
        field="format",
        holds="!has(self.format) || has(self.uri)",
        message="a share of the training rows has their format",
        instead="leave format out, or write validation.uri",
    ),
    Rule(
        scopes=("spec.stages[].data",),
        field="train",
        holds="self.train.all(source, has(source.weight)) || !self.train.exists(source, has(source.weight))",
        message="some sources have a weight and some have none",
        instead="write a weight for each source, or for none (every row once)",
    ),
    Rule(
        scopes=("spec.stages[].data",),
        field="augmentation",
        holds="!has(self.augmentation) || self.train.all(source, source.?format.orValue('jsonl') != 'text')",
        message="plain text is cut in rows after it is read, and has none to copy",
        instead="give the rows as jsonl, csv or parquet, or leave augmentation out",
    ),
    Rule(
        scopes=("spec.stages[]",),
        each="data",
        field="labels",
        holds="!has(it.labels) || self.objective == 'classification'",
        message="only classification has labels",
        instead="leave labels out, or write objective: classification",
    ),
    *_rows("spec.stages[]", "data.train[]", "data.columns"),
    _rows("spec.stages[]", "data.validation", "data.columns")[-1],
    *_rows("spec.evaluation.suites[]", "data", "data.columns"),
    _known_secret("model"),
    _known_secret("stages[].training.earlyStopping.classifier"),
    _known_secret("stages[].data.train[]"),
    _known_secret("stages[].data.validation"),
    _known_secret("evaluation.suites[].data"),
    Rule(
        scopes=(OUTPUT,),
        field="retain",
        holds="!has(self.retain) || self.retain != 'Never' || !has(self.uri)",
        message="a job never deletes what lies in a place that is not its own",
        instead="write retain: Always, or leave output.uri out, so that the operator makes the claim",
    ),
)
