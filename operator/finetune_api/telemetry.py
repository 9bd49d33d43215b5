"""What a trainer's pod tells at its own `/metrics`, where its runtime gives it a port: names, types and meanings, for the trainer that tells
them and for the page that explains them. All are gauges, since all of them begin anew with each pod."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PodMetric:
    """One gauge. `field`: of a report, that it is made of; empty for those that are made of more. `factor`: what that is multiplied by."""

    name: str
    text: str
    field: str = ""
    factor: float = 1.0
    labels: tuple[str, ...] = ()


ACTIVITY: Final = PodMetric("finetune_trainer_activity", "1; what the process is doing.", labels=("activity", "stage", "suite"))
DONE: Final = PodMetric("finetune_trainer_units_done", "Units of what it is doing that are done: steps, rows, files.", labels=("unit",))
TOTAL: Final = PodMetric("finetune_trainer_units", "Units of it in all.", labels=("unit",))
BEAT: Final = PodMetric("finetune_trainer_silence_seconds", "Seconds since something last advanced: a micro-batch, a row, a chunk.")
NOTICED: Final = PodMetric("finetune_trainer_noticed", "1 for each thing that it notices of itself now.", labels=("reason",))
VALIDATION: Final = PodMetric("finetune_trainer_validation", "The last validation of the stage that trains.", labels=("stage", "metric"))
FIGURES: Final = (
    PodMetric("finetune_trainer_progress_ratio", "Share of the whole job that is done, 0 to 1.", "percent", 0.01),
    PodMetric("finetune_trainer_eta_seconds", "Seconds to the end of the job, at the pace of this process.", "eta_seconds"),
    PodMetric("finetune_trainer_step", "Optimizer steps done in the current stage.", "done"),
    PodMetric("finetune_trainer_steps", "Optimizer steps of the current stage in all.", "total"),
    PodMetric("finetune_trainer_epoch", "Passes over the data of the current stage.", "epoch"),
    PodMetric("finetune_trainer_loss", "Training loss a supervised token, of the newest step.", "loss"),
    PodMetric("finetune_trainer_learning_rate", "Learning rate of that step.", "learning_rate"),
    PodMetric("finetune_trainer_gradient_norm", "Norm of its gradient, before it is clipped.", "grad_norm"),
    PodMetric("finetune_trainer_tokens_per_second", "Tokens that are not padding, a second.", "tokens_per_second"),
)
GPU: Final = (
    PodMetric("finetune_trainer_gpu_memory_bytes", "What tensors hold of the memory of the GPU that trains.", "gpu_memory_bytes"),
    PodMetric("finetune_trainer_gpu_memory_peak_bytes", "The most of it that the process has taken.", "gpu_memory_peak_bytes"),
    PodMetric("finetune_trainer_gpu_memory_total_bytes", "What that GPU has.", "gpu_memory_total_bytes"),
    PodMetric(
        "finetune_trainer_gpu_utilization_ratio",
        "Share of the last second, about, in which it computed, 0 to 1.",
        "gpu_utilization_percent",
        0.01,
    ),
)
POD: Final = (ACTIVITY, DONE, TOTAL, BEAT, NOTICED, *FIGURES, VALIDATION, *GPU)
