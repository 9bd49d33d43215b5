"""What is published gives the trained model's logits, by from_pretrained alone, and is there whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune_api.constants import Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, OutputFormat
from finetune_api.wire import PodConfig, TrainerConfig
from finetune_trainer import handover
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import Prepared, load_prepared
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.export import adapter
from finetune_trainer.export.place import check_place
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start
from finetune_trainer.progress import NullReporter
from finetune_trainer.publish import facts, formats, publish
from finetune_trainer.run_folder import RunFolder
from tests.unit.models.cases import CAUSAL, CLASSES, LABELS, MASKED, apart, build, job, logits, outputs, train

BOTH = ["adapter", "merged"]
Stages = list[tuple[str | dict[str, Any], str, str | None]]


class Trained:
    """A run folder with prepared data, and the trained model of its last stage."""

    def __init__(
        self, base: Path, root: Path, stages: Stages, *, added: tuple[str, ...] = (), output: dict[str, Any] | None = None
    ) -> None:
        rows = [{"text": f"the animal number {index} of kind {7 * index}", "label": LABELS[index % 3]} for index in range(12)]
        root.mkdir(parents=True, exist_ok=True)
        (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        spec = job(*stages, added=added, maxLength=32).model_dump(mode="json", by_alias=True, exclude_none=True)
        claims = [{"name": "models", "claimName": "models"}]
        spec |= {"model": {"uri": f"file://{base}"}, "output": output or {}, "references": {"claims": claims}}
        document = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "cards"}, "spec": spec}
        runtime = Runtime(run_folder=str(root / "run"), base_folder=str(root))
        self.config: TrainerConfig = plan(FineTuneJob.model_validate(document), runtime=runtime).segments[-1]
        prepare(self.config, NullReporter())
        claim(RunFolder(root / "run"), self.config)
        self.prepared: Prepared = load_prepared(self.config)
        self.artifacts = root / "run/artifacts"
        start = Start.base(self.prepared.model_folder)
        for index, stage in enumerate(self.config.spec.stages):
            self.model: StageModel = train(
                build(start, self.config.spec, index, labels=self.prepared.stages[stage.name].labels), seed=index
            )
            if stage.hand_over:
                start = handover.hand_over(self.model, stage.hand_over)

    def publish(self, files: FileLayer | None = None, pause: Callable[[], None] = lambda: None) -> list[Any]:
        known = facts(self.config, self.prepared)
        return publish(self.model, self.config, self.prepared, known, reporter=NullReporter(), files=files, pause=pause)


@pytest.mark.parametrize(
    ("base", "stages", "added", "own_base", "rank"),
    [
        ("tiny_llama", [("lora", CAUSAL, None)], (), False, 4),
        ("tiny_llama", [("lora", CAUSAL, None)], ("<ticket>",), True, 4),
        ("tiny_llama", [("rsLora", CAUSAL, None)], (), False, 4),
        ("tiny_llama", [("dora", CAUSAL, None)], (), False, 4),
        ("tiny_llama", [("pissa", CAUSAL, None)], (), False, 8),
        ("tiny_llama", [("pissaDora", CAUSAL, None)], (), False, 8),
        ("tiny_llama", [("full", CAUSAL, "continue"), ("lora", CAUSAL, None)], (), True, 4),
        ("tiny_llama", [("pissa", CAUSAL, "merge"), ("pissa", CLASSES, None)], (), True, 8),
        ("tiny_llama", [("lora", CAUSAL, "stack"), ("lora", CAUSAL, None)], (), False, 8),
        ("tiny_llama", [("lora", CAUSAL, "stack"), ("lora", CAUSAL, "stack"), ("lora", CLASSES, None)], (), False, 12),
        ("tiny_bert", [("lora", CLASSES, None)], (), False, 4),
        ("tiny_bert", [("full", MASKED, "continue"), ("dora", CLASSES, None)], ("<ticket>",), True, 4),
        ("untied_llama", [("headOnly", CAUSAL, "continue"), ("lora", CAUSAL, None)], (), True, 4),
    ],
)
def test_adapter_and_merged_model(
    base: str, stages: Stages, added: tuple[str, ...], own_base: bool, rank: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(base)
    run = Trained(folder, tmp_path, stages, added=added, output={"format": BOTH})
    artifacts = run.publish()
    assert [artifact.kind for artifact in artifacts] == ["adapter", "merged", "modelCard", "report"]
    for kind in BOTH:
        found = json.loads((run.artifacts / kind / "provenance.json").read_text())["verification"]["largestLogitDifference"]
        assert found <= 1e-4
    config = json.loads((run.artifacts / "adapter/adapter_config.json").read_text())
    assert config["r"] == rank
    assert config["base_model_name_or_path"] == str(run.artifacts / "adapter/base" if own_base else folder)
    assert (run.artifacts / "adapter/base").exists() is own_base


@pytest.mark.parametrize("method", ["lora", {"type": "adapter"}])
def test_the_code_on_the_card_loads_the_adapter(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str | dict[str, Any]
) -> None:
    run = Trained(tiny_llama, tmp_path, [(method, CAUSAL, None)])
    run.publish()
    (code,) = [block.split("```")[0] for block in (run.artifacts / "README.md").read_text().split("```python\n")[1:]]
    monkeypatch.chdir(run.artifacts)
    loaded: dict[str, Any] = {}
    exec(code, loaded)
    assert apart(logits(run.model), outputs(loaded["model"]).logits) < 1e-4


@pytest.mark.parametrize(
    ("stages", "published"),
    [
        ([("lora", CAUSAL, None)], OutputFormat.ADAPTER),
        ([("lora", CAUSAL, "stack"), ("lora", CAUSAL, None)], OutputFormat.ADAPTER),
        ([("dora", CAUSAL, "stack"), ("lora", CAUSAL, None)], OutputFormat.MERGED),
        ([("full", CAUSAL, "continue"), ("lora", CAUSAL, None)], OutputFormat.MERGED),
        ([("lora", CAUSAL, "merge"), ("lora", CAUSAL, None)], OutputFormat.MERGED),
        ([("full", CAUSAL, None)], OutputFormat.MERGED),
    ],
)
def test_what_is_published_where_the_manifest_does_not_say(
    tiny_llama: Path, tmp_path: Path, stages: Stages, published: OutputFormat
) -> None:
    run = Trained(tiny_llama, tmp_path, stages)
    assert formats(run.model, run.config) == [published]


LOAD = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
base = json.load(open(f"{folder}/adapter/adapter_config.json"))["base_model_name_or_path"]
ids = torch.arange(4, 36).reshape(2, 16)
models = [
    AutoModelForCausalLM.from_pretrained(f"{folder}/merged"),
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), f"{folder}/adapter"),
    AutoPeftModelForCausalLM.from_pretrained(f"{folder}/adapter"),
]
with torch.no_grad():
    print(json.dumps([model.eval()(input_ids=ids).logits.flatten().tolist() for model in models]))
for kind in ("merged", "adapter"):
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/{kind}")
    assert len(tokenizer.encode("<ticket>")) == 1
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
assert not any(name.startswith("finetune") for name in sys.modules)
"""


