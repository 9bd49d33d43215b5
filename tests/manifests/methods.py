"""Manifests that break a rule about a method and its options."""

from __future__ import annotations

from typing import Final

from finetune_api.v1alpha1.method import TABLE
from finetune_api.v1alpha1.methods.common import Targeted
from tests.builders import REQUIRED, job, stage
from tests.manifests.cases import Broken

BF16: Final = {"type": "full", "full": {"weights": "bf16"}}

STARTS: Final = tuple(
    Broken(
        name,
        {"spec.stages[0].method": {"type": "lora", "lora": options}},
        f"spec.stages[0].method.lora.{field}",
        says,
    )
    for name, options, field, says in (
        ("rows for a start without data", {"initializationRows": 64}, "initializationRows", "write initialization: eva or corda"),
        ("a rho without EVA", {"initialization": "corda", "rho": 2}, "rho", "write initialization: eva"),
        ("a mode of CorDA for EVA", {"initialization": "eva", "cordaMode": "instructionPreviewed"}, "cordaMode", "initialization: corda"),
        ("knowledge that nothing shows", {"initialization": "corda", "cordaMode": "knowledgePreserved"}, "cordaMode", "replay: true"),
    )
)

METHODS: Final = (
    *STARTS,
    Broken("lora's options for full", {"spec.stages[1].method": {"type": "full", "lora": {}}}, "spec.stages[1].method.lora", "type: lora"),
    Broken(
        "partial's options for full",
        {"spec.stages[1].method": {"type": "full", "partial": {"trained": ["a"]}}},
        "spec.stages[1].method.partial",
        "type: partial",
    ),
    *(
        Broken(f"{method} of what", {"spec.stages[1].method": {"type": method}}, "spec.stages[1].method.type", f"add {method}")
        for method in REQUIRED
    ),
    *(
        Broken(
            f"{method}'s options for headOnly",
            {"spec.stages[1].method": {"type": "headOnly", **REQUIRED.get(method, {method: {}})}},
            f"spec.stages[1].method.{method}",
            f"type: {method}",
        )
        for method, row in TABLE.items()
        if row.options is not None
    ),
    *(
        Broken(
            f"all-linear and more for {method}",
            {"spec.stages[1].method": {"type": method, method: {"targetModules": ["all-linear", "q_proj"]}}},
            f"spec.stages[1].method.{method}.targetModules",
            "[all-linear] alone",
        )
        for method, row in TABLE.items()
        if row.options is not None and issubclass(row.options, Targeted)
    ),
    *(
        Broken(
            f"all-linear for {method}",
            {"spec.stages[1].method": {"type": method, method: {"targetModules": ["all-linear"]}}},
            f"spec.stages[1].method.{method}.targetModules",
            "all-linear is for methods that change the matrices of linear modules: write names of modules, or leave targetModules out",
        )
        for method in ("ia3", "lnTuning")
    ),
    Broken(
        "a prompt for a masked language model",
        {},
        "spec.stages[0].objective",
        "choose another method",
        base=job(stage("masked", "maskedLanguageModeling", "promptTuning")),
    ),
    *(
        Broken(
            f"a partial of {name}",
            {"spec.stages[1].method": {"type": "partial", "partial": options}},
            "spec.stages[1].method.partial",
            "write one of partial.trained, partial.frozen, partial.lastLayers and partial.share",
        )
        for name, options in (("nothing", {}), ("a depth and a share", {"lastLayers": 2, "share": 0.5}))
    ),
    Broken(
        "a group like all others",
        {"spec.stages[1].method": {"type": "full", "full": {"groups": [{"parameters": ["*norm*"]}]}}},
        "spec.stages[1].method.full.groups[0].learningRateFactor",
        "add learningRateFactor or weightDecay",
    ),
    Broken(
        "a pattern twice in a group",
        {"spec.stages[1].method": {"type": "full", "full": {"groups": [{"parameters": ["a", "a"], "weightDecay": 0}]}}},
        "spec.stages[1].method.full.groups[0].parameters[1]",
        "take one of the two out",
    ),
    *(
        Broken(
            f"bf16 weights with {value}",
            {"spec.stages[1].method": BF16, f"spec.stages[1].{field}": [{"type": value, "strength": 1}] if "[" in at else value},
            f"spec.stages[1].{at or field}",
            says,
        )
        for field, value, at, says in (
            ("training.optimizer", "sgd", "", "only adamw rounds stochastically"),
            ("training.mixedPrecision", "no", "", "weights in bf16 compute in bf16"),
            ("regularization", "l2sp", "regularization[0].type", "is lost between two numbers of bf16"),
        )
    ),
    Broken(
        "a schedule by steps and epochs",
        {"spec.stages[1].method": {"type": "gradual", "gradual": {"everySteps": 5, "everyEpochs": 1}}},
        "spec.stages[1].method.gradual",
        "write one of gradual.everySteps and gradual.everyEpochs",
    ),
    Broken(
        "ranks that grow",
        {"spec.stages[1].method": {"type": "adalora", "adalora": {"targetR": 12}}},
        "spec.stages[1].method.adalora.targetR",
        "below initR",
    ),
    Broken(
        "no step to prune in",
        {"spec.stages[1].method": {"type": "adalora", "adalora": {"finalShare": 0.9}}},
        "spec.stages[1].method.adalora.finalShare",
        "less than 1 together",
    ),
    Broken(
        "a quantised base that shall be trained itself",
        {"spec.stages[1].method": {"type": "full", "full": {"quantization": "nf4"}}},
        "spec.stages[1].method.full.quantization",
        "there is no such field",
        pruned=True,
    ),
    Broken(
        "int8 whose scales shall be quantised too",
        {"spec.stages[1].method": {"type": "qlora", "qlora": {"quantization": "int8", "doubleQuantization": True}}},
        "spec.stages[1].method.qlora.doubleQuantization",
        "leave doubleQuantization out",
    ),
    Broken(
        "a start that makes up for nf4, on int8",
        {"spec.stages[1].method": {"type": "qlora", "qlora": {"quantization": "int8", "initialization": "loftq"}}},
        "spec.stages[1].method.qlora.initialization",
        "write quantization: nf4",
    ),
    Broken(
        "iterations of a start that is not asked for",
        {"spec.stages[1].method": {"type": "qlora", "qlora": {"loftqIterations": 5}}},
        "spec.stages[1].method.qlora.loftqIterations",
        "write initialization: loftq",
    ),
    Broken(
        "DoRA where a library loses the scales",
        {"spec.stages[1].method": {"type": "qlora", "qlora": {"quantization": "int8", "dora": True}}},
        "spec.stages[1].method.qlora.dora",
        "impossible (tried)",
    ),
    Broken(
        "a granularity that does not divide the rank",
        {"spec.stages[1].method": {"type": "gralora", "gralora": {"r": 32, "k": 3}}},
        "spec.stages[1].method.gralora.k",
        "a k that divides r",
    ),
    Broken(
        "reflections without their twin",
        {"spec.stages[1].method": {"type": "hra", "hra": {"r": 7}}},
        "spec.stages[1].method.hra.r",
        "write an even number",
    ),
    Broken(
        "a rank that an orthogonal start cannot halve",
        {"spec.stages[1].method": {"type": "lora", "lora": {"r": 7, "initialization": "orthogonal"}}},
        "spec.stages[1].method.lora.r",
        "write an even number",
    ),
    Broken(
        "a quantised base's rank that an orthogonal start cannot halve",
        {"spec.stages[1].method": {"type": "qlora", "qlora": {"r": 7, "initialization": "orthogonal"}}},
        "spec.stages[1].method.qlora.r",
        "write an even number",
    ),
    Broken(
        "a text that is not asked for",
        {"spec.stages[1].method": {"type": "promptTuning", "promptTuning": {"text": "Define"}}},
        "spec.stages[1].method.promptTuning.text",
        "write initialization: text and text together",
    ),
    Broken(
        "a text that is not given",
        {"spec.stages[1].method": {"type": "promptTuning", "promptTuning": {"initialization": "text"}}},
        "spec.stages[1].method.promptTuning.text",
        "write initialization: text and text together",
    ),
    Broken(
        "packed rows behind a prompt",
        {"spec.stages[1].method": {"type": "prefixTuning"}, "spec.stages[1].training.packing": True},
        "spec.stages[1].training.packing",
        "leave packing out",
    ),
    Broken(
        "a prefix before layers that are recomputed",
        {"spec.stages[1].method": {"type": "prefixTuning"}, "spec.stages[1].training": {"gradientCheckpointing": True}},
        "spec.stages[1].training.gradientCheckpointing",
        "impossible (tried): a layer that is recomputed",
    ),
    Broken(
        "partial of both",
        {"spec.stages[1].method": {"type": "partial", "partial": {"trained": ["a"], "frozen": ["b"]}}},
        "spec.stages[1].method.partial",
        "write one of",
    ),
    Broken(
        "a module twice",
        {"spec.stages[1].method.lora.targetModules": ["q_proj", "q_proj"]},
        "spec.stages[1].method.lora.targetModules[1]",
        "targetModules[0] says this already: take one of the two out",
    ),
)
