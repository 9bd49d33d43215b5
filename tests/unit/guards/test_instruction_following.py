"""Early stopping by the Instruction Following Score: what a real, tiny classifier makes of a stage's answers, and which classifiers are refused."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification

from finetune_api.constants import Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.training import EarlyStopping
from finetune_api.wire import Activity, TrainerConfig
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.data import classifiers
from finetune_trainer.data.models import LocatedModel
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import load_prepared
from finetune_trainer.engine.precision import Precision
from finetune_trainer.engine.validation import Aborted
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.evaluation import instruction_following
from finetune_trainer.evaluation.instruction_following import InstructionFollowing, Judge, spread
from finetune_trainer.modeling.classifier import load_classifier
from finetune_trainer.progress import NullReporter
from finetune_trainer.recipe import train_stages
from finetune_trainer.tokenizer import own_tokenizer
from finetune_trainer.work import open_run

AT = "spec.stages[0].training.earlyStopping.classifier"
ANSWER = "yes, that is the answer"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers that was trained to know an answer by its first words."""
    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    answers = [f"yes, that is {word}" for word in ("the answer", "the answer. the answer", "it", "so", "the answer and more")]
    others = ["and then they went on", "water in the river", "of a small kind", "used in many places", "a person who"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification.from_pretrained(tiny_bert, id2label={0: "continuation", 1: "answer"}).eval()
    batch = tokenizer(answers + others, padding=True, return_tensors="pt")
    labels = torch.tensor([1] * 5 + [0] * 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(folder: Path, model: Path, classifier: Path | str, *, segment: int = 1, **more: Any) -> TrainerConfig:
    rows = [
        {"prompt": f"is {word} a thing?", "completion": ANSWER}
        for word in ["river", "stone", "water", "house", "tree", "hand", "light", "word"] * 3
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row | {"prompt": f"{n} {row['prompt']}"}) + "\n" for n, row in enumerate(rows)))
    rule = {"metric": "eval_instruction_following", "patience": 2, "prompts": 6, "maxNewTokens": 8}
    stage = {
        "name": "task",
        "objective": "supervised",
        "data": {"train": [{"uri": "file://rows.jsonl"}], "validation": {"fraction": 0.3}},
        "method": {"type": "lora", "lora": {"r": 8, "alpha": 16}},
        "training": {
            "maxSteps": 60,
            "learningRate": 3e-3,
            "perDeviceTrainBatchSize": 8,
            "perDeviceEvalBatchSize": 4,
            "warmupSteps": 0,
            "lrSchedulerType": "constant",
            "loggingSteps": 1,
            "earlyStopping": {**rule, "classifier": {"uri": f"file://{classifier}", **more}},
        },
        "evalSteps": 2,
    }
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "test"}}
    planned = FineTuneJob.model_validate({**job, "spec": {"model": {"uri": f"file://{model}"}, "stages": [stage]}})
    runtime = Runtime(run_folder=str(folder / "run"), base_folder=str(folder), mounts={}, secret_files={})
    return plan(planned, runtime=runtime).segments[segment]


class StopAt:
    """Asks for a stop at the report number `at` of the prompts that are answered, twice in a measurement."""

    def __init__(self, flag: StopFlag, at: int | None) -> None:
        self._flag, self._left = flag, at

    def report(self, activity: Activity, **fields: Any) -> None:
        if self._left and fields.get("unit") == "prompts":
            self._left -= 1
            if not self._left:
                self._flag.request("SIGTERM")


