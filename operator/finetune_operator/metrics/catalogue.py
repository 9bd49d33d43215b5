"""Every metric: its name, type, labels, and what it says. Nothing is told under a name that does not stand here.

Names of jobs are labels of gauges alone. A histogram or a counter with them would cost tens of series a job, and outlive it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric. `text` is its help, with the unit."""

    name: str
    type: Type
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper ends, of a histogram."""


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Type.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Type.GAUGE, text, labels)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name, Type.HISTOGRAM, text, labels, buckets)


FAST: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0)

# The operator itself
INFO: Final = _gauge("finetune_operator_info", "1; which version runs.", "version")
DEPTH: Final = _gauge("finetune_workqueue_depth", "Jobs that wait to be looked at.")
DELAYED: Final = _gauge("finetune_workqueue_delayed", "Jobs that are to be looked at later: a back-off, a deadline, a node's grace.")
OLDEST: Final = _gauge("finetune_workqueue_oldest_seconds", "Seconds that the job which waits longest has waited; 0 where none waits.")
WAIT: Final = _histogram("finetune_workqueue_wait_seconds", "Seconds from an event to a worker that looks at its job.", buckets=FAST)
RECONCILE: Final = _histogram(
    "finetune_reconcile_seconds", "Seconds that a look at a job took, by its result: done, or again later.", "result", buckets=FAST
)
STATUS_LAG: Final = _histogram(
    "finetune_status_lag_seconds", "Seconds from the event that changed something to the written status that tells of it.", buckets=FAST
)
API_REQUESTS: Final = _counter(
    "finetune_api_requests_total",
    "Requests to the API server, watches apart; code 0 where no answer came.",
    "verb",
    "resource",
    "code",
)
API_SECONDS: Final = _histogram(
    "finetune_api_request_seconds", "Seconds until the API server had answered, watches apart.", "verb", buckets=FAST
)
WATCH_EVENTS: Final = _counter("finetune_watch_events_total", "Events that the watches delivered.", "resource")
WATCH_AGE: Final = _gauge(
    "finetune_watch_age_seconds", "Seconds since a watch last delivered, or since the start; it may have nothing to tell.", "resource"
)
WATCH_LAG: Final = _gauge(
    "finetune_watch_lag_seconds", "Seconds for which a watch has lacked what a list showed; 0 where it lacks nothing.", "resource"
)
RELIST_AGE: Final = _gauge("finetune_relist_age_seconds", "Seconds since everything was last compared with the API server.")
OBJECTS: Final = _gauge("finetune_objects", "Objects that the operator knows.", "resource")

# All jobs together
JOBS: Final = _gauge("finetune_jobs", "FineTuneJobs, by phase; New has no status yet.", "namespace", "phase")
JOBS_WAITING: Final = _gauge("finetune_jobs_waiting", "FineTuneJobs that wait, by the reason of their condition.", "namespace", "reason")
JOBS_NOTICED: Final = _gauge(
    "finetune_jobs_noticed",
    "FineTuneJobs that run and whose trainer notices something: NoProgress, or the reason of a warning in the status.",
    "namespace",
    "reason",
)
JOBS_FINISHED: Final = _counter("finetune_jobs_finished_total", "FineTuneJobs that ended while this operator ran.", "namespace", "outcome")
JOBS_FAILED: Final = _counter("finetune_jobs_failed_total", "FineTuneJobs that failed while this operator ran.", "reason")
ATTEMPTS: Final = _counter("finetune_attempts_total", "Attempts (pods) that ended while this operator ran.", "reason")
PHASE_SECONDS: Final = _histogram(
    "finetune_job_phase_seconds", "Seconds that a job stayed in a phase, when it left it.", "phase", buckets=LONG
)
GPU_SECONDS: Final = _counter(
    "finetune_gpu_seconds_total", "GPUs times the seconds that pods held them, added when a pod ends.", "namespace"
)
GPU_SECONDS_LOST: Final = _counter("finetune_gpu_seconds_lost_total", "Of these, what was done again after a restart.", "namespace")
JOBS_UNTOLD: Final = _gauge("finetune_jobs_untold", "FineTuneJobs without series of their own, because there are more than 2,000 others.")

# Each job
_JOB: Final = ("namespace", "finetunejob")
JOB_INFO: Final = _gauge("finetune_job_info", "1; where a job stands.", *_JOB, "phase", "stage", "model", "methods", "queue", "node")
JOB_PROGRESS: Final = _gauge("finetune_job_progress_ratio", "Share of the whole job that is done, 0 to 1; it never goes back.", *_JOB)
JOB_ETA: Final = _gauge("finetune_job_eta_seconds", "Seconds to the end of the job, estimated.", *_JOB)
JOB_STEP: Final = _gauge("finetune_job_step", "Optimizer steps done in the current stage.", *_JOB)
JOB_STEPS: Final = _gauge("finetune_job_steps", "Optimizer steps of the current stage in all.", *_JOB)
JOB_EPOCH: Final = _gauge("finetune_job_epoch", "Passes over the data of the current stage.", *_JOB)
JOB_LOSS: Final = _gauge("finetune_job_loss", "Training loss a supervised token.", *_JOB)
JOB_LEARNING_RATE: Final = _gauge("finetune_job_learning_rate", "Learning rate of the current stage.", *_JOB)
JOB_GRADIENT_NORM: Final = _gauge("finetune_job_gradient_norm", "Norm of the gradient in the current stage, before it is clipped.", *_JOB)
JOB_TOKENS: Final = _gauge("finetune_job_tokens_per_second", "Tokens that are not padding, a second.", *_JOB)
JOB_GPU_MEMORY: Final = _gauge("finetune_job_gpu_memory_bytes", "What tensors hold of the memory of the GPU that trains.", *_JOB)
JOB_GPU_MEMORY_PEAK: Final = _gauge(
    "finetune_job_gpu_memory_peak_bytes", "The most of its memory that the trainer's process has taken; it stands after the end.", *_JOB
)
JOB_GPU_MEMORY_TOTAL: Final = _gauge("finetune_job_gpu_memory_total_bytes", "The memory that it has; it stands after the end.", *_JOB)
JOB_GPU_UTILIZATION: Final = _gauge(
    "finetune_job_gpu_utilization_ratio", "Share of the second before the last report in which it computed, 0 to 1.", *_JOB
)
JOB_REPORTED: Final = _gauge("finetune_job_reported_timestamp_seconds", "When its trainer's progress was last true.", *_JOB)
JOB_CREATED: Final = _gauge("finetune_job_created_timestamp_seconds", "When the job was made.", *_JOB)
JOB_STARTED: Final = _gauge("finetune_job_started_timestamp_seconds", "When its oldest listed attempt started.", *_JOB)
JOB_FINISHED: Final = _gauge("finetune_job_finished_timestamp_seconds", "When the job ended.", *_JOB)
JOB_ATTEMPTS: Final = _gauge("finetune_job_attempts_spent", "Failed attempts, of spec.retry.maxAttempts, of all segments.", *_JOB)
JOB_PREEMPTIONS: Final = _gauge("finetune_job_preemptions_spent", "Disruptions, of spec.retry.maxPreemptions, of all segments.", *_JOB)
JOB_GPU_SECONDS: Final = _gauge("finetune_job_gpu_seconds", "GPUs times the seconds that pods held them, of attempts that are over.", *_JOB)
JOB_GPU_SECONDS_LOST: Final = _gauge("finetune_job_gpu_seconds_lost", "Of these, what was done again after a restart.", *_JOB)
JOB_STAGE: Final = _gauge(
    "finetune_job_stage_metric",
    "The last figures of a stage: of its training while it runs, and of its validation.",
    *_JOB,
    "stage",
    "metric",
)
JOB_EVALUATION: Final = _gauge(
    "finetune_job_evaluation",
    "What was measured of the base model (baseline), after the last stage (last), its mean over the seeds (seeds), and of a stage trained directly from the base (direct).",
    *_JOB,
    "suite",
    "metric",
    "point",
)
JOB_GATE: Final = _gauge(
    "finetune_job_gate_passed", "1 where the gate on this metric was passed, 0 where it was missed.", *_JOB, "suite", "metric"
)

OPERATOR: Final = (
    INFO, DEPTH, DELAYED, OLDEST, WAIT, RECONCILE, STATUS_LAG, API_REQUESTS, API_SECONDS,
    WATCH_EVENTS, WATCH_AGE, WATCH_LAG, RELIST_AGE, OBJECTS,
)  # fmt: skip
FLEET: Final = (
    JOBS, JOBS_WAITING, JOBS_NOTICED, JOBS_FINISHED, JOBS_FAILED, ATTEMPTS, PHASE_SECONDS, GPU_SECONDS, GPU_SECONDS_LOST, JOBS_UNTOLD,
)  # fmt: skip
JOB: Final = (
    JOB_INFO, JOB_PROGRESS, JOB_ETA, JOB_STEP, JOB_STEPS, JOB_EPOCH, JOB_LOSS, JOB_LEARNING_RATE, JOB_GRADIENT_NORM, JOB_TOKENS,
    JOB_GPU_MEMORY, JOB_GPU_MEMORY_PEAK, JOB_GPU_MEMORY_TOTAL, JOB_GPU_UTILIZATION, JOB_REPORTED, JOB_CREATED, JOB_STARTED, JOB_FINISHED,
    JOB_ATTEMPTS, JOB_PREEMPTIONS, JOB_GPU_SECONDS, JOB_GPU_SECONDS_LOST, JOB_STAGE, JOB_EVALUATION, JOB_GATE,
)  # fmt: skip

# Bounds: docs/reference/metrics.md tells them.
MOST_JOBS: Final = 2000
"""Jobs with series of their own."""
MOST_MEASURED: Final = 32
"""Pairs of suite and metric of a job."""
MOST_STAGE_METRICS: Final = 16
"""Of all stages of a job."""
MOST_CHARACTERS: Final = 128
"""Of a label's value."""
KEPT_SECONDS: Final = 3600.0
"""For so long after its end a job keeps series of its own, and a namespace its totals after its last job."""
