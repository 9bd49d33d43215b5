"""transformers' own KubeflowCallback reports here unchanged: a stock image needs three variables, and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from finetune_operator.progress.contract import KUBEFLOW_PATH
from tests.unit.progress.serving import Serving

SCRIPT: Final = """
import warnings
warnings.simplefilter("ignore")
import torch
from transformers import Trainer, TrainingArguments

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}

rows = [{"x": torch.tensor([float(n), 1.0]), "labels": torch.tensor([float(n)])} for n in range(8)]
arguments = TrainingArguments("OUTPUT", max_steps=6, per_device_train_batch_size=2, logging_steps=1, report_to="none", save_strategy="no",
                              use_cpu=True, disable_tqdm=True)
trainer = Trainer(Model(), arguments, train_dataset=rows)
assert any(type(callback).__name__ == "KubeflowCallback" for callback in trainer.callback_handler.callbacks)
trainer.train()
"""


def test_a_stock_trainer_reports_its_progress(tmp_path: Path) -> None:
    with Serving.begun(tmp_path) as serving:
        token = tmp_path / "token"
        token.write_text("pod-1")
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "KUBEFLOW_TRAINER_SERVER_URL": serving.url + KUBEFLOW_PATH,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(serving.authority),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(token),
        }
        script = SCRIPT.replace("OUTPUT", str(tmp_path / "out"))
        ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert serving.server.answers[200] >= 2, "its beginning and its end are never held back"
    assert set(serving.server.answers) == {200}
    live = serving.live.of("uid-a")
    assert live is not None and live.training is not None
    assert live.update.percent == 100
    assert live.training.loss is not None
