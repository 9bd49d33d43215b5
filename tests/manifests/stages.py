"""Manifests that break a rule about sources, a stage, or a hand-over."""

from __future__ import annotations

from typing import Final

from tests.builders import job, stage
from tests.manifests.cases import CLASSES, VALIDATION, Broken, chain


def _pair(name: str, steps: tuple[str, ...], says: str, at: int = 0) -> Broken:
    return Broken(name, {}, f"spec.stages[{at}].handOver", says, base=chain(*steps))


SOURCES: Final = (
    Broken("a bucket", {"spec.model.uri": "s3://bucket/model"}, "spec.model.uri", "there is no other kind yet"),
    Broken("a model without an owner", {"spec.model.uri": "hf://gpt2"}, "spec.model.uri", "the owner is missing: write hf://OWNER/NAME"),
    Broken("a model within a repository", {"spec.model.uri": "hf://owner/name/file"}, "spec.model.uri", "this names no model"),
    Broken(
        "rows from a model's repository",
        {"spec.stages[0].data.train[0].uri": "hf://owner/model"},
        "spec.stages[0].data.train[0].uri",
        "hf://datasets/OWNER/NAME/PATH",
    ),
    Broken(
        "validation rows in a bucket",
        {"spec.stages[0].data.validation": {"uri": "s3://a/b"}},
        "spec.stages[0].data.validation.uri",
        "this names no rows",
    ),
    Broken(
        "a suite in a bucket",
        {"spec.evaluation.suites[0].data.uri": "s3://a/b"},
        "spec.evaluation.suites[0].data.uri",
        "this names no rows",
    ),
    Broken("a result on the hub", {"spec.output": {"uri": "hf://me/model"}}, "spec.output.uri", "a result cannot be written there"),
    Broken("a claim without a name", {"spec.model.uri": "pvc:///models"}, "spec.model.uri", "this names no model"),
    Broken("a way out of the claim", {"spec.output": {"uri": "pvc://a/../b"}}, "spec.output.uri", "without '..'"),
    Broken("the revision of a file", {"spec.model": {"uri": "file://m", "revision": "main"}}, "spec.model.revision", "leave revision out"),
    Broken(
        "credentials for a file",
        {"spec.model": {"uri": "file://m", "credentials": "hub"}, "spec.references": {"secrets": [{"name": "hub", "secretName": "hub"}]}},
        "spec.model.credentials",
        "for the hub only",
    ),
    Broken(
        "two ways to validate",
        {"spec.stages[0].data.validation": {"uri": "file://a", "fraction": 0.1}},
        "spec.stages[0].data.validation",
        "write one of validation.fraction and validation.uri",
    ),
    Broken("no way to validate", {"spec.stages[0].data.validation": {}}, "spec.stages[0].data.validation", "write one of"),
    Broken(
        "the format of a share",
        {"spec.stages[0].data.validation": {"fraction": 0.1, "format": "jsonl"}},
        "spec.stages[0].data.validation.format",
        "has their format",
    ),
    Broken(
        "a weight for one source of two",
        {"spec.stages[0].data.train": [{"uri": "file://a", "weight": 1}, {"uri": "file://b"}]},
        "spec.stages[0].data.train",
        "a weight for each source, or for none",
    ),
    Broken("labels of a text", {"spec.stages[0].data.labels": ["a", "b"]}, "spec.stages[0].data.labels", "objective: classification"),
    Broken("the label of a text", {"spec.stages[0].data.columns.label": "c"}, "spec.stages[0].data.columns.label", "reads no such column"),
    Broken(
        "the prompt of a text", {"spec.stages[0].data.columns.prompt": "c"}, "spec.stages[0].data.columns.prompt", "reads no such column"
    ),
    Broken(
        "the completion of a text",
        {"spec.stages[0].data.columns.completion": "c"},
        "spec.stages[0].data.columns.completion",
        "no such column",
    ),
    Broken(
        "the messages of a text", {"spec.stages[0].data.columns.messages": "c"}, "spec.stages[0].data.columns.messages", "no such column"
    ),
    Broken("the text of a pair", {"spec.stages[1].data.columns.text": "c"}, "spec.stages[1].data.columns.text", "columns.prompt"),
    Broken("plain text for pairs", {"spec.stages[1].data.train[0].format": "text"}, "spec.stages[1].data.train[0].format", "no columns"),
    Broken(
        "plain text to validate pairs",
        {"spec.stages[1].data.validation": {"uri": "file://a", "format": "text"}},
        "spec.stages[1].data.validation.format",
        "no columns",
    ),
    *(
        Broken(
            f"the {column} of a {objective} suite",
            {f"spec.evaluation.suites[{index}].data.columns.{column}": "c"},
            f"spec.evaluation.suites[{index}].data.columns.{column}",
            "no such column",
        )
        for index, objective, columns in ((0, "supervised", ("text", "label")), (1, "text", ("prompt", "completion", "messages")))
        for column in columns
    ),
    Broken(
        "plain text in a suite of pairs",
        {"spec.evaluation.suites[0].data.format": "text"},
        "spec.evaluation.suites[0].data.format",
        "jsonl",
    ),
    Broken("retain: Never elsewhere", {"spec.output": {"uri": "pvc://a/b", "retain": "Never"}}, "spec.output.retain", "retain: Always"),
)