def test_another_process_loads_it_with_transformers_and_peft_alone(tiny_llama: Path, tmp_path: Path) -> None:
    stages: Stages = [("full", CAUSAL, "continue"), ("lora", CAUSAL, "stack"), ("lora", CAUSAL, None)]
    run = Trained(tiny_llama, tmp_path, stages, added=("<ticket>",), output={"format": BOTH})
    run.publish()
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(run.artifacts)], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = logits(run.model).flatten()
    for found in json.loads(done.stdout.splitlines()[-1]):
        assert float((torch.tensor(found) - wanted).abs().max() / wanted.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("base", "stages", "auto"),
    [
        ("tiny_llama", [("dora", CAUSAL, "stack"), ("pissa", CAUSAL, "stack"), ("rsLora", CAUSAL, None)], AutoModelForCausalLM),
        ("tiny_llama", [("rsLora", CAUSAL, "stack"), ("dora", CAUSAL, "stack"), ("pissa", CAUSAL, None)], AutoModelForCausalLM),
        ("tiny_llama", [("pissa", CAUSAL, "stack"), ("rsLora", CAUSAL, "stack"), ("dora", CAUSAL, None)], AutoModelForCausalLM),
        (
            "tiny_llama",
            [("pissa", CAUSAL, "stack"), ("dora", CAUSAL, "stack"), ("rsLora", CLASSES, None)],
            AutoModelForSequenceClassification,
        ),
        (
            "tiny_bert",
            [("rsLora", MASKED, "stack"), ("pissa", MASKED, "stack"), ("dora", CLASSES, None)],
            AutoModelForSequenceClassification,
        ),
    ],
    ids=lambda value: " ".join(step[0] for step in value) if isinstance(value, list) else None,
)
def test_a_stack_of_three_comes_back_as_one_plain_model(
    base: str, stages: Stages, auto: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = Trained(request.getfixturevalue(base), tmp_path, stages, output={"format": ["merged"]})
    run.publish()
    loaded = auto.from_pretrained(run.artifacts / "merged")
    assert not [name for name, _ in loaded.named_parameters() if "lora" in name]
    untrained = auto.from_pretrained(request.getfixturevalue(base), num_labels=len(LABELS))
    wanted = logits(run.model)
    assert apart(wanted, outputs(loaded).logits) < 1e-4
    assert apart(wanted, outputs(untrained).logits) > 1e-2, "the stages changed it"


def test_a_classifier_comes_back_with_its_head_and_labels(tiny_bert: Path, tmp_path: Path) -> None:
    run = Trained(tiny_bert, tmp_path, [("lora", CLASSES, None)], output={"format": BOTH})
    run.publish()
    config = json.loads((run.artifacts / "adapter/adapter_config.json").read_text())
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]
    assert config["task_type"] == "SEQ_CLS"
    merged = json.loads((run.artifacts / "merged/config.json").read_text())
    assert list(merged["id2label"].values()) == LABELS
    assert merged["architectures"] == ["BertForSequenceClassification"]
    assert merged["hidden_dropout_prob"] == 0.1