def run(config: TrainerConfig, *, stop_at: int | None = None) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Train; return the weights, the curve and the record of the stage."""
    prepare(config, NullReporter())
    flag = StopFlag()
    model = train_stages(open_run(config, StopAt(flag, stop_at), flag))
    assert model is not None
    at = max(Path(config.run_folder).glob("epochs/*/stages/0-task"))
    curve = [json.loads(line) for line in (at / "curve.jsonl").read_text().splitlines()]
    timeless = [{name: value for name, value in point.items() if name != "tokensPerSecond"} for point in curve]
    weights = {name: value.detach().clone() for name, value in model.module.named_parameters() if value.requires_grad}
    return weights, timeless, json.loads((at / "resolved.json").read_text())


def test_a_stage_ends_by_its_score_and_a_resumed_one_in_the_same_bytes(tiny_llama: Path, classifier: Path, tmp_path: Path) -> None:
    undisturbed = run(config_of(folder(tmp_path / "a"), tiny_llama, classifier))
    weights, curve, record = undisturbed
    scores = {point["step"]: point["evalInstructionFollowing"] for point in curve if "evalInstructionFollowing" in point}
    best = min(step for step, score in scores.items() if score == max(scores.values()))
    assert next(iter(scores.values())) < 0.5 < max(scores.values()) == record["best"], "it learns to answer"
    assert record["stoppedEarly"] and record["steps"] == best + 4, "two measurements after the best"
    assert record["metrics"]["eval_instruction_following"] == scores[record["steps"]]
    for stop_at in (best, best + 1):  # the measurement after the best half done, then done
        config = config_of(folder(tmp_path / str(stop_at)), tiny_llama, classifier)
        with pytest.raises(Stopped):
            run(config, stop_at=stop_at + 1)
        resumed = run(config)
        assert resumed[1:] == undisturbed[1:]
        assert all(torch.equal(value, resumed[0][name]) for name, value in weights.items())


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_judged_is_in_the_provenance(tiny_llama: Path, classifier: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_llama, classifier)
    prepare(config, NullReporter())
    prepared = load_prepared(config)
    (report,) = prepared.report.classifiers
    assert (report.stage, report.field, report.folder) == ("task", AT, str(classifier))
    assert prepared.provenance.dataset_hashes[f"file://{classifier}"] == report.sha256
    other = Path(shutil.copytree(classifier, tmp_path / "other"))
    (other / "special_tokens_map.json").write_text("{}\n")
    prepare(config_of(tmp_path, tiny_llama, other), NullReporter())
    (changed,) = load_prepared(config_of(tmp_path, tiny_llama, other)).report.classifiers
    assert changed.sha256 != report.sha256


def test_where_nothing_changed_no_tokenizer_is_loaded(
    tiny_llama: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[Path]()
    monkeypatch.setattr(classifiers, "own_tokenizer", lambda folder, where: loaded.append(folder))
    config = config_of(tmp_path, tiny_llama, classifier)
    for _ in range(2):
        prepare(config, NullReporter(), clock=lambda: time.time_ns() + 60_000_000_000)  # as a minute after the files were written
        assert loaded == [classifier]


def test_a_branch_of_the_hub_stays_at_its_first_commit(
    tiny_llama: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[dict[str, Any]]()

    def locate(uri: str, **options: Any) -> LocatedModel:
        asked.append({"uri": uri, **{name: options[name] for name in ("revision", "credentials", "where")}})
        return LocatedModel(classifier, "a" * 40)

    monkeypatch.setattr(classifiers, "locate_folder", locate)
    config = config_of(tmp_path, tiny_llama, classifier, uri="hf://owner/answers", credentials="hub")
    prepare(config, NullReporter())
    prepare(config, NullReporter())
    first = {"uri": "hf://owner/answers", "revision": None, "credentials": "hub", "where": f"{AT}.uri"}
    assert asked == [first, {**first, "revision": "a" * 40}]
    assert "hf://owner/answers" in load_prepared(config).provenance.dataset_hashes


def edit(**changes: Any) -> Callable[[Path], object]:
    def apply(at: Path) -> None:
        document = {**json.loads((at / "config.json").read_text()), **changes}
        (at / "config.json").write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return apply


def headless(at: Path) -> None:
    """A base model whose configuration claims more than its weights have."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(at / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}, at / "model.safetensors")


def garbled(at: Path) -> None:
    (at / "tokenizer.json").write_text("{}\n")


