"""What the cluster's commands print, of jobs in every state: tables, stories, boards, at every width, with and without colour."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
import yaml
from rich.console import Console

from finetune_cli.cluster.board import Lines, frame
from finetune_cli.cluster.documents import printed
from finetune_cli.cluster.rows import table, value_at
from finetune_cli.cluster.story import story
from finetune_cli.cluster.words import LONGEST, age, safe, safe_line, seconds_of, span
from finetune_cli.terminal import coloured, plain
from finetune_client.objects import Event, Job
from tests.unit.cli.seen_jobs import DONE, FAILED, NEW, NOW, RUNNING, WAITING, seen

ALL = [DONE, FAILED, NEW, RUNNING, WAITING]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param("plain text, naïve café, 日本語, 👩‍💻", "plain text, naïve café, 日本語, 👩‍💻", id="what people write"),
        pytest.param("\x1b[31mred\x1b[0m", "red", id="colours"),
        pytest.param("a\x1b[2J\x1b[1;1Hb", "ab", id="the screen is cleared"),
        pytest.param("\x1b]0;title\x07x\x1b]52;c;cGFzc3dk\x1b\\y", "xy", id="the title and the clipboard are set"),
        pytest.param("\x1bPq#0\x1b\\x\x9b31my", "xy", id="a picture, and a sequence of one byte"),
        pytest.param("\x1b]0;never ended", "", id="a sequence without an end"),
        pytest.param("a\x1b", "a", id="an escape at the end"),
        pytest.param("a\x00\x07\x08b\x7f", "ab", id="control characters"),
        pytest.param("user\u202etxt.exe\u2066", "usertxt.exe", id="text that runs backwards"),
        pytest.param("x\ud800y", "x�y", id="half a character"),
        pytest.param("\tindented", "\tindented", id="a tab"),
    ],
)
def test_nothing_that_is_shown_moves_a_terminal(raw: str, shown: str) -> None:
    assert safe(raw) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("  0%|\r 50%|###\r100%|######\r", "100%|######"),
        ("windows\r\n", "windows"),
        ("\r\r", ""),
        ("x" * 1_000_000, "x" * LONGEST + " … (991,808 characters more)"),
        ("\x1b[A" * 500_000, " … (1,491,808 characters more)"),
    ],
    ids=["a progress bar", "a line of Windows", "nothing", "a megabyte", "a megabyte of escapes"],
)
def test_a_line_of_a_log_is_one_line(raw: str, shown: str) -> None:
    assert safe_line(raw).lstrip("\x1b") == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (200, "3m20s"), (3_599, "59m"), (7_500, "2h5m"), (90_000, "1d1h"), (86_400 * 40, "40d")],
)
def test_an_age_has_two_units_at_most(seconds: float, words: str) -> None:
    assert (span(seconds), age(NOW - timedelta(seconds=seconds), NOW)) == (words, words)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("1h30m", 5_400), ("2d", 172_800), ("soon", None), ("", None), ("1h30", None), ("-5m", None)],
)
def test_a_duration_is_read_or_refused(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_the_table_has_kubectls_columns() -> None:
    lines = table([RUNNING, NEW], now=NOW).splitlines()
    assert lines == [
        "NAME             PHASE    STAGE  PROGRESS  LOSS    ETA   QUEUE  AGE",
        "support-intents  Running  task   41%       0.8123  1h0m  gpus   1h35m",
        "new              -        -      -         -       -     -      6s",
    ]
    assert table([RUNNING], now=NOW, namespaces=True, wide=True).split()[:2] == ["NAMESPACE", "NAME"]


@pytest.mark.parametrize("width", range(20, 121, 4))
def test_a_table_never_is_wider_than_the_terminal(width: int) -> None:
    jobs = [*ALL, seen("a-name-of-sixty-three-characters-" + "x" * 30, "Running", currentStage="a-stage")]
    lines = table(jobs, now=NOW, width=width, wide=True, namespaces=True).splitlines()
    assert max(map(len, lines)) <= width
    assert all(len(line.split()) >= 2 for line in lines), "name and phase stay"


def test_the_columns_that_matter_least_go_first() -> None:
    assert table([RUNNING], now=NOW, width=40).splitlines()[0].split() == ["NAME", "PHASE", "PROGRESS", "ETA"]
    assert table([RUNNING], now=NOW, width=30).splitlines()[0].split() == ["NAME", "PHASE"]
    assert table([RUNNING], now=NOW, width=60).splitlines()[0].split() == ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "ETA"]


def test_a_path_with_dots_in_a_name_is_found() -> None:
    assert value_at({"metadata": {"annotations": {"finetune.dev/x": "1"}}}, r".metadata.annotations.finetune\.dev/x") == "1"
    assert value_at({"status": None}, ".status.progress.percent") is None


def test_the_forms_for_programs_have_everything_but_managed_fields() -> None:
    one = json.loads(printed([RUNNING.manifest], "json", single=True))
    many = yaml.safe_load(printed([RUNNING.manifest, DONE.manifest], "yaml", single=False))
    assert (many["kind"], many["items"][0]) == ("List", one)
    assert one["status"] == RUNNING.manifest["status"] and "managedFields" not in one["metadata"]
    assert printed([DONE.manifest], "name", single=True) == "finetunejob.finetune.dev/done"


def test_a_running_job_s_story() -> None:
    events = [Event(NOW - timedelta(minutes=90), "Warning", "Evicted", "the node was drained", 3, "e1")]
    assert story(RUNNING, events, now=NOW, paint=plain).splitlines() == [
        "support-intents in team-a: Running, 41 %, stage task, step 410 of 1,000, loss 0.8123, 1h0m left",
        "  attempt 1 trains in pod ft-1 on gpu-3",
        "",
        "Model    hf://Qwen/Qwen3-0.6B at abc",
        "Runtime  the cluster's default",
        "Created  2026-11-22 10:25:00 UTC (1h35m ago)",
        "Queue    gpus",
        "",
        "Stages",
        "  ✓ domain: Succeeded, eval_loss 2.5",
        "  ▸ task: Running, checkpoint at step 400",
        "",
        "Attempts",
        "  prepare 1: Succeeded, for 1m5s",
        "  domain+task 2: Running, on gpu-3, for 1h32m, from step 200, 12 steps done again",
        "",
        "Evaluation",
        "  in-domain loss: base 5.34 → domain 3.31, gate passed",
        "",
        "What happened",
        "   1h30m ago  Evicted: the node was drained (×3)",
    ]


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        pytest.param(
            {
                "gpuUtilizationPercent": 97,
                "gpuMemoryBytes": 40 * 2**30,
                "gpuMemoryPeakBytes": 48 * 2**30,
                "gpuMemoryTotalBytes": 80 * 2**30,
            },
            "GPU      97 % busy, 40.0 GiB held, at most 48.0 GiB taken of 80.0 GiB",
            id="while it runs",
        ),
        pytest.param({"gpuMemoryPeakBytes": 48 * 2**30}, "GPU      at most 48.0 GiB taken", id="when it has ended"),
        pytest.param({"percent": 3}, None, id="on a CPU"),
    ],
)
def test_a_gpu_is_a_line_of_the_story(progress: dict[str, int], line: str | None) -> None:
    lines = story(seen("one", "Running", progress=progress), [], now=NOW, paint=plain).splitlines()
    assert [each for each in lines if each.startswith("GPU")] == ([line] if line else [])


def test_what_a_trainer_notices_is_a_part_of_the_story() -> None:
    told = "stage task: the loss\x1b[31m has risen."
    job = seen("rises", "Running", warnings=[{"reason": "LossRising", "message": told, "since": "2026-11-22T11:40:00Z"}])
    lines = story(job, [], now=NOW, paint=plain).splitlines()
    assert lines[2:4] == ["Warnings", "  LossRising for 20m: stage task: the loss has risen."]
    assert "\x1b[33mLossRising" in story(job, [], now=NOW, paint=coloured)


@pytest.mark.parametrize(
    ("phase", "kinds", "commands"),
    [
        (
            "Succeeded",
            ("adapter", "modelCard", "report"),
            ["report -n team-a one", "get-model -n team-a one DIRECTORY", "logs -n team-a one"],
        ),
        ("Succeeded", ("merged",), ["get-model -n team-a one DIRECTORY", "logs -n team-a one"]),
        ("Failed", (), ["logs -n team-a one"]),
        ("Running", ("adapter",), []),
    ],
    ids=["all of it", "no report", "failed", "not yet"],
)
def test_a_job_that_ended_says_how_to_have_what_it_left(phase: str, kinds: tuple[str, ...], commands: list[str]) -> None:
    left = [{"kind": kind, "uri": "pvc://runs/a", "sha256": "b" * 64, "bytes": 1536} for kind in kinds]
    job = seen("one", phase, artifacts=left, attempts=[{"segment": "task", "number": 1}])
    lines = story(job, [], now=NOW, paint=plain).splitlines()
    assert [line.strip() for line in lines if line.startswith("  finetune ")] == [f"finetune {command}" for command in commands]
    assert ("To have what it left" in lines) == bool(commands)


def test_a_failed_job_s_story_says_what_to_do_and_moves_no_terminal() -> None:
    told = story(FAILED, [], now=NOW, paint=plain)
    assert told.splitlines()[:9] == [
        "nightly in team-a: Failed",
        "",
        "DataInvalid in stage task (exit code 11)",
        "  row 7 is red",
        "  and row 8 too",
        "  → Correct what the message lists.",
        "  The end of the log:",
        "  | 100%|██████████",
        "  | bye �",
    ]
    assert "\x1b[31mDataInvalid" in story(FAILED, [], now=NOW, paint=coloured)


def test_of_ten_thousand_events_the_newest_are_told() -> None:
    events = [Event(NOW - timedelta(seconds=10_000 - at), "Normal", "Retrying", f"attempt {at}", 1, f"e{at}") for at in range(10_000)]
    lines = story(RUNNING, events, now=NOW, paint=plain).partition("What happened\n")[2].splitlines()
    assert lines[0] == "  … and 9,950 before (`kubectl events` tells them all)"
    assert len(lines) == 51 and lines[-1].endswith("Retrying: attempt 9999")


def test_a_job_that_nobody_looked_at_says_so() -> None:
    assert "→ No operator has looked at it yet" in story(NEW, [], now=NOW, paint=plain)


def drawn(jobs: list[Job], width: int, height: int = 20, note: str = "", **options: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, height=height, force_terminal=True, no_color=options.get("no_color", True), legacy_windows=False
    )
    console.print(frame(jobs, now=NOW, width=width, height=height, note=note))
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_the_board_fits_a_terminal_of_any_width(width: int) -> None:
    text = drawn(ALL, width, note="no connection to https://10.0.0.1:6443: no answer in time; trying again")
    assert max(len(safe(line)) for line in text.splitlines()) <= width


def test_the_board_of_one_job_on_forty_columns_without_colour() -> None:
    text = drawn([RUNNING], 40)
    assert [safe(line).rstrip() for line in text.splitlines()] == [
        "NAME         PHASE     DONE          ETA",
        "support-int… Running   ━━╸      41% 1h0m",
        "  stage task, step 410 of 1,000, loss",
        "  0.8123, 1h0m left",
        "  attempt 1 trains in pod ft-1 on gpu-3",
    ]


def test_every_view_names_what_a_job_of_several_seeds_trains() -> None:
    arm = seen("seeds", "Running", currentStage="task", progress={"arm": "seed 2, direct"}, summary={"stage": "seed 2, direct: task"})
    assert "seed 2, direct: task" in table([arm], now=NOW).splitlines()[1]
    assert "seed 2, direct: task" in drawn([arm], 120).splitlines()[1]
    assert story(arm, [], now=NOW, paint=plain).splitlines()[0] == "seeds in team-a: Running, seed 2, direct: stage task"


def test_what_is_under_way_stands_above_what_ended_and_what_has_no_room_is_counted() -> None:
    lines = drawn(ALL, 80).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["support-intents", "new", "waits", "nightly", "done"]
    assert drawn(ALL, 80, height=6).splitlines()[-1].count("… and 3 more") == 1


def test_a_failure_on_the_board_says_what_to_do_and_moves_no_terminal() -> None:
    text = drawn([FAILED], 100, no_color=True)
    assert "row 7 is red and row 8 too" in text
    assert "→ Correct what the message lists." in text
    assert "\x07" not in text and "\u202e" not in text


def test_lines_come_when_something_changes_and_not_with_every_figure() -> None:
    out = io.StringIO()
    clock = [NOW]
    lines = Lines(out, lambda: clock[0])
    lines.complete()
    lines.show(WAITING)
    for loss, seconds in ((0.5, 1), (0.4, 1), (0.3, 10)):
        clock[0] += timedelta(seconds=seconds)
        lines.show(seen("waits", "Running", said="it trains", progress={"percent": 3, "loss": loss}))
    lines.show(seen("waits", "Running", said="it trains", progress={"percent": 3, "loss": 0.3}))
    for arm in ("seed 1", "seed 2"):
        lines.show(seen("waits", "Running", said="it trains", currentStage="task", progress={"percent": 3, "arm": arm}))
    lines.note("no connection")
    lines.note("")
    lines.gone(WAITING)
    assert [line.partition("] ")[2] for line in out.getvalue().splitlines()] == [
        "No jobs yet.",
        "waits: Pending: 0 of 3 nodes have nvidia.com/gpu free",
        "waits: Running, 3 %, loss 0.5: it trains",
        "waits: Running, 3 %, loss 0.3",
        "waits: Running, 3 %, seed 1: stage task: it trains",
        "waits: Running, 3 %, seed 2: stage task: it trains",
        "no connection",
        "the connection is back",
        "waits: deleted",
    ]
