"""Manifests that break a rule about suites and gates; changes to a job that exists."""

from __future__ import annotations

from typing import Final

from tests.builders import LEFT_OUT, Document, edited, job, stage
from tests.manifests.cases import CLASSES, JOB, MASKED, Broken, Change, chain, gated


def _adapters(*objectives: str) -> Document:
    """Stages of bottleneck adapters, each trained on by the next."""
    last = len(objectives) - 1
    return job(
        *(
            stage(f"s{index}", name, "adapter", **({"handOver": "continue"} if index < last else {}))
            for index, name in enumerate(objectives)
        )
    )


_UNFOLDED: Final = _adapters("supervised", "classification")
_BACK: Final = _adapters("classification", "supervised")
_AGAIN: Final = _adapters("classification", "supervised", "classification")
EVALUATIONS: Final = (
    Broken(
        "two suites with one name",
        {"spec.evaluation.suites[1].name": "in-domain", "spec.evaluation.gates": []},
        "spec.evaluation.suites[1].name",
        "this name is taken by suites[0]",
    ),
    Broken(
        "a metric of another objective",
        {"spec.evaluation.suites[1].metrics[1]": "f1Macro"},
        "spec.evaluation.suites[1].metrics[1]",
        "perplexity",
    ),
    Broken(
        "exact match without a prompt",
        {"spec.evaluation.suites[1].metrics[1]": "exactMatch"},
        "spec.evaluation.suites[1].metrics[1]",
        "exactMatch",
    ),
    Broken(
        "a metric twice",
        {"spec.evaluation.suites[0].metrics": ["loss", "loss"]},
        "spec.evaluation.suites[0].metrics[1]",
        "metrics[0] says this",
    ),
    Broken("tokens for nothing", {"spec.evaluation.suites[1].maxNewTokens": 5}, "spec.evaluation.suites[1].maxNewTokens", "add exactMatch"),
    Broken(
        "labels of a suite of texts", {"spec.evaluation.suites[1].labels": ["a", "b"]}, "spec.evaluation.suites[1].labels", "classification"
    ),
    Broken(
        "a gate on no suite", {"spec.evaluation.gates[0].suite": "in-domian"}, "spec.evaluation.gates[0].suite", "did you mean in-domain?"
    ),
    Broken(
        "a gate on a metric that is not computed",
        {"spec.evaluation.gates[1].metric": "loss"},
        "spec.evaluation.gates[1].metric",
        "add it to the suite's metrics",
    ),
    Broken("a gate after no stage", {"spec.evaluation.gates[1].stage": "tsak"}, "spec.evaluation.gates[1].stage", "did you mean task?"),
    Broken(
        "a gate without a direction",
        {"spec.evaluation.gates[0].minImprovement": LEFT_OUT},
        "spec.evaluation.gates[0]",
        "one of minImprovement",
    ),
    Broken(
        "a gate in both directions",
        {"spec.evaluation.gates[0].maxRegression": {"absolute": 1}},
        "spec.evaluation.gates[0]",
        "one of minImprovement and maxRegression",
    ),
    Broken(
        "an empty improvement", {"spec.evaluation.gates[0].minImprovement": {}}, "spec.evaluation.gates[0].minImprovement", "write one of"
    ),
    Broken(
        "a regression in two units",
        {"spec.evaluation.gates[1].maxRegression": {"absolute": 1, "relative": 1}},
        "spec.evaluation.gates[1].maxRegression",
        "write one of",
    ),
    Broken(
        "a gate against no baseline",
        {"spec.evaluation.baseline": False, "spec.evaluation.gates[1]": LEFT_OUT},
        "spec.evaluation.gates[0].relativeTo",
        "baseline: true",
    ),
    Broken(
        "a gate before which nothing was measured",
        {"spec.evaluation.baseline": False},
        "spec.evaluation.gates[0].relativeTo",
        "judge the gate after a later stage",
        base=gated(job(stage("only")), "causalLanguageModeling", relativeTo="previousStage"),
    ),
    Broken(
        "a gate on classes before there are any",
        {},
        "spec.evaluation.gates[0].stage",
        "no classification stage comes before this gate",
        base=gated(
            job(stage("a", handOver="merge"), stage("text", handOver="merge"), stage("classes", "classification")),
            "classification",
            relativeTo="previousStage",
            stage="text",
        ),
    ),
    Broken("classes against the base", {}, "spec.evaluation.gates[0].relativeTo", "previousStage", base=gated(CLASSES, "classification")),
    Broken(
        "classes against a stage without them",
        {},
        "spec.evaluation.gates[0].relativeTo",
        "no classification head before this stage",
        base=gated(MASKED, "classification", relativeTo="previousStage"),
    ),
    Broken(
        "a causal gate on a masked model",
        {},
        "spec.evaluation.gates[0].suite",
        "masked language model",
        base=gated(MASKED, "causalLanguageModeling"),
    ),
    Broken(
        "a masked gate on a causal model",
        {},
        "spec.evaluation.gates[0].suite",
        "is a causal language model, so",
        base=gated(chain("lora"), "maskedLanguageModeling"),
    ),
    Broken(
        "a gate on texts after an adapter that only goes with classes",
        {},
        "spec.evaluation.gates[0].suite",
        "its own kind of head only",
        base=gated(_UNFOLDED, "supervised"),
    ),
    Broken(
        "a gate on classes after an adapter that only goes with texts",
        {},
        "spec.evaluation.gates[0].suite",
        "its own kind of head only",
        base=gated(_BACK, "classification", relativeTo="previousStage"),
    ),
    Broken(
        "a gate against a stage whose adapter only goes with texts",
        {},
        "spec.evaluation.gates[0].relativeTo",
        "the stage before learns goes with its own",
        base=gated(_AGAIN, "classification", relativeTo="previousStage"),
    ),
    Broken(
        "a gate against a stage whose adapter only goes with classes",
        {},
        "spec.evaluation.gates[0].relativeTo",
        "relativeTo: base",
        base=gated(_BACK, "supervised", relativeTo="previousStage"),
    ),
)
_BUDGETS: Final = edited(JOB, {"spec.retry": {"maxAttempts": 5}, "spec.activeDeadlineSeconds": 100})
CHANGES: Final = (
    Change("nothing", {}, None),
    Change("suspend", {"spec.suspend": True}, None),
    Change("a time to live", {"spec.ttlSecondsAfterFinished": 60}, None),
    Change("more attempts", {"spec.retry": {"maxAttempts": 4}}, None),
    Change("fewer attempts than the default", {"spec.retry": {"maxAttempts": 2}}, "spec.retry"),
    Change("fewer attempts", {"spec.retry.maxAttempts": 4}, "spec.retry", _BUDGETS),
    Change("fewer preemptions", {"spec.retry": {"maxPreemptions": 1}}, "spec.retry"),
    Change("a later deadline", {"spec.activeDeadlineSeconds": 101}, None, _BUDGETS),
    Change("no deadline", {"spec.activeDeadlineSeconds": LEFT_OUT}, None, _BUDGETS),
    Change("an earlier deadline", {"spec.activeDeadlineSeconds": 99}, "spec.activeDeadlineSeconds", _BUDGETS),
    Change("a first deadline", {"spec.activeDeadlineSeconds": 99}, "spec.activeDeadlineSeconds"),
    Change("another model", {"spec.model.uri": "hf://owner/other"}, "spec.model"),
    Change("another learning rate", {"spec.stages[0].training": {"learningRate": 1e-4}}, "spec.stages"),
    Change("a runtime", {"spec.runtimeRef": {"name": "other"}}, "spec.runtimeRef"),
    Change("a token", {"spec.tokenizer": {"addTokens": ["<a>"]}}, "spec.tokenizer"),
    Change("a claim", {"spec.references": {"claims": [{"name": "a", "claimName": "b"}]}}, "spec.references"),
    Change("a seed", {"spec.seed": 1}, "spec.seed"),
    Change("seeds", {"spec.seeds": [1]}, "spec.seeds"),
    Change("no gates", {"spec.evaluation.gates": []}, "spec.evaluation"),
    Change("an output", {"spec.output": {"format": ["merged"]}}, "spec.output"),
)
