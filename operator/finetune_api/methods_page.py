"""docs/methods.md, generated: the support table as a table, what was measured, and a section for each method from the text at its options.

What was measured is methods_measured.md beside this file, which `python -m tests.bench.methods.page` writes from the committed results.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from finetune_api.v1alpha1.method import TABLE, MethodType
from finetune_api.v1alpha1.support import Continues, Row

PAGE: Final = "docs/methods.md"
_INTRODUCTION: Final = """# Methods: how a stage changes the model

Generated from `operator/finetune_api/v1alpha1/method.py` and the options beside it by `make generate`. Every option is in
[the reference](reference/job.md), every row has an example that a test runs, and `make test-catalogue` tries each cell of the table
on tiny GPT-2, LLaMA, Mistral, Qwen and BERT models, refused ones among them.

## Which one

- Begin with **lora**. It learns most of what full tuning learns at a fraction of the memory, and forgets less.
- **qlora** where the base alone would fill the GPU: nf4 takes about an eighth of fp32 for its linear layers. It is slower than LoRA, and what is
  published goes onto the base in fp32, not onto the quantised one that was trained on: the report says how far they are apart.
- **full** where LoRA is not enough and there is data for it; with `layerDecay`, or **gradual**, where what the base knows must stay.
- **partial**, **headOnly**, **lnTuning**, **trainableTokens** change little, and leave a plain model.
- **adapter**, **ia3** and the three methods with a prompt leave a small artifact of which many can share one base in memory.
- LoRA's relatives are worth a try when everything else is settled, each with learning rates of its own.

## What each can do

*Continue* says before what a stage may hand over by `handOver: continue`. An adapter is published by itself, on its base; merged means folded into
the weights, in fp32, and compared with the adapter before it is published. The last columns are what a stage has where it says nothing: the learning rate, the rows of an
optimizer step (8 at a time, with as many accumulated; a stage that writes one of `perDeviceTrainBatchSize` and `gradientAccumulationSteps` has what it writes), and the share of the steps
in which the rate rises. `finetune plan` shows them, and `finetune validate` warns of values far from them.

| method | continue | merge | stack | published as | quantised base | packing | default rate | rows a step | warm-up |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
_MORE: Final[Mapping[MethodType, tuple[str, ...]]] = {
    MethodType.FULL: ("full-bf16", "full-domain"),
    MethodType.PARTIAL: ("partial-share",),
    MethodType.LORA: ("method-lora-kin", "method-lora-eva", "method-lora-corda"),
}
"""Examples of single options, beside the one that each method has."""
_CONTINUES: Final = {Continues.ANYTHING: "before anything", Continues.ITSELF: "before the same options", Continues.NOTHING: "no"}


def methods_page() -> str:
    """Return the page."""
    measured = Path(__file__).with_name("methods_measured.md").read_text(encoding="utf-8").rstrip()
    return (
        _INTRODUCTION + "\n".join([*_rows(), "", "## What does not go together", "", *_refusals(), "", measured, "", *_sections()]) + "\n"
    )


def _rows() -> Iterator[str]:
    for method, row in TABLE.items():
        kinds = [name for name, is_so in (("adapter", row.adapter), ("merged", row.folds)) if is_so]
        cells = [
            _CONTINUES[row.continues],
            _yes(row.merges),
            _yes(row.stacks),
            " or ".join(kinds),
            ", ".join(row.quantizations) or "no",
            _yes(row.packs),
            f"{row.learning_rate:g}".replace("e-0", "e-"),
            str(row.batch),
            f"{100 * row.warmup:g} %",
        ]
        yield f"| [{method}](#{method.lower()}) | {' | '.join(cells)} |"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _refusals() -> Iterator[str]:
    """Each reason once, with the methods that it is given for."""
    found: dict[str, list[str]] = {}
    for method, row in TABLE.items():
        for refusal in row.refused:
            where = [", ".join(names) for names in (refusal.objectives, refusal.families) if names]
            found.setdefault(f"| {' on '.join(where)} | {refusal.because}: {refusal.why} |", []).append(f"`{method}`")
    yield from ("| method | with | why |", "| --- | --- | --- |")
    yield from (f"| {', '.join(methods)} {rest}" for rest, methods in found.items())


def _sections() -> Iterator[str]:
    for method, row in TABLE.items():
        yield from (
            f"## {method}",
            "",
            about(row),
            "",
            f"Rates, rows of a step, warm-up: {row.source}.",
            f"{_examples(method)}.",
        )
        if row.options is not None:
            fields = row.options.model_fields.values()
            names = ", ".join(f"`{field.alias}`{' (required)' if field.is_required() else ''}" for field in fields)
            yield f"Options: {names}.{' Some of them have to be given.' if row.required else ''}"
        if method is not list(MethodType)[-1]:
            yield ""


def _examples(method: MethodType) -> str:
    paths = [example(method), *(f"examples/{name}.yaml" for name in _MORE.get(method, ()))]
    return f"Example{'s' * (len(paths) > 1)}: {', '.join(f'[`{path}`](../{path})' for path in paths)}"


def example(method: MethodType) -> str:
    """Return the manifest that shows a method."""
    return f"examples/method-{method.lower()}.yaml"


def about(row: Row) -> str:
    """Return what is said of a method."""
    return row.about or inspect.cleandoc((row.options and row.options.__doc__) or "")
