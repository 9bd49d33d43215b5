"""The example of docs/how-to/notebook.md, as it stands there."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path

import pytest
import yaml

from scripts.demo_assets import ROOT
from tests.apiserver.trouble import Scene
from tests.cluster.kubeconfig import write
from tests.cluster.pods import await_value


def test_the_example_of_the_page_runs(
    stage: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/notebook.md").read_text(), re.DOTALL)
    trial = stage.trial("from-a-notebook")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**trial.manifest, "metadata": {"name": trial.name}}))
    config = yaml.safe_load(stage.cluster.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = stage.namespace
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "kubeconfig", config)))

    def train() -> None:
        await_value(lambda: stage.api.find(trial.path), what="the notebook's job", timeout=120)
        trial.succeed(trial.run())

    training = threading.Thread(target=train)
    training.start()
    with contextlib.chdir(tmp_path):
        exec(compile(example, "notebook.md", "exec"), {})
    training.join(120)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "from-a-notebook created"
    assert any(line.startswith("Succeeded None ") for line in told)
    assert told[-1] == f"adapter pvc://runs/artifacts/adapter {'b' * 64}"
