"""KL(anchor ‖ model): nothing at the start, and the anchor's logits from the model itself where its adapter can be turned off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from finetune_api.v1alpha1.regularization import Anchor
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.wire import Activity
from finetune_trainer.engine.losses import token_logits
from finetune_trainer.guards.kl import Kl, adapter_off
from finetune_trainer.handover import hand_over
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.test_losses import CAUSAL as COLLATOR
from tests.unit.engine.test_losses import EVERY, ROWS
from tests.unit.guards.runs import assert_exact, guarded, stopped_and_resumed
from tests.unit.models.cases import CAUSAL, build, job, outputs, train

GUARD = {"type": "kl", "strength": 2.0}


class StandInTrainer:
    """As much of a trainer as the guard asks for."""

    def __init__(self, model: Any) -> None:
        import contextlib

        self.model = model
        self.accelerator = self
        self.autocast = contextlib.nullcontext


CASES: dict[str, tuple[tuple[tuple[str, str, str | None], ...], Anchor, bool]] = {
    "full": ((("full", CAUSAL, None),), Anchor.BASE, False),
    "partial": ((("partial", CAUSAL, None),), Anchor.BASE, False),
    "lora": ((("lora", CAUSAL, None),), Anchor.BASE, True),
    "dora": ((("dora", CAUSAL, None),), Anchor.BASE, True),
    "pissa": ((("pissa", CAUSAL, None),), Anchor.BASE, False),
    "lora on a merged one, the base": ((("lora", CAUSAL, "merge"), ("lora", CAUSAL, None)), Anchor.BASE, False),
    "lora on a merged one, its start": ((("lora", CAUSAL, "merge"), ("lora", CAUSAL, None)), Anchor.STAGE_START, True),
    "lora on a stack, the base": ((("lora", CAUSAL, "stack"), ("lora", CAUSAL, None)), Anchor.BASE, False),
    "lora on a stack, its start": ((("lora", CAUSAL, "stack"), ("lora", CAUSAL, None)), Anchor.STAGE_START, True),
    "lora that trains on": ((("lora", CAUSAL, "continue"), ("lora", CAUSAL, None)), Anchor.BASE, False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_divergence_from_the_anchor_in_every_place(case: str, tiny_llama: Path) -> None:
    stages, anchor, without_copy = CASES[case]
    spec, start = job(*stages), Start.base(tiny_llama)
    for index in range(len(stages) - 1):
        start = hand_over(train(build(start, spec, index)), spec.stages[index].hand_over)  # type: ignore[arg-type]
    model = build(start, spec, len(stages) - 1)
    reference = build(Start.base(tiny_llama) if anchor is Anchor.BASE else start, spec, len(stages) - 1)
    options = Options.model_validate({"type": "kl", "strength": 2.0, "anchor": anchor.value})
    guard = Kl(options, model, tokenizer=load_tokenizer(tiny_llama, spec), seed=0, where="here")
    guard.begin(StandInTrainer(model.module))  # type: ignore[arg-type]
    (note,) = guard.notes()
    assert ("with its adapter off" in note) is without_copy, note
    batch = COLLATOR(ROWS, EVERY)
    model.module.eval()
    if anchor is Anchor.STAGE_START or len(stages) == 1:
        at_start = guard.term(model.module, batch, token_logits(model.module, batch))
        assert float(at_start.detach()) == pytest.approx(0.0, abs=1e-6 if case != "pissa" else 1e-3)
    train(model, seed=2)
    model.module.eval()
    wanted = [name for name, parameter in model.module.named_parameters() if parameter.requires_grad]
    logits = token_logits(model.module, batch)
    term = guard.term(model.module, batch, logits)
    with torch.no_grad():
        log_p = functional.log_softmax(token_logits(reference.module.eval(), batch), -1)
        log_q = functional.log_softmax(logits, -1)
    assert float(term.detach()) == pytest.approx(2.0 * float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-3)
    assert float(term.detach()) > 0
    assert term.requires_grad
    assert wanted == [name for name, parameter in model.module.named_parameters() if parameter.requires_grad], "as it was"


def test_with_its_adapter_off_a_stack_is_its_start_or_the_base(tiny_llama: Path) -> None:
    spec = job(("lora", CAUSAL, "stack"), ("lora", CAUSAL, None))
    start = hand_over(train(build(Start.base(tiny_llama), spec, 0)), spec.stages[0].hand_over)  # type: ignore[arg-type]
    model, base = build(start, spec, 1), build(Start.base(tiny_llama), spec, 0)
    at_start = outputs(model.module).logits
    train(model, seed=3)
    with adapter_off(model.module, whole=False):
        assert torch.equal(outputs(model.module).logits, at_start)
    with adapter_off(model.module, whole=True):
        assert torch.equal(outputs(model.module).logits, outputs(base.module).logits)
    assert not torch.equal(outputs(model.module).logits, at_start)


@pytest.mark.parametrize(
    ("kind", "objective"), [("llama", "supervised"), ("lora", "causalLanguageModeling"), ("bert", "maskedLanguageModeling")]
)
def test_the_stronger_it_is_the_nearer_the_model_stays(kind: str, objective: str, tmp_path: Path) -> None:
    ends, said = [], []
    for strength in (0.01, 10.0):
        guard, training = {"type": "kl", "strength": strength}, {"optimizer": "adamw", "learningRate": 1e-2, "maxSteps": 10}

        def heard(activity: Activity, report: dict[str, Any]) -> None:
            said.append(report.get("message") or "")

        run = train_tiny(tmp_path / f"{strength}", guarded(guard, training=training, objective=objective), kind=kind, on_report=heard)
        assert run.curve[0]["guards"]["kl"] == pytest.approx(0.0, abs=1e-5)
        ends.append(run.curve[-1]["guards"]["kl"] / strength)
    assert ends[1] < 0.5 * ends[0]
    assert any("guard kl: the anchor's logits come from a second copy of the model: a forward pass more, and" in text for text in said)


@pytest.mark.parametrize("kind", ["llama", "lora"])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(kind: str, tmp_path: Path) -> None:
    planned = guarded(GUARD, training={"optimizer": "adamw", "learningRate": 1e-3})
    assert_exact(*stopped_and_resumed(tmp_path, planned, 3, kind=kind, dropout=0.2))
