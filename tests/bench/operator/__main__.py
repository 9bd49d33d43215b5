"""The operator's costs on a real API server: `python -m tests.bench.operator [--jobs N] [--held N] [--rounds N] [--batch N]`.

etcd writes through (fsync), the nodes are kwok's, the operator is the process that is deployed. FineTuneJobs of one segment and plain Jobs
with one container take turns; both end as soon as a pod can. Writes are counted from the audit log and do not depend on the machine's
load, nor does memory; seconds do.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from tests.bench.operator.measure import Bench, Race, Restart, cpu_seconds, ground, peak
from tests.bench.operator.writes import told
from tests.bench.stopping import end_in_order
from tests.cluster.__main__ import sayer

WRITES, MEMORY, CAUGHT_UP = 3.0, 130.0, 10.0
say = sayer()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of the race (3)")
    parser.add_argument("--batch", type=int, default=40, help="jobs of each kind a turn (40)")
    parser.add_argument("--held", type=int, default=500, help="jobs that run at once when the memory is read (500)")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs that are there at the restart, the running ones among them (2000)")
    parser.add_argument("--relist", type=int, default=10, help="seconds from one re-list to the next (10; 60 where nobody says)")
    options = parser.parse_args()
    end_in_order()
    with ground("operator", say, options.relist, fsync=True) as bench:
        return 0 if all(run(bench, options)) else 1


def run(bench: Bench, options: argparse.Namespace) -> list[bool]:
    """Everything in turn. Returns which targets were met."""
    with bench.operator() as operator:
        idle = operator.resident()
        raced = bench.race(options.rounds, options.batch)
        met = [tell_race(raced)]
        bench.fill(options.held, 0)
        met.append(
            tell(f"memory, {options.held} jobs running: {operator.resident():.0f} MB (idle {idle:.0f})", operator.resident(), MEMORY)
        )
        say(f"its peak until then {peak(operator):.0f} MB")
        bench.fill(0, max(0, options.jobs - bench.made))
        say(f"{bench.made} jobs: {operator.resident():.0f} MB, peak {peak(operator):.0f} MB, {cpu_seconds(operator):.1f} s of CPU in all")
        silent = bench.quiet()
        met.append(tell(f"writes in three re-lists of {bench.made} jobs: {told(silent, 1)}", silent.total(), 0))
        operator.stop()
    return [*met, *tell_restart(bench.restart(), bench.made)]


def tell_race(raced: Race) -> bool:
    each = raced.by_operator.total() / raced.jobs
    met = tell(f"writes of the operator a job, Events apart: {each:.2f} ({told(raced.by_operator, raced.jobs)})", each, WRITES)
    everybody = [counted.total() / raced.jobs for counted in (raced.for_ours, raced.for_plain)]
    say(f"writes of everybody a job: {everybody[0]:.1f}, for a plain Job {everybody[1]:.1f}")
    rates = [(plain.rate, ours.rate) for plain, ours in raced.turns]
    say(f"jobs a second: {' '.join(f'{ours:.1f} ({plain:.1f})' for plain, ours in rates)}, {ratio(rates)} of plain Jobs'")
    pods = [(plain.first_pod, ours.first_pod) for plain, ours in raced.turns]
    say(f"seconds to a job's pod: {' '.join(f'{ours:.2f} ({plain:.2f})' for plain, ours in pods)}, {ratio(pods)} of plain Jobs'")
    return met


def tell_restart(found: Restart, jobs: int) -> list[bool]:
    text = f"restart with {jobs} jobs: ready after {found.ready:.1f} s, caught up after {found.caught_up:.1f} s"
    quick = tell(f"{text}, {found.processor:.1f} s of CPU", found.caught_up, CAUGHT_UP)
    still = tell(f"writes for what is unchanged: {told(found.unchanged, 1)}", found.unchanged.total(), 0)
    say(f"then {found.resident:.0f} MB, peak {found.peak:.0f} MB")
    return [quick, still]


def ratio(pairs: list[tuple[float, float]]) -> str:
    """The median of second to first, with its range."""
    ratios = [second / first for first, second in pairs]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def tell(text: str, found: float, most: float) -> bool:
    """Print a figure with its target. Returns whether it is met."""
    met = found <= most
    say(f"{'met   ' if met else 'MISSED'} {text}; at most {most:g}")
    return met


if __name__ == "__main__":
    sys.exit(main())
