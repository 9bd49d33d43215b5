"""What was written must be what was trained: it is loaded by `from_pretrained` alone, and its logits are compared on rows of the job's data."""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional

from finetune_api.constants import Reason
from finetune_trainer.data.rows import RowSet
from finetune_trainer.errors import TrainerError
from finetune_trainer.export.adapter import LOADER
from finetune_trainer.methods.peft_models import quiet_peft
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import CLASSES
from finetune_trainer.modeling.plain import inner_model
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Head

TOLERANCE: Final = 1e-4
"""Of the largest logit, in fp32."""
PROBE_ROWS: Final = 4
PROBE_TOKENS: Final = 64


@dataclass(frozen=True)
class CastCost:
    """What loading a merged model as bf16 changes, on the probe."""

    largest_difference: float
    """Of the largest logit."""
    argmax_agreement: float
    """Share of the predictions that stay the same."""
    loss_fp32: float | None
    """Mean negative log-likelihood of the next token, in nats (causal models)."""
    loss_bf16: float | None

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """For the model card."""
        loss = f", loss {self.loss_fp32:.4f} in fp32 and {self.loss_bf16:.4f} in bf16" if self.loss_fp32 is not None else ""
        return f"Loaded as bf16 instead of fp32, {100 * self.argmax_agreement:.1f} % of the predictions on a probe stay the same{loss}."


@dataclass(frozen=True)
class QuantizationCost:
    """How far the model on the base as it is in its files is from the one on the quantised base that was trained, on the probe."""

    largest_difference: float
    """Of the largest logit."""
    argmax_agreement: float
    """Share of the predictions that stay the same."""
    loss_quantized: float | None
    """Mean negative log-likelihood of the next token, in nats (causal models)."""
    loss_fp32: float | None

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """For the model card."""
        loss = f", loss {self.loss_fp32:.4f} in place of {self.loss_quantized:.4f}" if self.loss_fp32 is not None else ""
        return (
            f"It was trained on a quantised base, and is published for the base in fp32: {100 * self.argmax_agreement:.1f} % of the predictions "
            f"on a probe are the same{loss}; the logits differ by {self.largest_difference:.1e} of the largest."
        )


@dataclass(frozen=True)
class Probe:
    """A few rows, padded on the right."""

    inputs: Mapping[str, torch.Tensor]

    @staticmethod
    def of(rows: RowSet, *, pad: int) -> Probe:
        """The first rows of a set, cut short. Rows must not be empty."""
        return Probe.of_tokens([rows.tokens(index)[:PROBE_TOKENS].tolist() for index in range(min(PROBE_ROWS, len(rows)))], pad=pad)

    @staticmethod
    def of_tokens(tokens: Sequence[Sequence[int]], *, pad: int) -> Probe:
        length = max(len(row) for row in tokens)
        ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in tokens])
        return Probe({"input_ids": ids, "attention_mask": mask})

    def logits(self, module: nn.Module) -> torch.Tensor:
        """(predictions, classes) fp32 on the CPU, padding left out; dropout off, modes restored."""
        device = next(module.parameters()).device
        modes = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad():
            found: torch.Tensor = module(**{name: tensor.to(device) for name, tensor in self.inputs.items()}).logits.float().cpu()
        for part, mode in modes.items():
            part.training = mode
        mask = self.inputs["attention_mask"].bool()
        return found[:, -mask.shape[1] :][mask] if found.dim() == 3 else found  # behind a trained prompt, if there is one

    def next_token_loss(self, logits: torch.Tensor) -> float:
        """Mean negative log-likelihood of each row's next tokens."""
        mask = self.inputs["attention_mask"].bool()
        starts = torch.zeros_like(mask)
        starts[:, 0] = True
        targets = self.inputs["input_ids"][mask].roll(-1)
        followed = ~starts[mask].roll(-1)
        return float(functional.cross_entropy(logits[followed], targets[followed]))


def load_merged(folder: Path, head: Head) -> Any:
    """As a user would."""
    return CLASSES[head].from_pretrained(folder, dtype=torch.float32)


def load_adapter(folder: Path, base: Path, model: StageModel) -> nn.Module:
    """As a user would: the base by its class and its labels, the adapter by PEFT, or by the program that lies beside it."""
    trained = inner_model(model.module).config
    options = {"id2label": trained.id2label, "label2id": trained.label2id} if model.head is Head.CLASSIFICATION else {}
    plain = CLASSES[model.head].from_pretrained(base, dtype=torch.float32, **options)
    plain.config.pad_token_id = trained.pad_token_id
    if method_of(model.stage.method.type).form is not None:
        own: nn.Module = runpy.run_path(str(folder / LOADER))["load"](plain, folder)
        return own
    with quiet_peft():
        loaded: nn.Module = PeftModel.from_pretrained(plain, str(folder))
    return loaded


def check(loaded: nn.Module, wanted: torch.Tensor, probe: Probe, *, device: torch.device, what: str) -> float:
    """The largest difference, as a share of the largest logit. Raises TrainerError: InternalError above the tolerance, LossDiverged where the
    trained model says no numbers."""
    if not bool(torch.isfinite(wanted).all()):
        raise TrainerError(Reason.LOSS_DIVERGED, "the trained model's logits are not finite: nothing was published")
    difference = apart(wanted, probe.logits(loaded.to(device)))
    if not difference <= TOLERANCE:
        raise TrainerError(
            Reason.INTERNAL_ERROR,
            f"the {what} loads as another model than was trained: its logits differ by {difference:.1e} of the largest, "
            f"and {TOLERANCE:.0e} is allowed; nothing was published",
        )
    return difference


def quantization_cost(quantized: torch.Tensor, exact: torch.Tensor, probe: Probe, head: Head) -> QuantizationCost:
    """Compare the trained model's logits with those on the base in fp32."""
    causal = head is Head.CAUSAL
    return QuantizationCost(
        largest_difference=apart(exact, quantized),
        argmax_agreement=float((exact.argmax(-1) == quantized.argmax(-1)).float().mean()),
        loss_quantized=probe.next_token_loss(quantized) if causal else None,
        loss_fp32=probe.next_token_loss(exact) if causal else None,
    )


def cast_cost(merged: Any, wanted: torch.Tensor, probe: Probe, head: Head) -> CastCost:
    """Measure what bf16 costs. The model is cast in place."""
    rounded = probe.logits(merged.to(torch.bfloat16))
    causal = head is Head.CAUSAL
    return CastCost(
        largest_difference=apart(wanted, rounded),
        argmax_agreement=float((wanted.argmax(-1) == rounded.argmax(-1)).float().mean()),
        loss_fp32=probe.next_token_loss(wanted) if causal else None,
        loss_bf16=probe.next_token_loss(rounded) if causal else None,
    )


def apart(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference of two sets of logits, as a share of the largest of the first."""
    return float((wanted - found).abs().max() / wanted.abs().max())
