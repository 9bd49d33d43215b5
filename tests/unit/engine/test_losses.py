"""Loss and gradients are the model's own, to rounding, whatever stands before and after its output layer, and however rows are batched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Batch, Collator, Masking, Packing
from finetune_trainer.engine.losses import gathered, token_logits, token_losses
from finetune_trainer.engine.trainer import batch_logits, batch_loss
from tests.unit.engine.tiny_models import VOCABULARY, FakeRows, gradients, model

ROWS = FakeRows([7, 12, 3, 9, 5, 11])
EVERY = list(range(len(ROWS)))
CAUSAL = Collator(Objective.SUPERVISED, pad_id=0)
MASKING = Masking(mask_id=4, vocabulary=VOCABULARY, special_ids=frozenset(range(5)), probability=0.3, seed=7)
MASKED = Collator(Objective.MASKED_LANGUAGE_MODELING, pad_id=0, masking=MASKING)


def labels_of(batch: Batch, *, shifted: bool) -> torch.Tensor:
    """The batch's predictions as the labels that transformers' models take."""
    shape = batch.inputs["input_ids"].shape
    labels = torch.full(shape, -100).flatten()
    labels[batch.where + int(shifted)] = batch.targets
    return labels.view(shape)


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys() != set()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma2", "granite", "opt", "bloom", "lora", "lora on the head", "bert"])
def test_loss_and_gradients_are_those_of_the_model_itself(kind: str) -> None:
    net = model(kind).eval()
    batch = (MASKED if kind == "bert" else CAUSAL)(ROWS, EVERY)
    theirs = net(**batch.inputs, labels=labels_of(batch, shifted=kind != "bert")).loss
    theirs.backward()
    expected = gradients(net)
    ours = batch_loss(batch_logits(net, batch, CAUSAL.objective), batch) / batch.predictions
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=2e-6)
    assert largest_difference(gradients(net), expected) < 2e-6
    assert token_losses(net, batch).nll.mean().item() == pytest.approx(theirs.item(), abs=2e-6)


class HeadWithoutModule(nn.Module):
    """A model that projects with its weight alone: the hook on its output layer never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model("llama")

    def get_output_embeddings(self) -> nn.Module:
        return nn.Linear(32, VOCABULARY)

    def forward(self, **inputs: torch.Tensor) -> object:
        return self.inner(**inputs)


def test_a_model_that_does_not_call_its_output_layer_is_slower_and_not_different() -> None:
    batch = CAUSAL(ROWS, EVERY)
    with torch.no_grad():
        assert torch.equal(token_logits(HeadWithoutModule(), batch), token_logits(model("llama"), batch))


def test_only_what_predicts_is_projected() -> None:
    net = model("llama")
    seen: list[torch.Size] = []
    net.get_submodule("lm_head").register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    batch = CAUSAL(ROWS, EVERY)
    token_losses(net, batch)
    assert seen == [(1, batch.predictions, VOCABULARY)]
    assert batch.predictions < batch.inputs["input_ids"].numel()


def test_the_hook_is_gone_after_an_error() -> None:
    net = model("llama")
    with pytest.raises(ZeroDivisionError), gathered(net, torch.tensor([0]), 8):
        raise ZeroDivisionError
    assert net(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.shape == (1, 4, VOCABULARY)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "opt"])
def test_every_token_is_scored_the_same_alone_and_in_company(kind: str) -> None:
    net = model(kind).eval()
    with torch.no_grad():
        together = token_losses(net, CAUSAL(ROWS, EVERY))
        alone = [token_losses(net, CAUSAL(ROWS, [index])) for index in EVERY]
    for index, single in enumerate(alone):
        mine = together.row == index
        assert torch.allclose(together.nll[mine], single.nll, atol=2e-6)
        assert torch.equal(together.correct[mine], single.correct)


@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_packed_documents_have_the_loss_and_gradients_of_single_ones(kind: str, packing: Packing) -> None:
    net = model(kind).eval()
    batch_loss(batch_logits(net, CAUSAL(ROWS, EVERY), CAUSAL.objective), CAUSAL(ROWS, EVERY)).backward()
    expected = gradients(net)
    packed = Collator(Objective.SUPERVISED, pad_id=0, packing=packing).packed(ROWS, [[0, 1], [3, 2, 4], [5]])
    batch_loss(batch_logits(net, packed, CAUSAL.objective), packed).backward()
    assert packed.ids == [ROWS.id(index) for index in (0, 1, 3, 2, 4, 5)]
    assert largest_difference(gradients(net), expected) < 2e-5


@pytest.mark.parametrize("kind", ["llama classifier", "bert classifier"])
def test_the_loss_of_classes_is_the_model_s_own(kind: str) -> None:
    net = model(kind).eval()
    batch = Collator(Objective.CLASSIFICATION, pad_id=0)(ROWS, EVERY)
    theirs = net(**batch.inputs, labels=batch.targets).loss
    ours = batch_loss(batch_logits(net, batch, Objective.CLASSIFICATION), batch) / batch.predictions
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
