"""Manifests that break a rule about guards, and some with guards that both judges take."""

from __future__ import annotations

from typing import Any, Final

from tests.builders import Document, edited
from tests.manifests.cases import CLASSES, JOB, VALIDATION, Broken

AT: Final = "spec.stages[0].regularization"
L2SP: Final = {"type": "l2sp", "strength": 0.01}
EWC: Final = {"type": "ewc", "strength": 100}
REPLAY: Final = [{"uri": "file://new.jsonl", "weight": 0.9}, {"uri": "file://old.jsonl", "weight": 0.1, "replay": True}]
TRAIN: Final = "spec.stages[0].data.train"
DANN: Final = {"type": "dann", "strength": 1}
DOMAIN: Final = "spec.stages[0].data.columns.domain"
CONFOUNDER: Final = "spec.stages[0].data.columns.confounder"
SUITE: Final = "spec.evaluation.suites[0].data.columns"
KL: Final = {"type": "kl", "strength": 0.1}
MIXOUT: Final = {"type": "mixout", "probability": 0.1}
SPIKE: Final = {"type": "lossSpike", "action": "skip"}
FULL: Final = edited(JOB, {"spec.stages[0].method": {"type": "full"}, "spec.stages[0].handOver": "continue"})
PROMPT: Final = edited(
    JOB,
    {
        "spec.stages[0].method": {"type": "promptTuning"},
        "spec.stages[0].handOver": "continue",
        "spec.stages[1].method": {"type": "promptTuning"},
    },
)
STOP: Final = "spec.stages[1].training.earlyStopping"
SUPERVISED: Final = {"spec.stages[1].data.validation": {"fraction": 0.1}, "spec.stages[1].evalSteps": 5}
JUDGED: Final = {"metric": "eval_instruction_following", "classifier": {"uri": "file://answers"}}
IA3: Final = edited(JOB, {"spec.stages[0].method": {"type": "ia3"}})


def _broken(name: str, guard: dict[str, Any], at: str, says: str, base: Document = JOB) -> Broken:
    return Broken(name, {AT: [guard]}, f"{AT}[0]{at}", says, base=base)


GUARD_SHAPES: Final = (
    Broken("no guard in the list", {AT: []}, AT, "at least 1"),
    _broken("an unknown guard", {"type": "l1"}, ".type", "l2sp"),
    _broken("a strength of nothing", {"type": "l2sp", "strength": 0}, ".strength", "greater than 0"),
    _broken("mixout of everything", {"type": "mixout", "probability": 1}, ".probability", "less than 1", base=FULL),
    Broken(
        "an augmentation of another kind",
        {"spec.stages[0].data.augmentation": [{"type": "synonyms"}]},
        "spec.stages[0].data.augmentation[0].type",
        "wordSwap",
    ),
    Broken(
        "smoothing away the target",
        {"spec.stages[0].training": {"labelSmoothingFactor": 1}},
        "spec.stages[0].training.labelSmoothingFactor",
        "less than 1",
    ),
)
"""What the schema refuses by itself."""