def test_the_same_model_is_published_as_the_same_bytes(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"format": BOTH})
    first, second = ({artifact.kind: artifact.sha256 for artifact in run.publish()} for _ in range(2))
    assert first["adapter"] == second["adapter"]
    assert first["merged"] == second["merged"]


class FullDisk(FileLayer):
    """Fails at the one operation that would make a model visible."""

    def rename(self, source: Path, target: Path) -> None:
        if target.name in BOTH:
            raise TrainerError(Reason.STORAGE_FULL, "no space left", where=str(target))
        super().rename(source, target)


def test_a_failed_publication_leaves_nothing_behind(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"format": BOTH})
    with pytest.raises(TrainerError) as caught:
        run.publish(FullDisk())
    assert caught.value.reason is Reason.STORAGE_FULL
    assert list(run.artifacts.iterdir()) == []
    run.publish()
    assert {path.name for path in run.artifacts.iterdir()} == {"adapter", "merged", "README.md", "provenance.json", "report.html"}


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_stop_between_any_two_steps_leaves_whole_folders_only(tiny_llama: Path, tmp_path: Path, times: int) -> None:
    run, asked = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"format": BOTH}), iter(range(1, times))

    def pause() -> None:
        if next(asked, None) is None:
            raise Stopped("everything so far is saved")

    with pytest.raises(Stopped):
        run.publish(pause=pause)
    assert [path.name for path in sorted(run.artifacts.iterdir())] == BOTH[: times // 2]
    run.publish()
    assert {path.name for path in run.artifacts.iterdir()} == {"adapter", "merged", "README.md", "provenance.json", "report.html"}


def test_weights_have_one_digest_whatever_job_they_are_of(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"format": BOTH})
    local = run.publish()
    pod = PodConfig(attempt=1, run_uri="pvc://runs/team-a/other", image_digest="sha256:1")
    job = run.config.job.model_copy(update={"name": "other", "namespace": "team-a", "uid": "1"})
    run.config = run.config.model_copy(update={"pod": pod, "job": job})
    there = run.publish()
    assert [artifact.uri for artifact in there][:2] == [
        "pvc://runs/team-a/other/artifacts/adapter",
        "pvc://runs/team-a/other/artifacts/merged",
    ]
    assert [artifact.weights_sha256 for artifact in there] == [artifact.weights_sha256 for artifact in local]
    assert [one.sha256 == other.sha256 for one, other in zip(local, there, strict=True)][:2] == [False, False], "their provenance differs"
    assert len({artifact.weights_sha256 for artifact in there}) == 3  # of the adapter, of the model, none of a file


