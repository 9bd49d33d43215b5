"""The model card: README.md beside the published model, with the metadata that the hub reads. Pure: everything it says is handed in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from finetune_api.v1alpha1.method import Method
from finetune_api.v1alpha1.regularization import guard_text
from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_api.v1alpha1.status import EvaluationStatus, Provenance
from finetune_api.wire import TrainerConfig
from finetune_trainer.evaluation.table import Row, cell_text, table

Kind = Literal["adapter", "merged"]

AUTO_CLASS: Final[Mapping[Objective, str]] = {
    Objective.CAUSAL_LANGUAGE_MODELING: "AutoModelForCausalLM",
    Objective.SUPERVISED: "AutoModelForCausalLM",
    Objective.MASKED_LANGUAGE_MODELING: "AutoModelForMaskedLM",
    Objective.CLASSIFICATION: "AutoModelForSequenceClassification",
}
PIPELINE: Final[Mapping[Objective, str]] = {
    Objective.CAUSAL_LANGUAGE_MODELING: "text-generation",
    Objective.SUPERVISED: "text-generation",
    Objective.MASKED_LANGUAGE_MODELING: "fill-mask",
    Objective.CLASSIFICATION: "text-classification",
}
HUB: Final = "hf://"


def render(
    config: TrainerConfig,
    evaluation: Sequence[EvaluationStatus],
    provenance: Provenance,
    *,
    kinds: Sequence[Kind],
    adapter_base: str | None = None,
    loader: str | None = None,
    labels: Sequence[str] | None = None,
    license_name: str | None = None,
    scales: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the card as Markdown.

    kinds: what is published, each in the folder of its name beside the card. adapter_base: what the adapter's `base_model_name_or_path`
    says (the hub's name or a published folder; default: the job's model). loader: the program in the adapter's folder that puts it on its base, where PEFT does not know it. labels: the classes of a classifier's head. license_name: as the
    hub spells it (`apache-2.0`), where it is known. scales: the share of its change that a stage handed over, by its name. notes: sentences for the reader, such as what a cast to bf16 costs.
    """
    spec = config.spec
    objective = spec.stages[-1].objective
    base = adapter_base or hub_name(spec.model.uri) or spec.model.uri
    sections = [
        _metadata(config, objective, license_name, library="peft" if "merged" not in kinds and loader is None else "transformers"),
        f"# {config.job.name}",
        _introduction(config),
        "## How to load it",
        *(_loading(kind, objective, base, spec.model.revision if adapter_base is None else None, labels, loader) for kind in kinds),
        "## What was measured",
        _evaluation(table(evaluation)),
        "## How it was trained",
        _training(spec.stages, scales or {}),
        *(["## Notes", "\n".join(f"- {text(note)}" for note in notes)] if notes else []),
        "## Where it comes from",
        _provenance(config, provenance),
    ]
    return "\n\n".join(sections) + "\n"


def hub_name(uri: str) -> str | None:
    """OWNER/NAME of an hf:// model, else None."""
    return uri.removeprefix(HUB) if uri.startswith(HUB) else None


def hub_dataset(uri: str) -> str | None:
    """OWNER/NAME of an hf://datasets/OWNER/NAME/path, else None."""
    match = re.match(r"hf://datasets/([^/]+/[^/]+)", uri)
    return match.group(1) if match else None


