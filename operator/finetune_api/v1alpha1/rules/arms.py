"""Rules about what a job trains more than once: with several seeds, and directly from the base for a comparison."""

from __future__ import annotations

from typing import Final

from finetune_api.v1alpha1.rules.rule import Rule

_SEVERAL: Final = "(has(self.seeds) && size(self.seeds) > 1)"
_LAST: Final = "self.stages[size(self.stages) - 1].data"
_CHOOSES_BY: Final = f"has({_LAST}.validation) && has({_LAST}.validation.uri) && suite.data.uri == {_LAST}.validation.uri"

RULES: Final = (
    Rule(
        scopes=("spec",),
        field="seeds",
        holds="!has(self.seed) || !has(self.seeds)",
        message="the seed is given twice",
        instead="write one of seed and seeds",
    ),
    Rule(
        scopes=("spec",),
        each="stages[-1]",
        field="data.validation",
        holds=f"!{_SEVERAL} || has(it.data.validation)",
        message="which of several seeds is published is chosen on the last stage's validation rows, and there are none",
        instead="add data.validation: {fraction: 0.1} or data.validation: {uri: …}, or write one seed",
    ),
    Rule(
        scopes=("spec",),
        each="evaluation.gates[]",
        field="suite",
        holds=f"!{_SEVERAL} || !has(self.evaluation.suites) || !self.evaluation.suites.exists(suite, suite.name == it.suite && {_CHOOSES_BY})",
        message="the seed would be chosen on the rows that this gate judges: the last stage validates on them",
        instead="gate a suite of other rows, or write another source in the last stage's data.validation",
    ),
    Rule(
        scopes=("spec",),
        each="stages[]",
        field="compareWith",
        holds="!has(it.compareWith) || it.name != self.stages[0].name",
        message="before the first stage there is nothing to leave out: it starts from the base itself",
        instead="write compareWith on a later stage, or leave it out",
    ),
    Rule(
        scopes=("spec",),
        field="stages",
        holds="size(self.stages.filter(stage, has(stage.compareWith))) < 2",
        message="more than one stage has compareWith",
        instead="keep compareWith on the stage that the job is for, or make two jobs",
    ),
    Rule(
        scopes=("spec",),
        each="stages[]",
        field="compareWith",
        holds="!has(it.compareWith) || (has(self.evaluation) && has(self.evaluation.suites) && self.evaluation.suites.exists(suite, suite.objective == it.objective))",
        message="no suite measures what this stage learns",
        instead="add a suite with the stage's objective to evaluation.suites, or leave compareWith out",
    ),
)
