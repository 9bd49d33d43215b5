"""Manifests that both judges take."""

from __future__ import annotations

from typing import Final

from finetune_api.v1alpha1.method import TABLE, MethodType
from tests.builders import Document, edited, job, stage
from tests.manifests.cases import CLASSES, JOB, MASKED, VALIDATION, chain, gated

VALID: Final[dict[str, Document]] = {
    "two stages with suites and gates": JOB,
    "the least that a job can be": job(stage("only")),
    "nulls for what is left out": edited(
        JOB,
        {
            "spec.model.chatTemplate": None,
            "spec.tokenizer": {"addTokens": [], "padToken": None},
            "spec.ttlSecondsAfterFinished": None,
            "spec.stages[0].training": {"packing": None, "warmupSteps": None},
        },
    ),
    "whole numbers where fractions may stand": edited(
        JOB, {"spec.stages[0].training": {"learningRate": 1, "numTrainEpochs": 3, "weightDecay": 0}}
    ),
    "full before lora": chain("full continue", "lora"),
    **{f"{method} alone": chain(method) for method in TABLE if method is not MethodType.LORA},
    "a prompt continued by the same prompt": chain("promptTuning continue", "promptTuning"),
    "a bottleneck adapter continued by the same": chain("adapter continue", "adapter"),
    "ia3 merged before full": chain("ia3 merge", "full"),
    "an adaptive lora merged before another": chain("aflora merge", "adalora"),
    "lora with its kin": edited(
        JOB,
        {
            "spec.stages[1].method.lora": {
                "rankPattern": {"q_proj": 32},
                "alphaPattern": {"q_proj": 64},
                "initialization": "orthogonal",
                "loraPlusRatio": 16,
                "layersToTransform": [0, 1],
                "modulesToSave": ["lm_head"],
            }
        },
    ),
    "full in bf16 with groups and a guard": edited(
        chain("full"),
        {
            "spec.stages[0].method.full": {
                "weights": "bf16",
                "groups": [{"parameters": ["*norm*"], "learningRateFactor": 2}, {"parameters": ["*embed*"], "weightDecay": 0.1}],
            },
            "spec.stages[0].training": {"optimizer": "adamw", "mixedPrecision": "bf16"},
            "spec.stages[0].regularization": [{"type": "kl", "strength": 1}],
        },
    ),
    "partial by depth before partial by share": edited(
        chain("partial continue", "partial"),
        {"spec.stages[0].method.partial": {"lastLayers": 2}, "spec.stages[1].method.partial": {"share": 0.2}},
    ),
    "EVA with its options": edited(JOB, {"spec.stages[1].method.lora": {"initialization": "eva", "rho": 1.5, "initializationRows": 64}}),
    "CorDA that keeps what is replayed": edited(
        JOB,
        {
            "spec.stages[1].method.lora": {"initialization": "corda", "cordaMode": "knowledgePreserved"},
            "spec.stages[1].data.train": [{"uri": "file://a", "weight": 0.9}, {"uri": "file://b", "weight": 0.1, "replay": True}],
        },
    ),
    "headOnly before full": chain("headOnly continue", "full"),
    "partial before partial": chain("partial continue", "partial"),
    "lora continued by the same lora": chain("lora continue", "lora"),
    "lora continued by the same lora, defaults written out": edited(
        chain("lora continue", "lora"),
        {"spec.stages[1].method.lora": {"r": 16, "alpha": 32, "targetModules": ["all-linear"], "initialization": "default", "dora": False}},
    ),
    "lora merged before full": chain("lora merge", "full"),
    "three stacked": chain("lora stack", "lora dora stack", "lora pissa"),
    "a stack of plain adapters as one adapter": edited(chain("lora stack", "lora r8"), {"spec.output": {"format": ["adapter", "merged"]}}),
    "a stack of rsLoRA and PiSSA as one adapter": edited(
        chain("lora rsLora stack", "lora pissa"), {"spec.output": {"format": ["adapter"]}}
    ),
    "an adapter after a merged DoRA and a plain stack": edited(
        chain("lora dora merge", "lora stack", "lora"), {"spec.output": {"format": ["adapter"]}}
    ),
    "validation, early stopping and the best weights": edited(
        JOB, {**VALIDATION, "spec.stages[0].training.earlyStopping": {"patience": 2}, "spec.stages[0].handOverWeights": "best"}
    ),
    "a share of a merged change": edited(chain("lora merge", "full"), {"spec.stages[0].handOverScale": 0.7}),
    "nothing of the weights that were trained": edited(chain("gradual continue", "lora"), {"spec.stages[0].handOverScale": 0}),
    "a share that validation rows choose": edited(
        chain("full continue", "lora"),
        {"spec.stages[0].handOverScaleBy": "validation", "spec.stages[1].data.validation": {"fraction": 0.1}},
    ),
    "sources of every kind": edited(
        JOB,
        {
            "spec.model": {"uri": "pvc://models/base"},
            "spec.references": {
                "secrets": [{"name": "hub", "secretName": "hub-token"}],
                "claims": [{"name": "models", "claimName": "team-models"}],
            },
            "spec.stages[0].data.train": [
                {"uri": "hf://datasets/owner/name/*.parquet", "revision": "main", "credentials": "hub", "weight": 0.9},
                {"uri": "file://../texts/*.txt", "format": "text", "weight": 0.1},
            ],
            "spec.output": {"uri": "pvc://results/x", "retain": "Always"},
        },
    ),
    "chat columns": edited(JOB, {"spec.stages[1].data.columns": {"messages": "turns"}}),
    "masked language modelling before classification": edited(
        MASKED, {"spec.stages[0].training": {"mlmProbability": 0.2}, "spec.stages[1].data.labels": ["yes", "no"]}
    ),
    "a gate on a second classification stage": gated(CLASSES, "classification", "f1Macro", relativeTo="previousStage"),
    "a gate on the classes that an earlier stage learned": gated(
        job(stage("classes", "classification", handOver="merge"), stage("text")), "classification", relativeTo="previousStage"
    ),
    "a language-model gate after classification": gated(
        job(stage("domain", handOver="merge"), stage("classes", "classification")), "causalLanguageModeling", "perplexity"
    ),
    "no baseline, gates between stages": edited(
        gated(job(stage("a", handOver="merge"), stage("b")), "causalLanguageModeling", relativeTo="previousStage"),
        {"spec.evaluation.baseline": False},
    ),
    "retain: Never on the operator's own claim": edited(JOB, {"spec.output": {"retain": "Never"}}),
    "sgd": edited(JOB, {"spec.stages[0].training": {"optimizer": "sgd", "learningRate": 1e-3}}),
}
