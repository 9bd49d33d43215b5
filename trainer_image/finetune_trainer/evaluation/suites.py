"""Measuring one suite: rows stream through the model in batches, and only a few numbers a row are kept.

Logits are computed for predicted tokens only and die with their batch (1,000 rows × 2,048 tokens × 152,000 words would be 1.2 TB).
Rows go longest first, so that a batch that doesn't fit in memory fails at once, and little padding is computed. The result does not depend
on the batch size but for rounding, and not at all on the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from finetune_api.constants import Reason
from finetune_api.v1alpha1.evaluation import Metric, Suite
from finetune_api.v1alpha1.stage import Objective
from finetune_api.wire import Activity
from finetune_trainer.engine.collate import Batch, Collator, Masking
from finetune_trainer.engine.losses import class_logits, token_losses
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.evaluation import metrics
from finetune_trainer.evaluation.bootstrap import RESAMPLES, estimates
from finetune_trainer.evaluation.generation import DECODING, complete, evaluating, own_lines, pad_id, prompt_of, reference_of, same
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import Sample, SuiteResult
from finetune_trainer.evaluation.rows import Rows, SuiteRows
from finetune_trainer.progress import Reporter

MASKED_SHARE: Final = 0.15
"""Share of tokens that a masked-language-modelling suite hides: BERT's, the same for every model that is compared."""
DEFAULT_MAX_NEW_TOKENS: Final = 64


class EvaluationAborted(Stopped):
    """It was told to stop between two batches. Nothing is kept of the suite: a resumed run measures it again, with the same result."""


@dataclass(frozen=True)
class Measured:
    """A suite's figures, and the numbers a row that they were made of."""

    result: SuiteResult
    records: RowRecords


