"""docs/reference/metrics.md, written from the catalogue: `python -m finetune_operator.metrics.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune_api import telemetry
from finetune_operator.metrics import catalogue
from finetune_operator.metrics.catalogue import Metric

_HEAD = f"""\
# Metrics

Written by `python -m finetune_operator.metrics.reference` from `finetune_operator/metrics/catalogue.py`. The operator serves them at `/metrics`, port 8081.
[How to monitor](../how-to/monitoring.md) says how Prometheus comes to them; [the alerts](../how-to/alerts.md) what to do when one fires.

## How many series there are

A metric of one job is a gauge that is made from the job's status at each scrape: it ends with the job. Histograms and counters never have a job's name.

- Jobs have series of their own until {catalogue.KEPT_SECONDS / 3600:g} hour after their end, and at most {catalogue.MOST_JOBS:,} jobs at once, those that have not ended first. The rest count
  in the totals, and in `{catalogue.JOBS_UNTOLD.name}`.
- A job has at most {catalogue.MOST_MEASURED} pairs of suite and metric, those with a gate first, and {catalogue.MOST_STAGE_METRICS} figures of its stages: 20 to 40 series commonly, 130 at most.
- A label's value has at most {catalogue.MOST_CHARACTERS} characters, of any script; control characters become spaces. Reasons come from a closed list; any other is `Other`.
- A namespace's counters end {catalogue.KEPT_SECONDS / 3600:g} hour after its last job.

Counters begin at 0 when the operator starts, as Prometheus expects. What a former operator wrote into a status is not counted a second time.
"""


_POD = """\
## A pod's own

Where its runtime gives it a port ([metricsPort](runtime.md)), a pod that prepares or trains tells these at `/metrics`, until it ends. They have no name of a
job: Prometheus adds the pod's labels. [How to monitor](../how-to/monitoring.md#metrics-of-the-pods-themselves) says when they are worth it.
"""


def page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        _table("The operator", catalogue.OPERATOR),
        "Beside them those of every Python process: `process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds` and so on.\n",
        _table("All jobs", catalogue.FLEET),
        _table("Each job", catalogue.JOB),
        _POD,
        _rows([(metric.name, "gauge", metric.labels, metric.text) for metric in telemetry.POD]),
        "Beside them those of every process: `process_resident_memory_bytes`, `process_cpu_seconds_total` and so on.\n",
    ]
    return "\n".join(parts)


def _table(title: str, metrics: Iterable[Metric]) -> str:
    return f"## {title}\n\n" + _rows([(metric.name, metric.type, metric.labels, metric.text) for metric in metrics])


def _rows(metrics: Iterable[tuple[str, str, Sequence[str], str]]) -> str:
    rows = [f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |" for name, kind, labels, text in metrics]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
