"""Jobs that are made and deleted, and what the operator holds of them then: `python -m tests.bench.operator.churn [--jobs N]`.

All of it twice: what the first time leaves may be a cache that is filled once, what the second leaves on top is a leak. `tests/apiserver` holds
the same for fewer jobs, without their memory.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.operator.measure import Churn, ground
from tests.bench.operator.table import Table
from tests.bench.stopping import end_in_order
from tests.cluster.__main__ import sayer

SERIES, FILES, MEMORY = 0.0, 2.0, 10.0
say = sayer()


def tell(found: Churn, jobs: int, table: Table) -> None:
    say(f"a scrape of {jobs} jobs: {found.series} series, {found.seconds:.2f} s, {found.most:.0f} MB")
    table.most(f"series that {jobs} jobs made and deleted left: {found.series_left}", found.series_left, SERIES)
    table.most(f"open files that they left: {found.files_left} of {found.files}", found.files_left, FILES)
    table.most(f"memory that they left: {found.megabytes_left:.1f} MB of {found.megabytes:.0f}", found.megabytes_left, MEMORY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs that are made and deleted, twice (2000)")
    parser.add_argument("--relist", type=int, default=10, help="seconds from one re-list to the next (10; 60 where nobody says)")
    options = parser.parse_args()
    end_in_order()
    table = Table(say)
    with ground("churn", say, options.relist) as bench:
        tell(bench.churn(options.jobs), options.jobs, table)
    return table.code


if __name__ == "__main__":
    sys.exit(main())
