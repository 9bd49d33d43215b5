"""What papers say of their methods, beside what was measured here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.methods.results import Line
from tests.bench.methods.settings import CLASSES, DEFINITIONS
from tests.bench.methods.summary import Figure, versus


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the two rows that it is about."""

    setting: str
    says: str
    arxiv: str
    other: str = "lora"


CLAIMS: Final = (
    Claim("lora", "as good as full tuning", "2106.09685", "full"),
    Claim("lora, pissa", "learns faster and ends better than LoRA", "2404.02948"),
    Claim("lora, eva", "converges faster than LoRA, and scores higher on average", "2410.07170"),
    Claim("qlora", "as good as on a base in 16 bits", "2305.14314"),
    Claim("lora, dora", "better than LoRA of the same rank", "2402.09353"),
    Claim("lora, r 64, rsLora", "high ranks learn more, where LoRA's scale holds them back", "2312.03732"),
    Claim("adalora", "better than LoRA of the same size", "2303.10512"),
    Claim("vera", "as good as LoRA with a tenth of the parameters", "2310.11454"),
    Claim("fourierft", "as good as LoRA with far fewer parameters", "2405.03003"),
    Claim("gralora", "better than LoRA, most at high ranks", "2505.20355"),
    Claim("aflora", "better than LoRA with fewer parameters", "2403.13269"),
    Claim("ia3", "better than full tuning with few examples", "2205.05638", "full"),
    Claim("lnTuning", "better than LoRA with fewer parameters", "2312.11420"),
    Claim("adapter", "near full tuning with a few per cent of the parameters", "1902.00751", "full"),
    Claim("promptTuning", "below full tuning on small models, equal on very large ones", "2104.08691", "full"),
    Claim("prefixTuning", "as good as full tuning with a thousandth of the parameters", "2101.00190", "full"),
    Claim("gradual", "better than full tuning at once", "1801.06146", "full"),
    Claim("full, layer decay 0.9", "better than one rate for all layers", "1801.06146", "full"),
    Claim("full, aggressive + l2sp", "better than full tuning without it", "1802.01483", "full, aggressive"),
    Claim("full + l2sp", "better than full tuning without it", "1802.01483", "full"),
    Claim("full + mixout", "better than full tuning without it, on few examples", "1909.11299", "full"),
)


def papers_table(lines: Sequence[Line]) -> Iterator[str]:
    """A row a claim of which something was measured."""
    yield "| setting | its paper says | against | definitions: loss less the other's | classes: accuracy less the other's |"
    yield "| --- | --- | --- | --- | --- |"
    for claim in CLAIMS:
        loss, accuracy = (versus(lines, task, claim.setting, claim.other) for task in (DEFINITIONS, CLASSES))
        if loss is not None or accuracy is not None:
            paper = f"[{claim.arxiv}](https://arxiv.org/abs/{claim.arxiv})"
            yield f"| {claim.setting} | {claim.says} ({paper}) | {claim.other} | {_verdict(loss, better=-1)} | {_verdict(accuracy, better=1)} |"


def _verdict(figure: Figure | None, *, better: int) -> str:
    """better: the sign of what is better."""
    if figure is None:
        return "not measured"
    word = ("better" if figure.value * better > 0 else "**worse**") if figure.sure else "no difference shown"
    return f"{word}: {figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"
