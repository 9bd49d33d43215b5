"""What a method cannot do with a model is said by the model's names and shapes, before a weight is loaded: one line for each mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_api.v1alpha1.evaluation import Evaluation
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.support import Family
from finetune_trainer.data.models import Limits
from finetune_trainer.data.tasks import tasks
from finetune_trainer.modeling.sketch import method_problems
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.methods.table import method, spec

BERT, GPT2, LLAMA = Family.BERT, Family.GPT2, Family.LLAMA
REFUSED = [
    ("a rank above the matrix's size", LLAMA, method("lora", r=64), "lora.r", "rank 64 is above that of model.layers.0.self_attn.k_proj, a matrix of 32 × 64: at most 32"),
    ("one of the ranks", LLAMA, method("lora", rankPattern={"k_proj": 40}), "lora.rankPattern", "rank 40 is above that of"),
    ("the rank of a relative", LLAMA, method("loha", r=40), "loha.r", "at most 32"),
    ("a rank that an orthogonal start cannot halve", LLAMA, method("lora", r=5, initialization="orthogonal"), "lora.r", "write an even one"),
    ("modules that match nothing", LLAMA, method("lora", targetModules=["q_prj"]), "lora.targetModules", "'q_prj' is no linear module of this model's backbone; there are q_proj, "),
    ("modules of another architecture", GPT2, method("ia3", targetModules=["k_proj"]), "ia3.targetModules", "there are c_proj, c_fc, c_attn"),
    ("a pattern for a module without an adapter", LLAMA, method("lora", targetModules=["q_proj"], rankPattern={"k_proj": 2}), "lora.rankPattern", "there are q_proj"),
    ("a layer that is not there", LLAMA, method("lora", layersToTransform=[7]), "lora.layersToTransform", "this model has layers 0 to 1"),
    ("a head that is tied", LLAMA, method("lora", modulesToSave=["lm_head"]), "lora.modulesToSave", "tied to the model's input embeddings"),
    ("blocks that do not divide", LLAMA, method("oft", blockSize=48), "oft.blockSize", "48 does not divide the 64 inputs of model.layers.0.self_attn.q_proj: 16, 32, 64"),
    ("a granularity that does not divide", LLAMA, method("gralora", r=12, k=3), "gralora.k", "3 does not divide the 64 inputs"),
    ("more coefficients than entries", LLAMA, method("fourierft", nFrequency=5000), "fourierft.nFrequency", "4096 entries, fewer than 5000"),
    ("a norm that is none", LLAMA, method("lnTuning", targetModules=["q_proj"]), "lnTuning.targetModules", "no norm of this model's backbone; there are "),
    ("a place that the architecture lacks", BERT, method("adapter", place="parallel"), "adapter.place", "write houlsby or pfeiffer"),
    ("a token that is none", LLAMA, method("trainableTokens", tokens=["zebra"]), "trainableTokens.tokens", "is no token of this model's vocabulary, which writes it as 'z'"),
    ("an unfreezing that never ends", LLAMA, method("gradual", everySteps=10), "gradual.everySteps", "would end after 20 steps, and the stage ends after 20: write less than 10"),
    ("an unfreezing that takes too many epochs", LLAMA, method("gradual", everyEpochs=2), "gradual.everyEpochs", "would end after 20 steps, and the stage ends after 20: write less than 2"),
    ("ranks that are never pruned", LLAMA, method("adalora", warmupShare=0.6, finalShare=0.38), "adalora.warmupShare", "20 optimizer steps leave none in which ranks could be pruned"),
    ("matrices that never freeze", LLAMA, method("aflora", initialSteps=14, finalShare=0.3), "aflora.initialSteps", "all matrices shall be frozen after step 14 of 20"),
    ("one decision about ranks", LLAMA, method("adalora", interval=14), "adalora.interval", "pruned after step 2 (warmupShare) and until step 14 (finalShare), and no multiple of 14 lies between them: all would be cut at once: write an interval of at most 11"),
    ("matrices that freeze before they have scores", LLAMA, method("aflora"), "aflora.finalShare", "frozen after step 6 of 20 (finalShare 0.7), and the scores that say which goes first are there after step 10: write less than 0.5, or train for 34 optimizer steps or more"),
    ("every linear module where vectors are trained", LLAMA, method("ia3", targetModules=["all-linear"]), "ia3.targetModules", "'all-linear' is no linear module"),
    ("a linear module among the norms", LLAMA, method("lnTuning", targetModules=["q_proj"]), "lnTuning.targetModules", "'q_proj' is no norm"),
    ("a prompt before a decoder's classifier", LLAMA, method("promptTuning"), "type", "cannot tell the row's last token from padding"),
    ("a head that trains nothing", LLAMA, method("headOnly"), "type", "tied to its embeddings"),
    ("a relative that needs linear modules", GPT2, method("oft"), "type", "cannot do this with a gpt2 model (tried): PEFT puts it on linear modules only, and GPT-2 keeps its weights turned round (Conv1D); choose another method for it, docs/methods.md has a table"),
    ("a group of nothing", LLAMA, method("full", groups=[{"parameters": ["*embed_tokns*"], "learningRateFactor": 2}]), "full.groups[0].parameters", "'*embed_tokns*' matches no parameter; near it are model.embed_tokens.weight"),
    ("a parameter in two groups", LLAMA, method("full", groups=[{"parameters": ["*.0.*"], "weightDecay": 0}, {"parameters": ["*norm*"], "weightDecay": 0}]), "full.groups[1].parameters", "model.layers.0.input_layernorm.weight is in groups[0] already: a parameter learns at one rate"),
    ("one use of a tied weight", LLAMA, method("partial", trained=["lm_head.*"]), "partial.trained", "matches lm_head.weight alone, which is tied to model.embed_tokens.weight: one weight, that cannot be chosen for one of its two uses"),
    ("more layers than there are", LLAMA, method("partial", lastLayers=2), "partial.lastLayers", "this model has 2 layers: write 1 to 1, or choose `type: full`"),
    ("a share with no room for a layer", LLAMA, method("partial", share=0.1), "partial.share", "are 26.55 % of this model's parameters: write at least 0.2655"),
    ("a pattern without a parameter", LLAMA, method("partial", trained=["layers.9.*"]), "partial.trained", "matches no parameter; near it are"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "method", "field", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_it_is_refused_with_what_would_do(
    architecture: Family, method: dict[str, Any], field: str, says: str, family: Callable[[Family], Path]
) -> None:
    objective = Objective.MASKED_LANGUAGE_MODELING if architecture is BERT else Objective.SUPERVISED
    objective = Objective.CLASSIFICATION if "last token" in says else objective
    wanted = spec((method, objective, None))
    (problem,) = method_problems(family(architecture), wanted.stages, load_tokenizer(family(architecture), wanted), {"stage0": (20, 5)})
    assert problem.reason is Reason.INVALID_SPEC
    assert problem.where == f"spec.stages[0].method.{field}"
    assert says in str(problem)


@pytest.mark.parametrize(
    ("method", "steps", "refused"),
    [
        (method("adalora", interval=11), 20, False),
        (method("adalora", interval=1, warmupShare=0.6, finalShare=0.35), 20, True),
        (method("adalora", interval=1, warmupShare=0.6, finalShare=0.3), 20, False),
        (method("aflora"), 33, True),
        (method("aflora"), 34, False),
        (method("aflora", finalShare=0.5), 20, True),
        (method("aflora", finalShare=0.49), 20, False),
        (method("aflora", finalShare=0), 10, True),
        (method("aflora", finalShare=0), 11, False),
        (method("aflora", finalShare=0.9), 100, True),
        (method("aflora", finalShare=0.9), 101, False),
    ],
    ids=str,
)
def test_a_schedule_that_just_fits(method: dict[str, Any], steps: int, refused: bool, family: Callable[[Family], Path]) -> None:
    """What the messages above ask for is enough, and no more than that."""
    wanted = spec((method, Objective.SUPERVISED, None))
    found = list(method_problems(family(LLAMA), wanted.stages, None, {"stage0": (steps, 5)}))
    assert bool(found) is refused, found


def test_prompts_that_leave_no_room(family: Callable[[Family], Path]) -> None:
    wanted = spec((method("promptTuning", numVirtualTokens=20), Objective.SUPERVISED, None), maxLength=120)
    (problem,) = method_problems(family(GPT2), wanted.stages, None)
    assert problem.where == "spec.stages[0].method.promptTuning.numVirtualTokens"
    assert "longer than the model's 128: lower training.maxLength to 108" in str(problem)


def test_all_stages_are_told_of_at_once(family: Callable[[Family], Path]) -> None:
    wanted = spec(
        (method("lora", r=64), Objective.SUPERVISED, "merge"),
        (method("lora"), Objective.SUPERVISED, "merge"),
        (method("oft", blockSize=48), Objective.SUPERVISED, None),
    )
    problems = list(method_problems(family(LLAMA), wanted.stages, None))
    assert [(problem.stage, problem.where) for problem in problems] == [
        ("stage0", "spec.stages[0].method.lora.r"),
        ("stage2", "spec.stages[2].method.oft.blockSize"),
    ]


def test_rows_are_shorter_by_a_prompt_where_nothing_is_said() -> None:
    """The model's positions are shared out between the two; a suite must fit behind the longest prompt of the job."""
    wanted = spec((method("promptTuning", numVirtualTokens=20), Objective.SUPERVISED, None), (method("full"), Objective.SUPERVISED, None))
    (suite,) = [{"name": "all", "objective": "supervised", "data": {"uri": "file://rows.jsonl"}, "metrics": ["loss"]}]
    evaluated = wanted.model_copy(update={"evaluation": Evaluation.model_validate({"suites": [suite]})})
    found = tasks(evaluated, Limits(hard=128, advised=128))
    assert [stage.train[0].options.max_length for stage in found.stages] == [108, 128]
    assert [task.options.max_length for _, task in found.suites] == [108]