def text(value: str) -> str:
    """What users typed, so that Markdown and HTML show it as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", value.replace("\n", " "))


def code(value: str) -> str:
    """What users typed, as code inside a line or a table."""
    return "`" + value.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def method_text(method: Method) -> str:
    """The method in a few words. Example: lora r 16, alpha 32, all-linear"""
    name, *rest = method.words
    return f"{name} {', '.join(rest)}".strip()


def _metadata(config: TrainerConfig, objective: Objective, license_name: str | None, *, library: str) -> str:
    """YAML; a JSON string is a YAML string, so nothing that a user typed can break out of it."""
    base = hub_name(config.spec.model.uri)
    sources = [source.uri for stage in config.spec.stages for source in stage.data.train]
    datasets = sorted({name for uri in sources if (name := hub_dataset(uri))})
    tags = ["finetune-operator", *dict.fromkeys([str(stage.method.type) for stage in config.spec.stages])]
    lines = [
        *([f"license: {json.dumps(license_name)}"] if license_name else []),
        *([f"base_model: {json.dumps(base)}"] if base else []),
        f"library_name: {library}",
        f"pipeline_tag: {PIPELINE[objective]}",
        *(["datasets:", *(f"  - {json.dumps(name)}" for name in datasets)] if datasets else []),
        "tags:",
        *(f"  - {json.dumps(tag)}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _introduction(config: TrainerConfig) -> str:
    stages = config.spec.stages
    steps = ", then ".join(f"{stage.name} ({stage.objective}, {method_text(stage.method)})" for stage in stages)
    return (
        f"{code(config.spec.model.uri)}, fine-tuned in {len(stages)} stage{'s' if len(stages) > 1 else ''}: {text(steps)}. "
        "report.html in this folder shows the curves, the evaluation and samples."
    )


def _loading(kind: Kind, objective: Objective, base: str, revision: str | None, labels: Sequence[str] | None, loader: str | None) -> str:
    auto = AUTO_CLASS[objective]
    if kind == "merged":
        body = [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("merged")',
            'tokenizer = AutoTokenizer.from_pretrained("merged")',
        ]
        return "The merged model, in the folder `merged`:\n\n" + _fenced(body)
    options = (f", num_labels={len(labels)}" if labels and objective is Objective.CLASSIFICATION else "") + (
        f", revision={json.dumps(revision)}" if revision else ""
    )
    program, model = ("from peft import PeftModel", 'PeftModel.from_pretrained(base, "adapter")')
    if loader is not None:
        program, model = "import runpy", f'runpy.run_path("adapter/{loader}")["load"](base, "adapter")'
    body = [
        program,
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"base = {auto}.from_pretrained({json.dumps(base)}{options})",
        f"model = {model}",
        'tokenizer = AutoTokenizer.from_pretrained("adapter")',
    ]
    return "The adapter, in the folder `adapter`, on its base:\n\n" + _fenced(body)


def _fenced(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _evaluation(rows: Sequence[Row]) -> str:
    if not rows:
        return "Nothing: the job has no evaluation suites."
    points = list(dict.fromkeys(cell.point for row in rows for cell in row.cells))
    lines = [
        _line(["suite", "metric", *("base" if point == "base" else f"after {point}" for point in points), "gate"]),
        _line(["---", "---", *("---:" for _ in points), "---"]),
    ]
    for row in rows:
        cells = {cell.point: cell_text(cell, row.metric) for cell in row.cells}
        better = "lower is better" if row.lower_is_better else "higher is better"
        lines.append(_line([text(row.suite), f"{row.metric} ({better})", *(cells.get(point, "–") for point in points), row.gate or ""]))
    return "\n".join(lines) + "\n\nIn brackets: 95 % percentile bootstrap intervals over rows (1,000 resamples)."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _training(stages: Sequence[Stage], scales: Mapping[str, float]) -> str:
    lines = [_line(["option", *(text(stage.name) for stage in stages)]), _line(["---", *("---" for _ in stages)])]
    options = [_options(stage, scales.get(stage.name)) for stage in stages]
    names = dict.fromkeys(name for stage in options for name in stage)
    return "\n".join([*lines, *(_line([name, *(stage.get(name, "") for stage in options)]) for name in names)])


def _options(stage: Stage, scale: float | None) -> dict[str, str]:
    document = stage.training.model_dump(mode="json", exclude_none=True)
    flat = {name: code(json.dumps(value) if not isinstance(value, str) else value) for name, value in document.items()}
    head = {"objective": str(stage.objective), "method": text(method_text(stage.method))}
    if stage.regularization:
        head["guards"] = text("; ".join(guard_text(guard) for guard in stage.regularization))
    handed = {"handOver": f"{stage.hand_over}{f' of {scale:g} of the change' if scale is not None else ''}"} if stage.hand_over else {}
    return head | handed | flat


def _provenance(config: TrainerConfig, provenance: Provenance) -> str:
    facts = {
        "base model": code(config.spec.model.uri) + (f" at {code(provenance.model_revision)}" if provenance.model_revision else ""),
        "seed": str(provenance.seed if provenance.seed is not None else config.spec.data_seed),
        "configHash": code(provenance.config_hash or config.config_hash),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- data {code(uri)}: SHA-256 {code(digest)}" for uri, digest in sorted(provenance.dataset_hashes.items())]
    if provenance.versions:
        lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items())))
    return "\n".join(lines)