def test_others_may_read_what_is_published(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"format": BOTH})
    run.publish()
    usual = (tmp_path / "rows.jsonl").stat().st_mode
    assert {path.stat().st_mode for path in run.artifacts.rglob("*") if path.is_file()} == {usual}


@pytest.mark.parametrize("content", ["{}", '{"configHash": "of another job"}', "not JSON"])
def test_another_jobs_model_is_not_replaced(tiny_llama: Path, tmp_path: Path, content: str) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"uri": "file://out"})
    (tmp_path / "out/adapter").mkdir(parents=True)
    (tmp_path / "out/adapter/provenance.json").write_text(content)
    with pytest.raises(TrainerError, match="is there already and was not published by this job") as caught:
        run.publish()
    assert caught.value.reason is Reason.INVALID_SPEC
    assert caught.value.where == "spec.output.uri"
    assert (tmp_path / "out/adapter/provenance.json").read_text() == content


def test_a_place_that_is_no_folder_is_refused_before_training(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("lora", CAUSAL, None)], output={"uri": "file://out/model"})
    (tmp_path / "out").write_text("a file")
    with pytest.raises(TrainerError, match="out is not a folder that this user may write to") as caught:
        check_place(run.config)
    assert caught.value.reason is Reason.STORAGE_UNWRITABLE


def test_the_output_may_lie_on_a_claim(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("full", CAUSAL, None)], output={"uri": "pvc://models/cards/one"})
    with pytest.raises(TrainerError, match="--mount models=DIR"):
        run.publish()
    run.config = run.config.model_copy(update={"mounts": {"models": str(tmp_path / "claim")}})
    (tmp_path / "claim").mkdir()
    uris = [artifact.uri for artifact in run.publish()]
    assert uris == [f"pvc://models/cards/one/{name}" for name in ("merged", "README.md", "report.html")]
    assert {path.name for path in (tmp_path / "claim/cards/one").iterdir()} == {"merged", "README.md", "provenance.json", "report.html"}


def test_a_model_that_loads_differently_is_not_published(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("pissa", CAUSAL, None)])
    run.model.taken = {name: 1.01 * tensor for name, tensor in run.model.taken.items()}
    with pytest.raises(TrainerError, match="loads as another model than was trained") as caught:
        run.publish()
    assert caught.value.reason is Reason.INTERNAL_ERROR
    assert list(run.artifacts.iterdir()) == []


def test_a_stack_with_dora_is_not_one_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("dora", CAUSAL, "stack"), ("lora", CAUSAL, None)])
    with pytest.raises(TrainerError, match=r"write format: \[merged\]"):
        adapter.combined(adapter.stacked(run.model))


def test_provenance_says_what_made_it(tiny_llama: Path, tmp_path: Path) -> None:
    run = Trained(tiny_llama, tmp_path, [("full", CAUSAL, None)])
    run.publish()
    found = json.loads((run.artifacts / "merged/provenance.json").read_text())
    assert found["configHash"] == run.config.config_hash
    assert found["datasetHashes"] == run.prepared.provenance.dataset_hashes
    assert found["threads"] == 1
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    cost = found["verification"]["castToBf16"]
    assert 0 < cost["largest_difference"] < 0.1
    assert 0.5 < cost["argmax_agreement"] <= 1
