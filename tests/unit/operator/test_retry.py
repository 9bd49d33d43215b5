"""Failed attempts: which are repeated, after how long, and which end the job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.decide import decide
from finetune_operator.model import Live
from finetune_operator.policies.retry import delay_seconds
from tests import builders
from tests.unit.operator.worlds import START, Document, World, attempts, job, result, spent


def fail(world: World, code: int, message: str = "", reason: str = "", seconds: float = 30) -> None:
    """Let the newest Job's pod run for a while and fail."""
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.seconds += seconds
    world.end(name, code, message, reason=reason)
    world.settle()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(10, "InvalidSpec"), (11, "DataInvalid"), (12, "SourceNotFound"), (21, "LossDiverged"), (22, "GateFailed"), (31, "CheckpointInvalid")],
)
def test_what_a_repetition_cannot_mend_ends_the_job(code: int, reason: str) -> None:
    world = World()
    fail(world, code)
    assert world.status["phase"] == "Failed"
    assert world.status["failure"]["reason"] == reason
    assert world.status["failure"]["exitCode"] == code
    assert world.status["failure"]["hint"]
    assert len(world.created) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, "InternalError"),
        (20, "OutOfMemory"),
        (30, "StorageFull"),
        (40, "Stalled"),
        (77, "UnknownExit"),
        (139, "UnknownExit"),
        (137, "UnknownExit"),
    ],
)
def test_other_failures_are_repeated_on_the_budget_with_back_off(code: int, reason: str) -> None:
    world = World()
    for number in (1, 2):
        fail(world, code)
        assert world.condition("Running") == ("False", "BackOff")
        assert world.requeue == pytest.approx(10 * 2 ** (number - 1))
        assert attempts(world)[-1] == (number, reason)
        world.settle(10 * 2 ** (number - 1) - 1)
        assert len(world.created) == number
        world.step(2)
        assert len(world.created) == number + 1
    fail(world, code)
    assert world.status["phase"] == "Failed"
    assert world.status["failure"]["reason"] == reason
    assert "attempt 3 of 3" in world.status["failure"]["message"]
    assert spent(world) == [(3, 0)]


def test_the_trainers_own_words_are_told() -> None:
    world = World()
    message = result(
        "Failed", 21, reason="LossDiverged", stage="task", message="the loss is NaN at step 7", hint="Lower it.", logTail=["a", "b"]
    )
    fail(world, 21, message)
    assert world.status["failure"] == {
        "reason": "LossDiverged",
        "stage": "task",
        "message": "the loss is NaN at step 7",
        "hint": "Lower it. (docs/reference/failures.md#lossdiverged)",
        "exitCode": 21,
        "lastLogLines": ["a", "b"],
    }


def test_a_log_in_place_of_a_message_is_shown_with_its_tokens_masked() -> None:
    world = World(job(spec__retry={"maxAttempts": 1}))
    fail(world, 139, "loading\nusing hf_abcdefghijklmnop\nSegmentation fault\n")
    assert world.status["failure"]["lastLogLines"] == ["loading", "using hf_abcdef…", "Segmentation fault"]
    assert world.status["failure"]["reason"] == "UnknownExit"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "left no message"),
        ('{"outcome":"Failed","exitCode":40,"mess', "its last message is cut"),
        ("{}", "its last message is cut"),
        ('{"page":0}', "its last message is cut"),
        (result("Failed", 40), "its last message says no more"),
    ],
)
def test_a_message_that_is_missing_or_cut_leaves_the_exit_code_to_speak(message: str, words: str) -> None:
    world = World(job(spec__retry={"maxAttempts": 1}))
    fail(world, 40, message)
    assert world.status["failure"]["reason"] == "Stalled"
    assert world.status["failure"]["message"] == f"the trainer ended with exit code 40, and {words} (attempt 1 of 1)"
    assert world.status["failure"]["lastLogLines"] == []


def test_killed_for_memory_ends_the_job_at_once() -> None:
    world = World()
    fail(world, 137, reason="OOMKilled")
    assert world.status["failure"]["reason"] == "MemoryLimitExceeded"
    assert world.status["failure"]["exitCode"] == 137


def say(world: World, name: str, step: int, stage: str = "task", arm: int | None = None) -> None:
    """Have a pod report a step, and the status tell it."""
    world.seconds += 20
    update = ProgressUpdate(activity=Activity.TRAIN, arm=arm, stage=stage, done=step, total=100)
    owner = world.pods[name]["metadata"]["ownerReferences"][0]["name"]
    report = Live(update, update, {}, owner, START + timedelta(seconds=world.seconds), None, True, pod=name)
    world.job["status"] = dict(decide(world.observed(pod_nodes={}, live=report)).status or {})
    assert world.status["attempts"][-1]["step"] == step


