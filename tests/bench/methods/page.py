"""`python -m tests.bench.methods.page`: the measured part of docs/methods.md and its pictures, from the committed results.

Then `make generate` puts the part into the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from scripts.demo_assets import ROOT
from tests.bench.methods.papers import papers_table
from tests.bench.methods.results import Results
from tests.bench.methods.settings import AGGRESSIVE, CLASSES, DEFINITIONS, FACTORS, REPLAYED
from tests.bench.methods.summary import GATES, Figure, Row, rows
from tests.bench.methods.tasks import BUDGETS, CLASS_VALIDATION_ROWS, DOMAIN_ROWS, OTHER_ROWS, TEST_ROWS, VALIDATION_ROWS

FRAGMENT: Final = ROOT / "operator/finetune_api/methods_measured.md"
WORDS: Final = Path(__file__).with_name("words.md")
"""What is said about the figures, written by hand; the figures are put in."""
PICTURES: Final = ROOT / "docs/pictures"


def fragment(results: Results) -> str:
    """The part of the page."""
    definitions, classes = rows(results.lines, DEFINITIONS), rows(results.lines, CLASSES)
    start = next(line for line in results.lines if line["setting"] == "before the task")
    words = WORDS.read_text(encoding="utf-8")
    values = {
        "SETUP": _setup(definitions + classes),
        "DEFINITIONS": "\n".join(definitions_table(definitions, start["suites"])),
        "CLASSES": "\n".join(classes_table(classes)),
        "AGGRESSIVE": f"{AGGRESSIVE:g} times its default rate",
        "PAPERS": "\n".join(papers_table(results.lines)),
        "BETTER": _better(definitions, classes),
        "FORGETTING": "\n".join(forgetting_table(definitions)),
    }
    for name, value in values.items():
        words = words.replace(f"<!-- {name} -->", value)
    return words


def _setup(found: Sequence[Row]) -> str:
    pairs, glosses = BUDGETS[DEFINITIONS], BUDGETS[CLASSES]
    seeds = sorted({row.seeds for row in found})
    return (
        f"**Definitions**: SmolLM2-135M-Instruct after one domain stage (1,000 glosses, LoRA, merged; trained once), {pairs.rows} pairs “Define: WORD” → "
        f"gloss, {pairs.steps} steps of {pairs.batch}; measured on {TEST_ROWS} unseen words, on {DOMAIN_ROWS} held-out glosses as running text, and on {OTHER_ROWS} "
        f"pieces of the Python reference, which nothing trains on. **Classes**: MiniLM-L6 (a sentence encoder), WordNet's 26 noun classes, 8 glosses of each, "
        f"{glosses.steps} steps of {glosses.batch}, a new head; measured on 450 glosses. The same rows and steps for every row of a table, linear decay, AdamW, fp32 on "
        f"one thread.\n\nLearning rates are {_factors(DEFINITIONS)} (definitions) or {_factors(CLASSES)} (classes) times the method's default, the one with the least loss on "
        f"{VALIDATION_ROWS} and {CLASS_VALIDATION_ROWS} validation rows with seed 1, which is then seed 1's cell; a row with a guard has the rate of the row without it, and “aggressive” "
        f"is {AGGRESSIVE:g} times full's default. “Replay” mixes in {REPLAYED:.0%} of the tokens from other chapters of the Python reference; `ewc` needs some, and has 5 %. "
        f"Seeds a row: {' or '.join(str(count) for count in seeds)}, as the tables say."
    )


def _factors(task: str) -> str:
    return " or ".join(f"{factor:g}" for factor in FACTORS[task])


def _better(definitions: Sequence[Row], classes: Sequence[Row]) -> str:
    """What the intervals carry, in a sentence a task."""
    sentences = []
    for name, found, sign in (("definitions", definitions, -1), ("classes", classes, 1)):
        sure = [row for row in found if row.against is not None and row.against.sure]
        sides = [
            ", ".join(f"`{row.setting}`" for row in sure if row.against and row.against.value * sign * side > 0) or "none"
            for side in (1, -1)
        ]
        sentences.append(f"- **{name}**: better than `lora`: {sides[0]}; worse: {sides[1]}; of the rest the intervals show no difference.")
    return "\n".join(sentences)


def definitions_table(found: Sequence[Row], start: dict[str, dict[str, dict[str, list[float]]]]) -> Iterator[str]:
    """Loss, what is kept, and what it takes; the least loss first."""
    before = {suite: start[suite]["estimates"]["perplexity"][0] for suite in ("domain", "other")}
    loss = start["task"]["estimates"]["loss"]
    accuracy = start["task"]["estimates"]["tokenAccuracy"][0]
    yield "| setting | rate | loss a token | against lora, paired | token accuracy | perplexity: domain | Python reference | trained | state, MiB | peak, MiB | step | artifact, MB | seeds |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    yield f"| *before the task* | | {loss[0]:.3f} ({loss[1]:.3f} to {loss[2]:.3f}) | | {accuracy:.3f} | {before['domain']:.1f} | {before['other']:.1f} | | | | | | |"
    for row in sorted(found, key=lambda row: row.score.value):
        assert row.domain is not None and row.other is not None and row.other_change is not None
        change = row.other_change
        yield (
            f"| {row.setting} | {rate(row.rate)} | {interval(row.score)} | {against(row.against)} | {row.second:.3f} | {row.domain:.1f} | "
            f"{row.other:.1f} ({change.value:+.1%}) | {_costs(row)} |"
        )


def classes_table(found: Sequence[Row]) -> Iterator[str]:
    """Accuracy and what it takes; the best first."""
    yield "| setting | rate | accuracy | against lora, paired | macro F1 | trained | state, MiB | peak, MiB | step | artifact, MB | seeds |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in sorted(found, key=lambda row: -row.score.value):
        yield f"| {row.setting} | {rate(row.rate)} | {interval(row.score)} | {against(row.against)} | {row.second:.3f} | {_costs(row)} |"


def forgetting_table(found: Sequence[Row]) -> Iterator[str]:
    """The rows of the forgetting story, with the verdicts of the gates."""
    yield f"| setting | loss a token | perplexity on the Python reference | {' | '.join(f'gate at +{gate:.0%}' for gate in GATES)} |"
    yield f"| --- | --- | --- |{' --- |' * len(GATES)}"
    for row in found:
        if row.other_change is not None and (row.setting.startswith(("full, aggressive", "lora +")) or row.setting in ("full", "lora")):
            change = row.other_change
            verdicts = " | ".join("passes" if row.passes(gate) else "**misses**" for gate in GATES)
            yield f"| {row.setting} | {row.score.value:.3f} | {change.value:+.1%} ({change.low:+.1%} to {change.high:+.1%}) | {verdicts} |"


def _costs(row: Row) -> str:
    return (
        f"{row.share:.2%} | {row.state_mib:.1f} | {row.peak_mib} | {row.step:.2f} | {row.artifact_mb:.3g} | {row.seeds}"
        if row.share >= 0.0001
        else f"{row.share:.3%} | {row.state_mib:.2f} | {row.peak_mib} | {row.step:.2f} | {row.artifact_mb:.3g} | {row.seeds}"
    )


def rate(value: float) -> str:
    """0.0003 as 3e-4."""
    return f"{value:.0e}".replace("e-0", "e-")


def interval(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def against(figure: Figure | None) -> str:
    """Bold where the interval leaves out zero."""
    if figure is None:
        return ""
    text = f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"
    return f"**{text}**" if figure.sure else text


def main() -> None:
    from tests.bench.methods.pictures import kept_picture, share_picture  # matplotlib

    results = Results.read()
    FRAGMENT.write_text(fragment(results), encoding="utf-8")
    definitions, classes = rows(results.lines, DEFINITIONS), rows(results.lines, CLASSES)
    (PICTURES / "methods-share.svg").write_text(share_picture(definitions, classes), encoding="utf-8")
    (PICTURES / "methods-kept.svg").write_text(kept_picture(definitions), encoding="utf-8")
    print(f"{FRAGMENT}: {len(definitions)} rows of definitions, {len(classes)} of classes; now `make generate`")


if __name__ == "__main__":
    main()
