"""docs/reference/metrics.md, written from the catalogue: `python -m finetune_operator.metrics.reference`."""

from __future__ import annotations

from collections.abc import Iterable

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


def page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        _table("The operator", catalogue.OPERATOR),
        "Beside them those of every Python process: `process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds` and so on.\n",
        _table("All jobs", catalogue.FLEET),
        _table("Each job", catalogue.JOB),
    ]
    return "\n".join(parts)


def _table(title: str, metrics: Iterable[Metric]) -> str:
    rows = [f"| `{metric.name}` | {metric.type} | {_labels(metric)} | {metric.text} |" for metric in metrics]
    return "\n".join([f"## {title}\n", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{name}`" for name in metric.labels)


if __name__ == "__main__":
    print(page(), end="")
