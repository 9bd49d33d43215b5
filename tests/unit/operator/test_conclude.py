"""The end of a job: its result from the last message, from a report, or not at all."""

from __future__ import annotations

import pytest

from tests.unit.operator.worlds import World, pages, published, result

EVALUATION = [{"suite": "knowledge", "metric": "loss", "baseline": 2.0, "stages": [{"stage": "task", "value": 2.5}], "gate": "Failed"}]


def ended(code: int, message: str) -> tuple[World, str]:
    """A job whose trainer has ended like this."""
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.end(name, code, message)
    world.settle(1)
    return world, name


def tell(world: World, told: list[str], code: int = 0) -> None:
    """Let the report's pod end with these messages."""
    name = world.run(container="page-0")
    world.settle(1)
    world.end(name, code)
    containers = [
        {"name": f"page-{page}", "state": {"terminated": {"exitCode": code, "message": text, "startedAt": "2030-01-01T12:00:00Z"}}}
        for page, text in enumerate(told)
    ]
    world.pods[name]["status"]["containerStatuses"] = containers
    world.settle(10)


def test_a_missed_gate_is_told_with_its_whole_evaluation() -> None:
    message = {"reason": "GateFailed", "message": "knowledge: loss 2.5", "stage": "task"}
    world, _ = ended(22, result("Failed", 22, truncated=True, **message))
    assert world.newest.endswith("-report-1")
    assert world.condition("Failed")[0] == "False"
    tell(world, pages(result("Failed", 22, evaluation=EVALUATION, **message)))
    assert world.status["failure"]["reason"] == "GateFailed"
    assert world.status["failure"]["message"] == "knowledge: loss 2.5"
    assert world.status["evaluation"] == EVALUATION
    assert world.status["stages"][0]["phase"] != "Succeeded"


@pytest.mark.parametrize("message", [published()[:-9], "", published(truncated=True)], ids=["cut", "none", "truncated"])
def test_a_success_that_was_not_told_in_full_is_read_by_a_report(message: str) -> None:
    world, _ = ended(0, message)
    assert world.newest.endswith("-report-1")
    tell(world, pages(published(evaluation=EVALUATION)))
    assert world.status["phase"] == "Succeeded"
    assert world.status["artifacts"][0]["kind"] == "adapter"
    assert world.status["evaluation"] == EVALUATION


def test_a_success_whose_pod_is_gone_is_read_by_a_report() -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.end(name, 0, published())
    world.gone(name)
    world.settle(1)
    assert world.newest.endswith("-report-1")


def test_a_report_that_can_not_be_made_keeps_no_model_from_its_success() -> None:
    world, _ = ended(0, published(truncated=True))
    for number in (1, 2, 3):
        assert world.newest.endswith(f"-report-{number}")
        tell(world, ["not a page"] * 3, code=1)
    assert world.status["phase"] == "Succeeded"
    assert world.status["artifacts"][0]["kind"] == "adapter"
    assert len([name for name in world.created if "report" in name]) == 3


def test_a_failure_without_a_word_asks_for_no_report() -> None:
    world, _ = ended(21, "")
    assert world.status["failure"]["reason"] == "LossDiverged"
    assert len(world.created) == 1
    assert "exit code 21" in world.status["failure"]["message"]


def test_a_report_waits_for_what_other_pods_wait_for() -> None:
    world, _ = ended(0, published(truncated=True))
    world.pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient cpu"}])
    world.settle(6)
    assert world.condition("Running") == ("False", "Unschedulable")
    assert world.status["stages"][0]["phase"] == "Succeeded"


def measured(count: int, name: str = "s") -> list[dict[str, object]]:
    return [{"suite": f"{name}{number}", "metric": "loss", "baseline": 2.0} for number in range(count)]


ARTIFACT = {"kind": "adapter", "uri": "pvc://runs/x", "sha256": "b" * 64, "bytes": 10}


@pytest.mark.parametrize("code", [0, 22])
@pytest.mark.parametrize(
    ("fields", "kept", "words"),
    [
        ({"evaluation": measured(512), "artifacts": [ARTIFACT] * 32}, (512, 32), ""),
        (
            {"evaluation": measured(513)},
            (512, 1),
            "too large for a status were 1 of 513 entries of evaluation: result.json in the run folder",
        ),
        ({"artifacts": [ARTIFACT] * 40}, (0, 32), "8 of 40 entries of artifacts"),
        ({"evaluation": measured(512, "s" * 250) * 4}, (512, 1), "1536 of 2048 entries of evaluation"),
        (
            {"evaluation": [{**each, "stages": [{"stage": "t" * 99, "value": 1.0}] * 16} for each in measured(512)]},
            (0, 1),
            "stages, evaluation and provenance",
        ),
    ],
    ids=["as much as fits", "one too many", "many artifacts", "long names", "too large in all"],
)
def test_a_result_is_cut_to_what_a_status_holds(code: int, fields: dict[str, object], kept: tuple[int, int], words: str) -> None:
    said = {"outcome": "Succeeded", "exit_code": 0} if code == 0 else {"outcome": "Failed", "exit_code": 22, "reason": "GateFailed"}
    artifacts = {"artifacts": [ARTIFACT]}
    world, _ = ended(code, result(**said, truncated=True))  # type: ignore[arg-type]
    tell(world, pages(result(**said, **{**artifacts, **fields})))  # type: ignore[arg-type]
    assert (len(world.status.get("evaluation", [])), len(world.status["artifacts"])) == kept
    message = next(each["message"] for each in world.status["conditions"] if each["type"] == "Finished")
    assert words in message
    assert ("too large" in message) is bool(words)


def test_whole_numbers_beyond_64_bits_are_told_as_the_largest() -> None:
    world, _ = ended(0, published(resumedFromStep=10**30, stepsLost=-(10**30)))
    last = world.status["attempts"][-1]
    assert (last["resumedFromStep"], last["stepsLost"]) == (2**63 - 1, -(2**63 - 1))