def two_seeds(**edits: Any) -> Document:
    """A job of two stages that is trained with two seeds, one after the other."""
    rows = {"train": [{"uri": "pvc://data/a"}], "validation": {"fraction": 0.1}}
    more: dict[str, Any] = {"data": rows, "resources": {"gpus": 1}}
    stages = [builders.stage("domain", handOver="merge", **more), builders.stage("task", **more)]
    return job(spec__stages=stages, spec__seeds=[1, 2], spec__retry={"maxAttempts": 9}, **edits)


@pytest.mark.parametrize(
    ("first", "second", "phase"),
    [
        ((0, "task", 90), (1, "domain", 3), "Pending"),
        ((1, "domain", 3), (0, "task", 90), "Failed"),
        ((1, "domain", 3), (1, "domain", 3), "Failed"),
        ((None, "task", 90), (1, "domain", 3), "Pending"),
    ],
    ids=["a later arm", "an earlier arm", "the same step of it", "after a trainer that knew no arms"],
)
def test_a_later_arm_is_further_whatever_its_stage_and_step(
    first: tuple[int | None, str, int], second: tuple[int | None, str, int], phase: str
) -> None:
    world = World(two_seeds())
    for arm, stage, step in (first, second):
        world.settle(400)
        name = world.run()
        world.settle(1)
        say(world, name, step, stage, arm)
        world.end(name, 137, reason="OOMKilled")
        world.settle()
    assert world.status["phase"] == phase
    assert [each.get("arm") for each in world.status["attempts"]] == [first[0], second[0]]
    if phase == "Failed":
        assert world.status["failure"]["reason"] == "MemoryLimitExceeded"


@pytest.mark.parametrize(
    ("places", "lost"),
    [
        ([(0, "task", 40), (0, "task", 90), (0, "task", 95)], 15.0),
        ([(0, "task", 40), (1, "task", 90), (1, "task", 95)], 6.0),
        ([(0, "domain", 40), (0, "task", 90), (0, "task", 95)], 6.0),
        ([(0, "task", 40), (0, "task", 90), (1, "task", 95)], 15.0),
    ],
    ids=["in one arm", "in an arm that it reached itself", "in a stage that it reached itself", "whatever the next one reaches"],
)
def test_steps_before_another_arm_are_not_taken_from_what_was_kept(places: list[tuple[int, str, int]], lost: float) -> None:
    """The second attempt begins at step 60 and runs for a minute; the third begins at step 90, and ten steps are done again."""
    world = World(two_seeds())
    told: list[dict[str, Any]] = [{}, {"resumedFromStep": 60, "stepsLost": 0}, {"resumedFromStep": 90, "stepsLost": 10}]
    for (arm, stage, step), fields in zip(places, told, strict=True):
        world.settle(400)
        name = world.run()
        say(world, name, step, stage, arm)
        world.seconds += 40
        world.end(name, 1, result("Failed", 1, reason="InternalError", stage=stage, step=step, **fields))
        world.settle()
    assert [each["arm"] for each in world.status["attempts"]] == [arm for arm, _, _ in places]
    assert world.status["usage"]["gpuSecondsLost"] == pytest.approx(lost)