@pytest.mark.parametrize(
    ("change", "fields", "reason", "says"),
    [
        (lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), {}, Reason.MODEL_UNSAFE, f"{AT}.uri: "),
        (edit(auto_map={"AutoModel": "x.Y"}), {}, Reason.MODEL_UNSAFE, "asks for code of its own (auto_map: AutoModel)"),
        (edit(architectures=["BertModel"]), {}, Reason.MODEL_UNSUPPORTED, "is BertModel, and not a trained sequence classifier"),
        (headless, {}, Reason.MODEL_UNSUPPORTED, "lack classifier.bias, classifier.weight"),
        (garbled, {}, Reason.MODEL_UNSUPPORTED, f"{AT}.uri: transformers can't load the tokenizer in"),
        (edit(id2label={"0": "score"}), {}, Reason.MODEL_UNSUPPORTED, "does not choose one of several classes"),
        (edit(problem_type="regression"), {}, Reason.MODEL_UNSUPPORTED, "does not choose one of several classes"),
        (None, {"label": "reply"}, Reason.INVALID_SPEC, f"{AT}.label: the classifier has no label 'reply': write the one of continuation, answer"),
        (edit(id2label=None), {}, Reason.INVALID_SPEC, "write the one of LABEL_0, LABEL_1 that means an answer"),
        (shutil.rmtree, {}, Reason.SOURCE_NOT_FOUND, f"{AT}.uri: there is no folder"),
    ],
    ids=["pickle only", "code", "no head by its name", "no head in its weights", "tokenizer", "one class", "regression", "label", "no labels", "nothing"],
)  # fmt: skip
def test_classifiers_that_are_refused_before_anything_is_trained(
    tiny_llama: Path, classifier: Path, tmp_path: Path, change: Callable[[Path], object] | None, fields: dict[str, Any], reason: Reason, says: str
) -> None:  # fmt: skip
    other = Path(shutil.copytree(classifier, tmp_path / "other"))
    if change is not None:
        change(other)
    with pytest.raises(TrainerError) as caught:
        prepare(config_of(tmp_path, tiny_llama, other, segment=0, **fields), NullReporter())
    assert (caught.value.reason, says in str(caught.value)) == (reason, True), caught.value


def test_weights_that_went_missing_since_are_refused(classifier: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(classifier, tmp_path / "other"))
    headless(other)
    with pytest.raises(TrainerError, match=r"stage task: the weights in .* lack classifier\.bias") as caught:
        load_classifier(other, where="stage task")
    assert caught.value.hint and caught.value.hint.startswith("Point it at a sequence classifier")


def test_a_judge(classifier: Path) -> None:
    judge = Judge(load_classifier(classifier, where="x"), own_tokenizer(classifier), 1, 16, CPU)
    assert [judge.is_answer(text) for text in (ANSWER, f" {ANSWER}\n", "and then they went on", "", " \n")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert judge.is_answer(f"{ANSWER} " * 100), "what is too long is cut"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert judge.is_answer(ANSWER)


def test_the_score_is_the_share_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the prompts that are chosen, whatever their number; asked in batches; a signal ends it."""

    class Word:
        def is_answer(self, text: str) -> bool:
            return text == "answer"

    def write(model: Any, tokenizer: Any, prompts: list[int], **options: Any) -> list[str]:
        assert not model.training and options["max_new_tokens"] == 64
        return ["answer" if prompt % 4 == 0 else "more" for prompt in prompts]

    monkeypatch.setattr(instruction_following, "prompt_of", lambda rows, index: index)
    monkeypatch.setattr(instruction_following, "complete", write)
    rule = EarlyStopping.model_validate({"metric": "eval_instruction_following", "classifier": {"uri": "file://x"}, "prompts": 8})
    precision = Precision(torch.float32, torch.float32, None)
    score = InstructionFollowing(Word(), None, range(16), rule, [], precision, CPU, 3)  # type: ignore[arg-type]
    model, seen = nn.Linear(1, 1), list[tuple[int, int]]()
    assert score(model, lambda: False, lambda done, total: seen.append((done, total))) == 0.5
    assert seen == [(3, 8), (6, 8), (8, 8)] and model.training
    with pytest.raises(Aborted):
        score(model, lambda: True, lambda done, total: None)


@pytest.mark.parametrize(("rows", "asked", "chosen"), [(3, 8, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (8, 8, list(range(8)))])
def test_prompts_are_spread_over_all_rows(rows: int, asked: int, chosen: list[int]) -> None:
    assert spread(rows, asked) == chosen
