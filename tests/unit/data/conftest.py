"""A small job around the data of a test, prepared the way `finetune run` prepares it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import TrainerConfig
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import Prepared, load_prepared
from finetune_trainer.progress import NullReporter


class Job:
    """Builds a TrainerConfig whose files lie under `folder`, and prepares it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = f"file://{model}"
        self.mounts: dict[str, str] = {}
        self.secret_files: dict[str, str] = {}

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def file(self, name: str, content: bytes | str | list[Any]) -> str:
        """Write a file (a list: as JSON lines) and return its URI."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"file://{name}"

    def config(
        self,
        train: str | list[dict[str, Any]],
        objective: str = "causalLanguageModeling",
        *,
        validation: dict[str, Any] | None = None,
        suites: list[dict[str, Any]] | None = None,
        training: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        stages: list[dict[str, Any]] | None = None,
        method: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        **data: Any,
    ) -> TrainerConfig:
        sources = [{"uri": train}] if isinstance(train, str) else train
        stage = {
            "name": "a",
            "objective": objective,
            "data": {"train": sources, **data, **({"validation": validation} if validation else {})},
            "method": method or {"type": "full"},
            "training": training or {},
            **(fields or {}),
        }
        spec = {
            "model": {"uri": self.model, **(model or {})},
            "stages": [stage, *(stages or [])],
            "evaluation": {"suites": suites or []},
        }
        job = FineTuneJob.model_validate(
            {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "test"}, "spec": spec}
        )
        runtime = Runtime(run_folder=str(self.run), base_folder=str(self.folder), mounts=self.mounts, secret_files=self.secret_files)
        return plan(job, runtime=runtime).segments[0]

    def prepare(self, *args: Any, **options: Any) -> Prepared:
        config = self.config(*args, **options)
        prepare(config, NullReporter())
        return load_prepared(config)


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path) -> Job:
    """A job on the tiny Llama."""
    return Job(tmp_path, tiny_llama)


@pytest.fixture
def bert_job(tmp_path: Path, tiny_bert: Path) -> Job:
    """A job on the tiny BERT."""
    return Job(tmp_path, tiny_bert)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[[Path], Job]:
    """A job on another model."""
    return lambda model: Job(tmp_path, model)
