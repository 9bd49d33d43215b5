"""Reports come through whatever else is on the pipe."""

from __future__ import annotations

import pytest

from finetune_api.wire import Activity
from finetune_cli.supervisor import Lines

ONE = b'{"activity": "train", "done": 1}\n'
CASES = [
    ("one report", [ONE], [1]),
    ("in two halves", [ONE[:9], ONE[9:]], [1]),
    ("two at once", [ONE + ONE.replace(b"1", b"2")], [1, 2]),
    ("no JSON", [b"warning: something\n" + ONE], [1]),
    ("no report", [b'{"activity": "dance"}\n[]\n\n' + ONE], [1]),
    ("no UTF-8", [b"\xff\xfe\n" + ONE], [1]),
    ("an unknown field", [b'{"activity": "train", "done": 4, "colour": "red"}\n'], [4]),
    ("half a report at the end", [ONE, ONE[:9], b""], [1]),
    ("an endless line", [b"x" * 2_000_000, b"\n" + ONE], [1]),
]


@pytest.mark.parametrize(("chunks", "done"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_reports_are_read_from_the_pipe(chunks: list[bytes], done: list[int]) -> None:
    lines = Lines()
    reports = [report for chunk in chunks for report in lines.feed(chunk)]
    assert [report.done for report in reports] == done
    assert {report.activity for report in reports} == {Activity.TRAIN}


def test_an_endless_line_is_not_kept() -> None:
    lines = Lines()
    for _ in range(64):
        lines.feed(b"x" * 65536)
    assert len(lines._rest) <= 1024 * 1024
