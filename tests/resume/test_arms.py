"""A job of several arms is killed in its second seed, in its comparison and while it publishes, and ends in the same bytes as an undisturbed one;
and so it does where each of its stages has pods of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.run_folder import RunFolder
from tests.resume.configurations import ARMS
from tests.resume.runs import KILLED, STOPPED, Prepared, Trigger, differing, digests, forked, log_of


def at(activity: str, arm: int, done: int = 0) -> Trigger:
    """When an arm reports an activity, and so many steps."""
    return lambda report, seconds: bool(
        report and (report["activity"], report.get("arm")) == (activity, arm) and report.get("done", 0) >= done
    )


def comparable(config: Any) -> dict[str, Any]:
    """What the arms came to, and what the result tells of them."""
    run = RunFolder(Path(config.run_folder))
    result = json.loads(run.result.read_text())
    return {"arms": json.loads(run.arms_result.read_text()), "seeds": result["seeds"], "evaluation": result["evaluation"]}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("prepared", ARMS, indirect=True)
def test_a_job_of_several_arms_goes_on_in_the_arm_where_it_stood(prepared: Prepared) -> None:
    config = prepared.fresh("undisturbed")
    undisturbed = forked(config).end()
    assert undisturbed.code == 0, log_of(Path(config.run_folder))
    expected = digests(config)
    assert {key.split()[0] for key in expected} == {"seed-11", "seed-12", "seed-11-direct", "seed-12-direct", "published"}
    stages = [stage.name for stage in config.spec.stages]
    trained = [
        (each["arm"], stages.index(each["stage"]), each.get("done", 0)) for each in undisturbed.reports if each["activity"] == "train"
    ]
    assert trained == sorted(trained), "arms come one after the other, and none is trained twice"
    wanted = comparable(config)

    config = prepared.fresh("struck")
    folder = Path(config.run_folder)
    killed = forked(config).end(signal.SIGKILL, at("train", arm=1, done=3))
    assert (killed.code, killed.struck) == (KILLED, True), log_of(folder)
    stopped = forked(config).end(signal.SIGTERM, at("train", arm=2))
    assert (stopped.code, stopped.struck) == (STOPPED, True), log_of(folder)
    assert {report.get("arm") for report in stopped.reports if report["activity"] == "train"} == {1, 2}, (
        "the first seed is not touched again"
    )
    killed = forked(config).end(signal.SIGKILL, lambda report, seconds: bool(report and report["activity"] == "publish"))
    assert (killed.code, killed.struck) == (KILLED, True), log_of(folder)
    ended = forked(config).end()
    assert ended.code == 0, log_of(folder)
    assert not [report for report in ended.reports if report["activity"] == "train"], "nothing was left to train"
    assert differing(expected, digests(config)) == [], log_of(folder)
    assert comparable(config) == wanted

    # Where the stages ask for different resources, one pod trains the first stage of both seeds, and another all that is left.
    first, second = prepared.apart("apart")
    folder = Path(first.run_folder)
    ended = forked(first).end()
    assert ended.code == 0, log_of(folder)
    assert {(each["arm"], each["stage"]) for each in ended.reports if each["activity"] == "train"} == {(0, "domain"), (1, "domain")}
    killed = forked(second).end(signal.SIGKILL, at("train", arm=1, done=3))
    assert (killed.code, killed.struck) == (KILLED, True), log_of(folder)
    ended = forked(second).end()
    assert ended.code == 0, log_of(folder)
    assert {(each["arm"], each["stage"]) for each in ended.reports if each["activity"] == "train"} == {(arm, "task") for arm in (1, 2, 3)}
    assert differing(expected, digests(second)) == [], log_of(folder)
    assert comparable(second) == wanted
