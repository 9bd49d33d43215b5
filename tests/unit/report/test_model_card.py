"""The model card: metadata that YAML reads as meant, code that runs, tables that show what users typed as it is."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.status import EvaluationStatus, Provenance
from finetune_api.wire import TrainerConfig
from finetune_trainer.report.model_card import Kind, code, hub_dataset, hub_name, render, text
from tests.unit.report.sample_run import MANIFEST, config

EVALUATION = [
    EvaluationStatus.model_validate(
        {
            "suite": "in-domain",
            "metric": str(Metric.LOSS),
            "baseline": 5.34,
            "baselineLow": 5.2,
            "baselineHigh": 5.4,
            "stages": [{"stage": "domain"}, {"stage": "task", "value": 3.31, "low": 3.2, "high": 3.4}],
            "gate": "Passed",
        }
    )
]
PROVENANCE = Provenance.model_validate(
    {"modelRevision": "12fd25f", "datasetHashes": {"file://a.jsonl": "ab" * 32}, "versions": {"torch": "2.15"}}
)


def told(tmp_path: Path, **changes: Any) -> TrainerConfig:
    spec = FineTuneJobSpec.model_validate({**MANIFEST["spec"], **changes})
    return config(tmp_path).model_copy(update={"spec": spec})


def metadata(card: str) -> dict[str, Any]:
    loaded = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def test_the_hub_reads_what_the_model_is(tmp_path: Path) -> None:
    card = render(told(tmp_path), EVALUATION, PROVENANCE, kinds=["adapter"], license_name="apache-2.0")
    assert metadata(card) == {
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["finetune-operator", "lora"],
    }


def test_a_local_base_and_hub_data(tmp_path: Path) -> None:
    stages = [{**MANIFEST["spec"]["stages"][1], "data": {"train": [{"uri": "hf://datasets/team/words/train.jsonl"}]}}]
    card = render(told(tmp_path, model={"uri": "file:///models/own"}, stages=stages), [], PROVENANCE, kinds=["merged", "adapter"])
    assert metadata(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["team/words"],
        "tags": ["finetune-operator", "lora"],
    }
    assert "Nothing: the job has no evaluation suites." in card


@pytest.mark.parametrize("kinds", [["adapter"], ["merged"], ["adapter", "merged"]])
def test_the_code_is_python_and_names_the_folders(tmp_path: Path, kinds: list[Kind]) -> None:
    card = render(told(tmp_path), EVALUATION, PROVENANCE, kinds=kinds)
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) == len(kinds)
    for kind, block in zip(kinds, blocks, strict=True):
        assert ast.parse(block).body
        assert f'from_pretrained("{kind}")' in block
    if "adapter" in kinds:
        assert 'revision="12fd25f77366fa6b3b4b768ec3050bf629380bac"' in card


def test_an_adapter_on_a_tuned_base_names_that_base(tmp_path: Path) -> None:
    card = render(told(tmp_path), EVALUATION, PROVENANCE, kinds=["adapter"], adapter_base="adapter/base")
    assert 'AutoModelForCausalLM.from_pretrained("adapter/base")' in card


def test_a_classifier_loads_with_its_number_of_labels(tmp_path: Path) -> None:
    stages = [{**MANIFEST["spec"]["stages"][1], "objective": "classification"}]
    card = render(told(tmp_path, stages=stages), [], PROVENANCE, kinds=["adapter"], labels=["a", "b", "c"])
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "num_labels=3" in card


def test_the_tables_have_intervals_options_and_provenance(tmp_path: Path) -> None:
    card = render(told(tmp_path), EVALUATION, PROVENANCE, kinds=["adapter"], notes=["A cast to bf16 costs 0.125."])
    assert "| in-domain | loss (lower is better) | 5.340 (5.200–5.400) | – | 3.310 (3.200–3.400) | Passed |" in card
    assert "| learningRate | `0.0005` | `0.0003` |" in card
    assert "| handOver | merge |  |" in card
    assert "- A cast to bf16 costs 0.125." in card
    assert "- data `file://a.jsonl`: SHA-256 `" + "ab" * 32 in card
    assert "- versions: torch 2.15" in card


def test_what_users_type_stays_text() -> None:
    assert text("<b>*x*|") == r"\<b\>\*x\*\|"
    assert code("a`b|c\nd") == r"`a'b\|c d`"


@pytest.mark.parametrize(
    ("uri", "model", "dataset"),
    [
        ("hf://a/b", "a/b", None),
        ("hf://datasets/a/b/train-*.jsonl", "datasets/a/b/train-*.jsonl", "a/b"),
        ("file://models/x", None, None),
    ],
)
def test_names_of_the_hub(uri: str, model: str | None, dataset: str | None) -> None:
    assert (hub_name(uri), hub_dataset(uri)) == (model, dataset)
