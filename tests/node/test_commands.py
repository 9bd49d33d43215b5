"""Every command, given by a person with the chart's roles while a job trains in real pods, tells what is so; and so do kubectl and GitOps tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.gitops.judge import Judge
from tests.gitops.rows import judged
from tests.gitops.states import EDITED, GOES_ON, NEW, SUCCEEDED, SUSPENDED
from tests.node.jobs import STEPS
from tests.node.life import NAME, Life, happened

COLUMNS = ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "ETA", "QUEUE", "AGE"]
WIDE = [*COLUMNS, "MODEL", "METHOD", "NODE", "ATTEMPTS", "SCORE"]
KIND = "finetunejob.finetune.dev/followed"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


SAYS = {
    "apply": f"{KIND} created\n",
    "suspend": f"{KIND} is being suspended: it saves, and gives its GPUs back\n",
    "resume": f"{KIND} goes on\n",
    "cancel": f"{KIND} cancelled: saved, and nothing of it runs any more",
}


@pytest.mark.parametrize("command", SAYS)
def test_what_is_done_is_said(followed: Life, command: str) -> None:
    assert followed.said[command].startswith(SAYS[command])


def test_a_cancelled_job_is_a_suspended_one(followed: Life) -> None:
    status = json.loads(followed.said["get -o json"])["status"]
    assert status["phase"] == "Suspended"
    assert not [attempt for attempt in status["attempts"] if "finishedAt" not in attempt]


@pytest.mark.parametrize("command", ["kubectl get", "kubectl get -o wide", "finetune get -o wide"])
def test_the_columns_of_a_job_that_trains(followed: Life, command: str) -> None:
    columns = followed.columns[command]
    assert list(columns) == (WIDE if "wide" in command else COLUMNS)
    assert (columns["NAME"], columns["PHASE"]) == (NAME, "Running")
    assert columns["STAGE"] in ("domain", "task")
    assert 0 < int(columns["PROGRESS"].rstrip("%")) < 100
    assert float(columns["LOSS"]) > 0
    assert re.fullmatch(r"(\d+[dhms])+", columns["ETA"]) and re.fullmatch(r"(\d+[dhms])+", columns["AGE"])
    if "MODEL" in columns:
        assert columns["MODEL"].startswith("pvc://assets/demo/models/smoll") and columns["METHOD"] == "lora+lora"
        assert columns["NODE"].startswith("node-") and columns["ATTEMPTS"] == "1/3"


def test_the_columns_of_a_job_that_is_suspended(followed: Life) -> None:
    columns = followed.columns["finetune get"]
    assert list(columns) == COLUMNS
    assert (columns["PHASE"], columns["ETA"]) == ("Suspended", "-")


def test_a_description_tells_how_it_goes_and_how_it_went(followed: Life) -> None:
    assert re.search(
        rf"^{NAME} in team-a: Running, \d+ %, stage \w+, step \d+ of {STEPS}, loss [\d.]+, .+ left$",
        followed.said["describe"],
        re.MULTILINE,
    )
    told = followed.said["describe at the end"]
    for heading in ("Stages", "Attempts", "Artifacts", "What happened"):
        assert f"\n{heading}\n" in told, told
    assert "published and verified" in followed.said["kubectl describe"]
    reasons = happened(followed)
    assert reasons.count("Training") == 3, reasons  # one of each pod; what is said again in the same words is counted
    assert {"Suspending", "Succeeded"} <= set(reasons) and [reason for reason in reasons if reason.startswith("Checkpoint")], reasons


def test_watch_tells_each_turn_and_ends_with_the_job(followed: Life) -> None:
    done = followed.beside["watch"]
    assert done.returncode == 0, done.stderr
    phases = re.findall(rf"{NAME}: (\w+)", done.stdout)
    turns = [phase for index, phase in enumerate(phases) if index == 0 or phase != phases[index - 1]]
    assert turns.count("Suspended") == 2 and turns[-1] == "Succeeded", done.stdout
    assert re.search(r"Running, \d+ %, stage \w+, step \d+ of", done.stdout), done.stdout


def test_logs_follow_every_pod_to_the_end(followed: Life) -> None:
    done = followed.beside["logs"]
    assert done.returncode == 0, done.stderr
    numbers = set(re.findall(r"^==> ft-followed-\w+-1-\d-\w+, trainer, attempt (\d) <==$", done.stderr, re.MULTILINE))
    assert numbers >= {"1", "3"}, done.stderr  # the second one is stopped as soon as it runs
    assert "loss=" in done.stdout


def test_kubectl_waits_for_the_end(followed: Life) -> None:
    done = followed.beside["kubectl wait"]
    assert (done.returncode, done.stdout) == (0, f"{KIND} condition met\n"), done.stderr


def test_argo_cd_and_kstatus_say_of_every_state_what_the_table_says(followed: Life, judge: Judge) -> None:
    rows = judged(judge, followed.states)
    assert (rows[0], rows[-1]) == (NEW, SUCCEEDED)
    assert (rows.count(SUSPENDED), rows.count(SUCCEEDED)) == (2, 1)
    assert {EDITED, GOES_ON} <= set(rows)