def test_an_eviction_for_memory_is_a_disruption_and_not_the_users_fault() -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.pods[name]["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    world.end(name, 137, reason="OOMKilled", job_ends=False)
    world.settle(1)
    world.run()
    world.settle(1)
    assert attempts(world) == [(1, "Evicted"), (1, None)]
    assert spent(world) == [(0, 1)]


OWN_LIMIT = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "


def evict_for_its_own_limit(world: World, name: str, said: str = OWN_LIMIT) -> None:
    """The kubelet's eviction of a pod that wrote more than it may; its Job makes another pod for it."""
    world.pods[name]["status"] |= {"reason": "Evicted", "message": said}
    world.pods[name]["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    world.end(name, 137, job_ends=False)


def evicted() -> tuple[World, str]:
    """A job whose first pod was evicted for what it wrote, and that pod's name."""
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    evict_for_its_own_limit(world, name)
    return world, name


def test_an_eviction_for_what_it_wrote_itself_ends_the_job_before_its_pods_are_replaced_for_ever() -> None:
    world, name = evicted()
    second = world.run()
    world.settle(1)
    assert attempts(world) == [(1, "LocalStorageExceeded"), (1, "LocalStorageExceeded")]
    assert world.condition("Running")[1] == "Stopping"
    world.gone(name, second, *world.jobs)
    world.settle()
    failure = world.status["failure"]
    assert failure["reason"] == "LocalStorageExceeded"
    assert failure["message"].endswith("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi")
    assert "ephemeral-storage" in failure["hint"]


@pytest.mark.parametrize("maximum", [2, 1], ids=["an attempt is left", "none is left"])
def test_evicted_for_what_it_wrote_it_goes_on_where_it_got_further_and_an_attempt_is_left(maximum: int) -> None:
    world = World(job(spec__retry={"maxAttempts": maximum}))
    world.settle(1)
    name = world.run()
    world.settle(1)
    say(world, name, 7)
    evict_for_its_own_limit(world, name)
    second = world.run()
    world.settle(1)
    if maximum == 2:
        assert attempts(world) == [(1, "LocalStorageExceeded"), (1, None)]
        assert "deletionTimestamp" not in world.jobs[world.newest]["metadata"]
        say(world, second, 9)
        evict_for_its_own_limit(world, second)
        world.settle(1)
    assert world.condition("Running")[1] == "Stopping"
    assert spent(world) == [(maximum, 0)]
    world.gone(name, second, *world.jobs)
    world.settle()
    assert world.status["failure"]["reason"] == "LocalStorageExceeded"


@pytest.mark.parametrize("said", [OWN_LIMIT, OWN_LIMIT * 60], ids=["all of it", "more than a status holds"])
def test_the_kubelets_words_outlast_the_pod(said: str) -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    evict_for_its_own_limit(world, name, said)
    second = world.run()
    world.settle(1)
    world.gone(name, second, *world.jobs)
    world.settle()
    message = world.status["failure"]["message"]
    assert message.startswith("the kubelet evicted the pod")
    assert "Pod ephemeral local storage usage" in message
    assert "told to stop" not in message


def test_a_job_that_nothing_had_to_stop_ends_with_what_its_pod_says() -> None:
    world, _ = evicted()
    world.gone(*world.jobs)
    world.settle(1)
    assert world.status["failure"]["message"].endswith("exceeds the total limit of containers 1Mi")


def test_without_the_pod_and_what_was_told_of_it_the_end_is_still_told() -> None:
    world, name = evicted()
    second = world.run()
    world.settle(1)
    next(each for each in world.status["conditions"] if each["type"] == "Running")["message"] = "written by hand"
    world.gone(name, second, *world.jobs)
    world.settle()
    assert world.status["failure"]["message"] == "the kubelet evicted the pod for what it wrote to its node's disk or memory"


@pytest.mark.parametrize("said", ["The node was low on resource: ephemeral-storage. ", "Node didn't have enough resource: cpu"])
def test_an_eviction_for_what_the_node_lacks_is_a_disruption(said: str) -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    evict_for_its_own_limit(world, name, said)
    world.run()
    world.settle(1)
    assert attempts(world) == [(1, "Evicted"), (1, None)]
    assert spent(world) == [(0, 1)]


def test_a_busy_run_folder_is_waited_for() -> None:
    """The process before it goes on on a silent node: its exit code is one of the permanent ones, and yet time mends it."""
    world = World()
    fail(world, 10, result("Failed", 10, reason="RunFolderBusy", message="another live run uses this folder"))
    assert world.condition("Running") == ("False", "BackOff")
    assert spent(world) == [(0, 1)]


def test_more_attempts_allowed_while_it_backs_off_are_taken() -> None:
    world = World(job(spec__retry={"maxAttempts": 2}))
    fail(world, 1)
    world.settle(11)
    world.job["spec"]["retry"] = {"maxAttempts": 3}
    fail(world, 1)
    assert world.condition("Running") == ("False", "BackOff")


def test_the_trainers_journal_can_end_the_job_too() -> None:
    world = World()
    fail(world, 1, result("Failed", 1, reason="TooManyDisruptions", message="started 21 times"))
    assert world.status["failure"]["reason"] == "TooManyDisruptions"


def test_the_back_off_doubles_to_six_minutes() -> None:
    from finetune_operator.attempts import Attempt
    from finetune_operator.names import JobName
    from tests.unit.operator.worlds import START

    def ended(reason: str) -> Attempt:
        return Attempt(JobName(1, 1), "j", "p", started=START, finished=START, reason=reason)

    rows = [delay_seconds(tuple(ended("InternalError") for _ in range(number))) for number in range(9)]
    assert rows == [0, 10, 20, 40, 80, 160, 320, 360, 360]
    assert delay_seconds((ended("InternalError"), ended("InternalError"), ended("PodDeleted"))) == 10


def test_numbers_that_json_does_not_have_are_left_out() -> None:
    world = World(job(spec__retry={"maxAttempts": 1}))
    stages = [{"status": {"name": "task", "phase": "Failed", "metrics": {"loss": float("nan"), "steps": 3.0}}, "steps": 3}]
    fail(world, 1, result("Failed", 1, reason="InternalError", stages=stages))
    assert world.status["stages"][0]["metrics"] == {"steps": 3.0}