GUARDS: Final = (
    Broken("a guard twice", {AT: [L2SP, L2SP]}, f"{AT}[1].type", "this type is taken by regularization[0]"),
    _broken("l2sp without a strength", {"type": "l2sp"}, ".type", "this guard needs its strength"),
    _broken("kl without a strength", {"type": "kl"}, ".type", "this guard needs its strength"),
    _broken("kl with a probability", {**KL, "probability": 0.1}, ".probability", "leave probability out; it is for mixout"),
    _broken("kl to a head that the base lacks", KL, ".type", "no head for these classes", base=CLASSES),
    _broken("kl to what no prompt says", KL, ".type", "leave kl out", base=PROMPT),
    _broken("l2sp of vectors", L2SP, ".type", "use one of the methods full, gradual, partial, headOnly, lora", base=IA3),
    _broken(
        "ewc of vectors", EWC, ".type", "use one of the methods full, gradual, partial, headOnly, lora", base=edited(IA3, {TRAIN: REPLAY})
    ),
    _broken("mixout of an adapter", MIXOUT, ".type", "use one of the methods full, gradual, partial, headOnly"),
    _broken("mixout of what share", {"type": "mixout"}, ".type", "this guard needs its probability", base=FULL),
    _broken("a spike without an action", {"type": "lossSpike"}, ".type", "this guard needs its action"),
    _broken("the anchor of a spike", {**SPIKE, "anchor": "base"}, ".anchor", "leave anchor out; it is for ewc, kl, l2sp, mixout"),
    _broken("the rate of a step that is left out", {**SPIKE, "factor": 0.5}, ".factor", "write action: lower"),
    _broken("how long a step is left out", {**SPIKE, "steps": 5}, ".steps", "write action: lower"),
    _broken("dann without a column of domains", DANN, ".type", "write data.columns.domain"),
    Broken(
        "dann in packed lines",
        {AT: [DANN], DOMAIN: "site", "spec.stages[0].training.packing": True},
        f"{AT}[0].type",
        "leave training.packing out",
    ),
    Broken(
        "dann over frozen features",
        {AT: [DANN], DOMAIN: "site", "spec.stages[0].method": {"type": "headOnly"}, "spec.stages[0].handOver": "continue"},
        f"{AT}[0].type",
        "use a method that trains the model's layers",
    ),
    Broken("dann by a prompt", {AT: [DANN], DOMAIN: "site"}, f"{AT}[0].type", "use a method that trains the model's layers", base=PROMPT),
    Broken("a domain that nobody reads", {DOMAIN: "site"}, DOMAIN, "add {type: dann, strength: 0.1}"),
    Broken("a confounder that nobody reads", {AT: [KL], CONFOUNDER: "year"}, CONFOUNDER, "add {type: dann, strength: 0.1}"),
    Broken("a suite's domain", {f"{SUITE}.domain": "site"}, f"{SUITE}.domain", "leave it out"),
    Broken("a suite's confounder", {f"{SUITE}.confounder": "site"}, f"{SUITE}.confounder", "leave it out"),
    _broken("the anchor of dann", {**DANN, "anchor": "base"}, ".anchor", "leave anchor out", base=edited(JOB, {DOMAIN: "site"})),
    _broken("ewc without anchor data", EWC, ".type", "add a source of it to data.train, with replay: true"),
    Broken("replay above 1", {TRAIN: [REPLAY[0], {**REPLAY[1], "weight": 1.5}]}, f"{TRAIN}[1].weight", "weight: 0.1"),
    Broken("replay of all", {TRAIN: [REPLAY[0], {**REPLAY[1], "weight": 1}]}, f"{TRAIN}[1].weight", "a share of all tokens, below 1"),
    Broken("nothing but replay", {TRAIN: [REPLAY[1]]}, TRAIN, "add a source without replay: true"),
    Broken("replay of how much", {TRAIN: [{"uri": "file://a"}, {"uri": "file://b", "replay": True}]}, f"{TRAIN}[1].weight", "0.1"),
    Broken(
        "augmenting plain text",
        {"spec.stages[0].data.augmentation": [{"type": "typos"}], "spec.stages[0].data.train[0].format": "text"},
        "spec.stages[0].data.augmentation",
        "give the rows as jsonl, csv or parquet",
    ),
    Broken(
        "early stopping on the precision of a text",
        {**VALIDATION, "spec.stages[0].training.earlyStopping": {"metric": "eval_precision_macro"}},
        "spec.stages[0].training.earlyStopping.metric",
        "eval_perplexity, eval_token_accuracy for the others",
    ),
    Broken(
        "an Instruction Following Score of a text",
        {**VALIDATION, "spec.stages[0].training.earlyStopping": JUDGED},
        "spec.stages[0].training.earlyStopping.metric",
        "or eval_instruction_following for supervised",
    ),
    Broken(
        "an Instruction Following Score that nobody judges",
        {**SUPERVISED, STOP: {"metric": "eval_instruction_following"}},
        f"{STOP}.metric",
        "add classifier: {uri: …, label: …}",
    ),
    *(
        Broken(f"{field} for a loss", {**SUPERVISED, STOP: {field: value}}, f"{STOP}.{field}", "write metric: eval_instruction_following")
        for field, value in (("classifier", {"uri": "file://answers"}), ("prompts", 8), ("maxNewTokens", 8))
    ),
    *(
        Broken(f"a classifier {name}", {**SUPERVISED, STOP: {**JUDGED, "classifier": classifier}}, f"{STOP}.classifier.{field}", says)
        for name, classifier, field, says in (
            ("of another kind", {"uri": "s3://x"}, "uri", "write file://PATH, pvc://CLAIM/PATH or hf://OWNER/NAME"),
            ("without an owner", {"uri": "hf://x"}, "uri", "the owner is missing"),
            ("outside of its claim", {"uri": "pvc://models/../x"}, "uri", "write the path without '..'"),
            ("of a folder's revision", {"uri": "pvc://models/x", "revision": "main"}, "revision", "only a repository of the hub"),
            ("with a folder's token", {"uri": "pvc://models/x", "credentials": "hf"}, "credentials", "credentials are for the hub only"),
        )
    ),
    *(
        _broken(f"{field} for {guard['type']}", {**guard, field: value}, f".{field}", f"leave {field} out; it is for")
        for guard, field, value in (
            (SPIKE, "strength", 1),
            (L2SP, "samples", 5),
            (L2SP, "action", "skip"),
            (L2SP, "window", 20),
            (L2SP, "deviations", 3),
            (L2SP, "factor", 0.5),
            (L2SP, "steps", 5),
        )
    ),
)

GUARDED: Final[dict[str, Document]] = {
    "guards side by side": edited(
        JOB,
        {
            AT: [L2SP, KL, {**SPIKE, "action": "lower", "factor": 0.5, "steps": 20, "window": 100, "deviations": 4}],
            "spec.stages[0].training": {"labelSmoothingFactor": 0.1, "neftuneNoiseAlpha": 5},
        },
    ),
    "ewc with replay": edited(JOB, {AT: [{**EWC, "anchor": "stageStart", "samples": 100}], TRAIN: REPLAY}),
    "replay alone": edited(JOB, {TRAIN: REPLAY}),
    "augmented copies": edited(
        JOB, {"spec.stages[0].data.augmentation": [{"type": "typos"}, {"type": "case", "copies": 2, "probability": 0.5}]}
    ),
    "early stopping by perplexity": edited(JOB, {**VALIDATION, "spec.stages[0].training.earlyStopping": {"metric": "eval_perplexity"}}),
    "early stopping by the Instruction Following Score": edited(
        JOB,
        {
            **SUPERVISED,
            STOP: {**JUDGED, "prompts": 16, "maxNewTokens": 32, "classifier": {"uri": "hf://a/b", "revision": "main", "label": "response"}},
        },
    ),
    "dann by a domain": edited(JOB, {AT: [DANN], DOMAIN: "site"}),
    "dann by a domain and a confounder": edited(JOB, {AT: [DANN], DOMAIN: "site", CONFOUNDER: "year"}),
    "dann by a confounder": edited(JOB, {AT: [DANN], CONFOUNDER: "year"}),
    "mixout of all weights": edited(FULL, {AT: [{**MIXOUT, "anchor": "stageStart"}]}),
    "l2sp in every method": edited(FULL, {AT: [L2SP], "spec.stages[1].regularization": [{**L2SP, "anchor": "stageStart"}]}),
}
