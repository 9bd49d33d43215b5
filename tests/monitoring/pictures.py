"""`python -m tests.monitoring.pictures FOLDER`: a picture of each board and of `finetune watch`, for a look at them and for docs/pictures.

A real control plane, the real operator, a real Prometheus with the chart's rules. Nodes are kwok's, and what the trainers report is invented here, at
such a pace that a job is over in two minutes. The terminal is tmux's.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scripts.demo_assets import ROOT
from tests.apiserver.operators import WHOLE, Operator
from tests.apiserver.trouble_job import Trial, said
from tests.cluster import Cluster, Wanted
from tests.cluster.api import Object
from tests.cluster.pods import await_value
from tests.monitoring import BOARDS
from tests.monitoring.picture import draw
from tests.monitoring.play import LOSS, Platform, scope
from tests.monitoring.play import report as tell
from tests.monitoring.screen import drawn
from tests.monitoring.server import Prometheus

NAMESPACE: Final = "team-a"
MODEL: Final = "hf://owner/model-1.7b"
STEPS: Final = 1000
LOOKS: Final = 40
EVERY: Final = 2.0
OTHERS: Final = {"intents-small": 1.6, "nightly-eval": 2.4, "style-guide": 0.9}
"""Jobs beside it, by their pace."""
WIDTHS: Final = (100, 40)
FLAT: Final = "stage task: over 400 steps the training loss has fallen by less than 1 %"


def main(folder: Path) -> None:
    """Play, and draw."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        Cluster.up(Path(place) / "cluster", Wanted(kwok_nodes=3, definitions=sorted((ROOT / "crds").glob("*.yaml")))) as cluster,
    ):
        cluster.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await_value(lambda: cluster.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), what="a service account")
        with (
            Platform(cluster, NAMESPACE) as platform,
            Operator.running(cluster.kubeconfig, Path(place) / "operator.log", "--relist-seconds", "5", program=WHOLE) as operator,
            Prometheus.running(Path(place) / "prometheus", f"127.0.0.1:{operator.metrics_port()}") as server,
        ):
            play(platform, cluster.kubeconfig, folder)
            for board in BOARDS:
                draw(board, server, folder / f"board-{board.stem.removeprefix('finetune-')}.png", **scope(board, NAMESPACE))


def play(platform: Platform, kubeconfig: Path, folder: Path) -> None:
    """A job that loses a pod and ends well, one that fails, one that waits, and others beside them; with the screens while they run."""
    support, broken, waits = (platform.trial(name, nowhere=name == "waits", model=MODEL) for name in ("support", "broken", "waits"))
    others = {platform.trial(name, model=MODEL): pace for name, pace in OTHERS.items()}
    waits.submit()
    pods = {trial: trial.start() for trial in (support, *others)}
    doomed = broken.start()
    for look in range(LOOKS):
        if look == LOOKS // 3:
            broken.puppet.finish(
                doomed,
                11,
                said("Failed", 11, reason="DataInvalid", stage="task", message="train.jsonl, line 3: the column text is missing"),
            )
        if look == LOOKS // 2:
            lost = said("Failed", 1, reason="InternalError", stage="task", step=500, message="it broke")
            support.puppet.finish(pods[support], 1, lost)
            pods[support] = support.run(2)
        step = look * STEPS // LOOKS
        report(support, step - (60 if look >= LOOKS // 2 else 0), reached=step if look < LOOKS // 2 else STEPS // 2)
        for trial, pace in others.items():
            report(trial, min(STEPS, round(step * pace)), flat=trial.name == "style-guide")
        if look == 2 * LOOKS // 3:
            for width in WIDTHS:
                drawn(["watch"], folder / f"watch-{width}", kubeconfig=kubeconfig, namespace=NAMESPACE, columns=width)
        time.sleep(EVERY)
    support.succeed(pods[support], resumedFromStep=440, stepsLost=60, evaluation=[LOSS])
    time.sleep(5 * EVERY)


def report(trial: Trial, step: int, *, reached: int = 0, flat: bool = False) -> None:
    """What a trainer says after a step, with an invented loss. reached: the farthest step of any attempt."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    share, wave = step / STEPS, 0.06 * math.sin(step / 7)
    loss = 2.31 + wave if flat else 0.7 + 1.9 * math.exp(-3.5 * share) + wave
    left = round((1 - share) * LOOKS * EVERY)
    progress: Object = {
        "percent": min(99, round(100 * max(step, reached) / STEPS)),
        "step": step,
        "totalSteps": STEPS,
        "epoch": round(3 * share, 3),
        "loss": float(f"{loss:.4g}"),
        "tokensPerSecond": 5120.0 + 200 * wave,
        "etaSeconds": left,
        "eta": f"{left // 60}m{left % 60}s" if left >= 60 else f"{left}s",
        "gpuMemoryBytes": int((38 + 20 * wave) * 2**30),
        "gpuMemoryPeakBytes": 48 * 2**30,
        "gpuMemoryTotalBytes": 80 * 2**30,
        "gpuUtilizationPercent": round(93 + 60 * wave),
    }
    warnings = [{"reason": "LossFlat", "message": FLAT, "since": now}] if flat and step > 400 else []
    rate = 1e-4 * min(1.0, 10 * share) * (1 - 0.9 * share)
    tell(
        trial, now, progress, warnings=warnings, learning_rate=rate, grad_norm=round(1.2 + 4 * abs(wave), 3), eval_loss=round(loss + 0.1, 4)
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.monitoring.pictures FOLDER")
    main(Path(sys.argv[1]))
