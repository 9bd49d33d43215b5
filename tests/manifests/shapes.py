"""Manifests with one field of a wrong name, type or size."""

from __future__ import annotations

from typing import Final

from tests.builders import LEFT_OUT
from tests.manifests.cases import Broken, chain

SHAPES: Final = (
    Broken("a misspelt field", {"spec.stages[0].traning": {}}, "spec.stages[0].traning", "did you mean training?", pruned=True),
    Broken(
        "a field in snake case",
        {"spec.stages[0].training.learning_rate": 1e-4},
        "spec.stages[0].training.learning_rate",
        "did you mean learningRate?",
        pruned=True,
    ),
    Broken(
        "a field one level too high",
        {"spec.stages[0].learningRate": 1e-4},
        "spec.stages[0].learningRate",
        "it belongs in spec.stages[].training, as learningRate",
        pruned=True,
    ),
    Broken("a field that is like no other", {"spec.model.zzz": 1}, "spec.model.zzz", "the fields here are uri, revision", pruned=True),
    Broken(
        "a number as text",
        {"spec.seed": "7"},
        "spec.seed",
        'a whole number is needed here, and this is the text "7": write 7 without quotes',
    ),
    Broken(
        "a size as text",
        {"spec.stages[0].training.perDeviceTrainBatchSize": "8"},
        "spec.stages[0].training.perDeviceTrainBatchSize",
        "write 8 without quotes",
    ),
    Broken(
        "a number without a dot",
        {"spec.stages[0].training.learningRate": "2e-5"},
        "spec.stages[0].training.learningRate",
        "write 2.0e-05 without quotes",
    ),
    Broken("a fraction where a whole number is needed", {"spec.seed": 1.5}, "spec.seed", "write a whole number"),
    Broken("a text where a list is needed", {"spec.stages": "domain"}, "spec.stages", "write a list"),
    Broken(
        "one metric without a list",
        {"spec.evaluation.suites[0].metrics": "loss", "spec.evaluation.gates": []},
        "spec.evaluation.suites[0].metrics",
        "write [loss]",
    ),
    Broken(
        "all-linear without a list",
        {"spec.stages[1].method": {"type": "lora", "lora": {"targetModules": "all-linear"}}},
        "spec.stages[1].method.lora.targetModules",
        "write [all-linear]",
    ),
    Broken("a list where a mapping is needed", {"spec.model": ["a"]}, "spec.model", "write fields under it"),
    Broken("yes for true", {"spec.stages[0].training.packing": "yes"}, "spec.stages[0].training.packing", "write true or false"),
    Broken(
        "an objective off by a letter",
        {"spec.stages[0].objective": "causalLanguageModelling"},
        "spec.stages[0].objective",
        "did you mean causalLanguageModeling?",
    ),
    Broken("a share above one", {"spec.stages[0].handOverScale": 1.5}, "spec.stages[0].handOverScale", "1.5"),
    Broken("a share that is a word", {"spec.stages[0].handOverScale": "validation"}, "spec.stages[0].handOverScale", "number"),
    Broken("a share by training rows", {"spec.stages[0].handOverScaleBy": "train"}, "spec.stages[0].handOverScaleBy", "validation"),
    Broken("a method that is none", {"spec.stages[0].method.type": "magic"}, "spec.stages[0].method.type", "is not one of full, gradual"),
    *(
        Broken(f"{field} {value}", {f"spec.stages[0].method.lora.{field}": value}, f"spec.stages[0].method.lora.{field}", says)
        for field, value, says in (("alpha", 0, "greater than 0"), ("alpha", -1, "greater than 0"), ("r", 0, "at least 1"))
    ),
    Broken("a negative number", {"spec.stages[0].training.maxGradNorm": -1}, "spec.stages[0].training.maxGradNorm", "of at least 0"),
    Broken(
        "an absurd learning rate",
        {"spec.stages[0].training.learningRate": 50},
        "spec.stages[0].training.learningRate",
        "a number of at most 10 (2e-5 to 1e-3 is usual)",
    ),
    Broken("a rate of zero", {"spec.stages[0].training.learningRate": 0}, "spec.stages[0].training.learningRate", "greater than 0"),
    Broken("no stages", {"spec.stages": [], "spec.evaluation": {}}, "spec.stages", "this is empty: write at least 1 entry"),
    Broken("seventeen stages", {}, "spec.stages", "at most 16 entries", base=chain(*["full continue"] * 16, "full")),
    Broken("no model", {"spec.model": LEFT_OUT}, "spec.model", "this field is required"),
    Broken("a model that is null", {"spec.model": None}, "spec.model", "it is empty (null): give model a value"),
    Broken("no spec", {"spec": LEFT_OUT}, "spec", "this field is required"),
    Broken("a name with capitals", {"metadata.name": "My_Job"}, "metadata.name", "lower-case letters"),
    Broken("a name of 64 characters", {"metadata.name": "a" * 64}, "metadata.name", "at most 63 characters"),
    Broken(
        "a stage's name with a space",
        {"spec.stages[1].name": "my task", "spec.evaluation": {}},
        "spec.stages[1].name",
        "lower-case letters",
    ),
    Broken("a URI of 2,000 characters", {"spec.model.uri": "file://" + "a" * 2000}, "spec.model.uri", "at most 1024 characters"),
)