@dataclass(frozen=True)
class _Pass:
    """What the batches of one suite share."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    suite: Suite
    rows: Rows
    batches: list[list[int]]
    device: torch.device
    step: Callable[[int], None]


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    prepared: SuiteRows,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
    reporter: Reporter,
    should_stop: Callable[[], bool],
    head_labels: Sequence[str] | None = None,
    end_tokens: Sequence[int] = (),
    extended_tokenizer: bool = False,
    note: str | None = None,
) -> Measured:
    """Measure a model with the head for the suite's objective, plain or PEFT-wrapped; it is left in the mode in which it was.

    `head_labels`: the classes of the model's head in their order, where that may differ from the suite's. `end_tokens`: what ends an answer, beside the
    tokenizer's and the model's own. `extended_tokenizer` adds bits a byte.
    Call it inside the autocast context that the stage was trained in. Raises EvaluationAborted, and TrainerError for a label that the head
    does not know (LabelUnknown) or a loss that is no number (LossDiverged).
    """
    rows = prepared.rows
    records = RowRecords.empty([rows.id(index) for index in range(len(rows))])
    generates = Metric.EXACT_MATCH in suite.metrics
    total = len(rows) * (2 if generates else 1)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        reporter.report(Activity.EVALUATE, suite=suite.name, done=done, total=total, unit="rows")
        if should_stop():
            raise EvaluationAborted(f"while suite {suite.name} was measured; nothing is lost, it is measured again from its beginning")

    work = _Pass(model, tokenizer, suite, rows, _longest_first(rows, batch_size), device, step)
    with evaluating(model):
        if suite.objective is Objective.CLASSIFICATION:
            _classify(work, records, _to_head(suite, prepared.labels, head_labels))
        else:
            _predict(work, records, _collator(tokenizer, suite, seed))
        if generates:
            _generate(work, records, end_tokens)
    _check(suite, records)
    return Measured(_result(suite, records, seed=seed, extended_tokenizer=extended_tokenizer, note=note), records)


def not_applicable(suite: Suite, why: str) -> SuiteResult:
    """The result of a suite whose head the model does not have at this point."""
    return SuiteResult(name=suite.name, objective=suite.objective, not_applicable=why)


def take_samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prepared: SuiteRows,
    *,
    count: int,
    max_new_tokens: int,
    device: torch.device,
    end_tokens: Sequence[int] = (),
) -> list[Sample]:
    """Return greedy completions of the first rows of a supervised suite, with prompts and references, for the report."""
    rows = prepared.rows
    chosen = range(min(count, len(rows)))
    if not chosen:
        return []
    prompts = [prompt_of(rows, index) for index in chosen]
    with evaluating(model):
        written = complete(model, tokenizer, prompts, max_new_tokens=max_new_tokens, device=device, end_tokens=end_tokens)
    texts: list[str] = tokenizer.batch_decode(prompts, skip_special_tokens=True)
    return [
        Sample(
            row=rows.id(index),
            prompt=own,
            full_prompt=text.strip(),
            reference=reference_of(rows, index, tokenizer).strip(),
            completion=answer.strip(),
        )
        for index, text, own, answer in zip(chosen, texts, own_lines(texts), written, strict=True)
    ]


def suite_seed(seed: int, name: str) -> int:
    """A seed of the suite's own, the same at every point: masks and bootstrap draws are compared between models."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _longest_first(rows: Rows, batch_size: int) -> list[list[int]]:
    order = np.argsort(-np.asarray(rows.lengths), kind="stable")
    return [[int(index) for index in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]


def _collator(tokenizer: PreTrainedTokenizerBase, suite: Suite, seed: int) -> Collator:
    masking = None
    if suite.objective is Objective.MASKED_LANGUAGE_MODELING:
        masking = Masking(
            mask_id=int(tokenizer.mask_token_id),
            vocabulary=len(tokenizer),
            special_ids=frozenset(tokenizer.all_special_ids),
            probability=MASKED_SHARE,
            seed=suite_seed(seed, suite.name),
        )
    return Collator(suite.objective, pad_id(tokenizer), masking)


def _predict(work: _Pass, records: RowRecords, collator: Collator) -> None:
    for indexes in work.batches:
        batch = collator(work.rows, indexes)
        losses = token_losses(work.model, batch.to(work.device))
        lines, count = losses.row.cpu().numpy(), len(indexes)
        records.nll[indexes] = np.bincount(lines, losses.nll.cpu().double().numpy(), count)
        records.tokens[indexes] = np.bincount(lines, minlength=count)
        records.correct[indexes] = np.bincount(lines[losses.correct.cpu().numpy()], minlength=count)
        records.bytes[indexes] = _bytes(batch, work.tokenizer, count)
        work.step(count)


def _bytes(batch: Batch, tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """UTF-8 bytes of the text of each row's predicted tokens."""
    lines, targets = batch.rows.numpy(), batch.targets.numpy()
    texts = tokenizer.batch_decode([targets[lines == line] for line in range(count)], skip_special_tokens=True)
    return [len(text.encode()) for text in texts]


def _classify(work: _Pass, records: RowRecords, to_head: np.ndarray[Any, np.dtype[np.int64]] | None) -> None:
    collator = Collator(Objective.CLASSIFICATION, pad_id(work.tokenizer))
    for indexes in work.batches:
        batch = collator(work.rows, indexes)
        logits = class_logits(work.model, batch.to(work.device)).float().cpu()
        targets = batch.targets if to_head is None else torch.from_numpy(to_head)[batch.targets]
        records.nll[indexes] = functional.cross_entropy(logits, targets, reduction="none").double().numpy()
        records.truth[indexes] = targets.numpy()
        records.predicted[indexes] = logits.argmax(-1).numpy()
        records.tokens[indexes] = 1
        records.correct[indexes] = records.truth[indexes] == records.predicted[indexes]
        work.step(len(indexes))


def _to_head(suite: Suite, labels: Sequence[str] | None, head: Sequence[str] | None) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """The head's index of each of the suite's labels, by name."""
    if head is None or labels is None or list(labels) == list(head):
        return None
    unknown = sorted(set(labels) - set(head))
    if unknown:
        raise TrainerError(
            Reason.LABEL_UNKNOWN,
            f"the model's head knows the labels {', '.join(head)}, and not {', '.join(unknown)}",
            where=f"spec.evaluation.suites[{suite.name}].labels",
        )
    return np.array([list(head).index(label) for label in labels], dtype=np.int64)


def _generate(work: _Pass, records: RowRecords, end_tokens: Sequence[int]) -> None:
    limit = work.suite.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    for indexes in work.batches:
        prompts = [prompt_of(work.rows, index) for index in indexes]
        texts = complete(work.model, work.tokenizer, prompts, max_new_tokens=limit, device=work.device, end_tokens=end_tokens)
        references = [reference_of(work.rows, index, work.tokenizer) for index in indexes]
        records.exact[indexes] = [same(text, reference) for text, reference in zip(texts, references, strict=True)]
        work.step(len(indexes))


def _check(suite: Suite, records: RowRecords) -> None:
    broken = np.flatnonzero(~np.isfinite(records.nll))
    if len(broken):
        raise TrainerError(
            Reason.LOSS_DIVERGED,
            f"the loss of {len(broken)} of {len(records)} rows is no finite number, first that of row {records.ids[broken[0]]}",
            where=f"evaluation suite {suite.name}",
        )


def _result(suite: Suite, records: RowRecords, *, seed: int, extended_tokenizer: bool, note: str | None) -> SuiteResult:
    statistics = [metrics.STATISTICS[metric] for metric in suite.metrics]
    by_bytes = extended_tokenizer and suite.objective is not Objective.CLASSIFICATION
    found = estimates(
        records, [*statistics, *([metrics.bits_per_byte] if by_bytes else [])], seed=suite_seed(seed, suite.name), resamples=RESAMPLES
    )
    decoding = (
        f"exactMatch: {DECODING}, at most {suite.max_new_tokens or DEFAULT_MAX_NEW_TOKENS} tokens" if (records.exact >= 0).any() else None
    )
    return SuiteResult(
        name=suite.name,
        objective=suite.objective,
        rows=len(records),
        tokens=int(records.tokens.sum()),
        estimates={metric: estimate for metric, estimate in zip(suite.metrics, found, strict=False) if estimate is not None},
        bits_per_byte=found[-1] if by_bytes else None,
        note="; ".join(part for part in (note, decoding) if part) or None,
    )
