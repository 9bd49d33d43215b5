"""Where a run is tried: a folder with a manifest, its rows and a tiny model, and `finetune run` there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from finetune_cli.errors import CommandError
from finetune_cli.request import RunRequest
from finetune_cli.run import run
from scripts.demo_assets import ROOT
from tests.builders import Document, edited
from tests.failures.base import Told
from tests.tiny import make_tiny_bert, make_tiny_llama
from tests.unit.data.stand_in import StandIn, serve

STUB: Final = Path(__file__).with_name("stub.py")
STARTS_WITHIN: Final = 300
"""Seconds for the imports on a machine that others use too."""


@dataclass(frozen=True)
class Shared:
    """What all grounds use: the models (read only), the hub's stand-in and the server of trainer processes."""

    llama: Path
    bert: Path
    hub: StandIn
    socket: Path


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Shared]:
    """Make the models, and start the hub and the server. The hub's client reads its address once, when it is imported."""
    hub = StandIn()
    socket = folder / "trainer.socket"
    with serve(hub) as endpoint:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {
            **kept,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_ETAG_TIMEOUT": "30",
            "HF_HUB_DISABLE_XET": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "operator", ROOT / "trainer_image"))),
        }
        server = subprocess.Popen([sys.executable, "-m", "tests.failures.server", str(socket)], env=environment)
        try:
            yield Shared(make_tiny_llama(folder / "llama"), make_tiny_bert(folder / "bert"), hub, socket)
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()


def rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows that serve for every objective."""
    kinds = ("bird", "tree")
    return [
        {
            "text": f"the {kinds[i % 2]} number {i} is a small one of the {i}th wood",
            "label": kinds[i % 2],
            "prompt": f"Define: {kinds[i % 2]} {i}",
            "completion": f"a small {kinds[i % 2]}",
        }
        for i in range(count)
    ]


@dataclass
class Ground:
    folder: Path
    shared: Shared
    manifest: Document = field(default_factory=dict)
    mounts: dict[str, Path] = field(default_factory=dict)
    secrets: dict[str, Path] = field(default_factory=dict)
    run_folder: Path = Path("run")
    memory: int | None = None
    """Bytes that a trainer may take beyond its libraries."""
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What must be undone in the end."""

    def __post_init__(self) -> None:
        self.run_folder = self.folder / "run"
        self.rows("rows.jsonl", rows())
        stage = {
            "name": "domain",
            "objective": "causalLanguageModeling",
            "data": {"train": [{"uri": "file://rows.jsonl"}]},
            "method": {"type": "lora", "lora": {"r": 2}},
            "training": {"maxSteps": 2, "perDeviceTrainBatchSize": 2, "learningRate": 0.001},
        }
        self.manifest = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": self.folder.name[:60]},
            "spec": {"model": {"uri": f"file://{self.shared.llama}"}, "stages": [stage], "evaluation": {"samples": {"count": 0}}},
        }

    def edit(self, edits: Mapping[str, Any] | None = None, **stage: Any) -> None:
        """Change the manifest by path; `stage` has fields of its stage."""
        self.manifest = edited(self.manifest, {**(edits or {}), **{f"spec.stages[0].{name}": value for name, value in stage.items()}})

    def rows(self, name: str, lines: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def own_model(self, source: Path | None = None) -> Path:
        """A copy of the model that may be damaged; the manifest names it."""
        folder = self.folder / "model"
        shutil.copytree(source or self.shared.llama, folder)
        self.edit({"spec.model.uri": "file://model"})
        return folder

    def run(self) -> Told:
        """`finetune run`. Returns what it says, and its exit code."""
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(self.manifest, sort_keys=False))
        request = RunRequest(
            manifest=str(path), run_folder=self.run_folder, mounts=self.mounts, secrets=self.secrets, threads=1, quiet=True, output="json"
        )
        memory = ["--memory", str(self.memory)] if self.memory is not None else []
        command = [sys.executable, "-I", "-S", str(STUB), str(self.shared.socket), *memory]
        out, err = io.StringIO(), io.StringIO()
        try:
            code = run(request, stdin=io.BytesIO(), stdout=out, stderr=err, trainer_command=command)
        except CommandError as error:
            return Told(str(error.reason or ""), error.message, error.hint, err.getvalue(), error.exit_code)
        said = json.loads(out.getvalue())
        where = f"{said.get('stage', '')} step {said.get('step', '')}: "
        return Told(said.get("reason", ""), where + said.get("message", ""), said.get("hint", ""), out.getvalue() + err.getvalue(), code)


def await_server(shared: Shared) -> None:
    """Until it listens."""
    until = time.monotonic() + STARTS_WITHIN
    while not shared.socket.exists():
        if time.monotonic() > until:
            raise TimeoutError("the server of trainer processes does not listen")
        time.sleep(0.05)