STAGES: Final = (
    Broken(
        "two stages with one name",
        {"spec.stages[1].name": "domain", "spec.evaluation.gates": []},
        "spec.stages[1].name",
        "this name is taken by stages[0]",
    ),
    Broken(
        "masked and causal in one job",
        {"spec.stages[0].objective": "maskedLanguageModeling", "spec.evaluation": {}},
        "spec.stages[0].objective",
        "make two jobs",
    ),
    Broken(
        "two warm-ups",
        {"spec.stages[0].training": {"warmupSteps": 1, "warmupRatio": 0.1}},
        "spec.stages[0].training.warmupRatio",
        "one of warmupSteps and warmupRatio",
    ),
    Broken(
        "two lengths",
        {"spec.stages[0].training": {"maxSteps": 1, "numTrainEpochs": 1}},
        "spec.stages[0].training.maxSteps",
        "one of maxSteps and numTrainEpochs",
    ),
    Broken(
        "packed and grouped",
        {"spec.stages[0].training": {"packing": True, "groupByLength": True}},
        "spec.stages[0].training.groupByLength",
        "one of packing and groupByLength",
    ),
    *(
        Broken(
            f"{name} for sgd",
            {"spec.stages[0].training": {"optimizer": "sgd", name: 0.5}},
            f"spec.stages[0].training.{name}",
            "optimizer: adamw",
        )
        for name in ("adamBeta1", "adamBeta2", "adamEpsilon")
    ),
    Broken("packed classes", {"spec.stages[1].training.packing": True}, "spec.stages[1].training.packing", "does not pack", base=CLASSES),
    Broken("masks in a text", {"spec.stages[0].training.mlmProbability": 0.1}, "spec.stages[0].training.mlmProbability", "masks nothing"),
    Broken("measuring on nothing", {"spec.stages[0].evalSteps": 5}, "spec.stages[0].evalSteps", "add data.validation"),
    Broken(
        "early stopping without validation",
        {"spec.stages[0].training.earlyStopping": {}},
        "spec.stages[0].training.earlyStopping",
        "add data.validation and evalSteps",
    ),
    Broken(
        "early stopping on another objective's metric",
        {**VALIDATION, "spec.stages[0].training.earlyStopping": {"metric": "eval_f1_macro"}},
        "spec.stages[0].training.earlyStopping.metric",
        "eval_token_accuracy",
    ),
    Broken(
        "the best of nothing", {"spec.stages[0].handOverWeights": "best"}, "spec.stages[0].handOverWeights", "add training.earlyStopping"
    ),
)

HAND_OVERS: Final = (
    _pair("no hand-over before another stage", ("lora", "lora"), "must say what the next one starts from"),
    Broken("a hand-over on the last stage", {"spec.stages[1].handOver": "merge"}, "spec.stages[1].handOver", "leave handOver out"),
    *(
        _pair(f"lora continued as {method}", ("lora continue", method), "write handOver: merge")
        for method in ("full", "headOnly", "partial")
    ),
    *(
        _pair(f"{method} handed to another method by {kind}", (f"{method} {kind}", "full"), says)
        for method, kind, says in (
            ("promptTuning", "continue", "make the next stage's method the same"),
            ("promptTuning", "merge", "handOver: continue and the same method"),
            ("ia3", "stack", "write handOver: merge"),
            ("adalora", "continue", "write handOver: merge"),
            ("adapter", "merge", "or make this stage the last"),
        )
    ),
    Broken(
        "a prompt continued by a longer one",
        {},
        "spec.stages[0].handOver",
        "write both methods alike",
        base=job(
            stage("short", method="promptTuning", handOver="continue"),
            {**stage("long"), "method": {"type": "promptTuning", "promptTuning": {"numVirtualTokens": 30}}},
        ),
    ),
    Broken(
        "a prompt merged at the end", {"spec.output": {"format": ["merged"]}}, "spec.output.format", "[adapter]", base=chain("promptTuning")
    ),
    _pair("lora continued by another rank", ("lora continue", "lora r8"), "make both lora blocks equal"),
    _pair("lora continued by another kind", ("lora continue", "lora dora"), "handOver: merge or handOver: stack"),
    _pair("the second of three", ("full continue", "lora continue", "full"), "write handOver: merge", at=1),
    *(_pair(f"{method} merged", (f"{method} merge", "lora"), "write handOver: continue") for method in ("full", "headOnly", "partial")),
    *(
        _pair(f"{method} stacked upon", (f"{method} stack", "lora"), "write handOver: continue")
        for method in ("full", "headOnly", "partial")
    ),
    *(_pair(f"{method} stacked on lora", ("lora stack", method), "write handOver: merge") for method in ("full", "headOnly", "partial")),
    Broken("an adapter of full tuning", {"spec.output": {"format": ["adapter"]}}, "spec.output.format", "[merged]", base=chain("full")),
    *(
        Broken(
            f"a stack with {kind}, as one adapter", {"spec.output": {"format": ["adapter"]}}, "spec.output.format", "[merged]", base=base
        )
        for kind, base in (
            ("DoRA above", chain("lora stack", "lora dora")),
            ("DoRA below", chain("lora dora stack", "lora")),
            ("DoRA after a merge", chain("lora merge", "lora stack", "lora dora continue", "lora dora")),
        )
    ),
    Broken("one format twice", {"spec.output": {"format": ["merged", "merged"]}}, "spec.output.format[1]", "format[0] says this already"),
)
