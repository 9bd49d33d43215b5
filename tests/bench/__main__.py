"""`make bench`: every bench in turn, each in a process of its own, each printing its table with the target beside the figure.

`python -m tests.bench [NAME …]` runs some of them. Learning and the table of methods are benches of their own (`make bench-learning`,
`make bench-methods`): they take the better part of an hour, and of four.
"""

from __future__ import annotations

import sys

from tests.bench.stopping import end_in_order, run

BENCHES = {
    "throughput": "Speed: non-pad tokens a CPU second against a bare torch loop and TRL",
    "guards": "What a step with each guard costs, beside the same step without",
    "methods.speed": "A step with each method against PEFT and transformers' Trainer alone",
    "start": "Start: process start to first step against TRL's script, cold and with prepare done",
    "validate": "CPU of `finetune validate` for a job of ten stages",
    "prepare": "Memory of `prepare` on 1 GB of JSONL, and its second run",
    "saves": "What an asynchronous save blocks, against a synchronous one",
    "operator": "The operator: writes a job, memory, silence, restart; and its speed beside plain Jobs",
    "operator.churn": "2,000 jobs made and deleted: what is left of series, open files and memory",
    "operator.reporting": "1,000 jobs that report: staleness, writes a second, cores; and one pod that floods",
    "operator.finished": "10,000 jobs that have ended: memory, silence, restart",
    "operator.race": "The race with plain Jobs: a burst of 500 and of 2,000, five a second, and jobs of two stages with prepare",
    "agreement": "Evaluation losses against a plain script on transformers' Trainer",
}


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    end_in_order()
    failed = []
    for name in names or BENCHES:
        print(f"\n== {BENCHES[name]} (python -m tests.bench.{name})", flush=True)
        if run([sys.executable, "-m", f"tests.bench.{name}"]):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
