"""Live progress on a real API server: it signs the pods' tokens and reviews them, and the operator works under the chart's own rights."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from finetune_operator.progress.live import INTERVAL
from finetune_operator.progress.server import POD_BURST
from tests.apiserver.installation import USERNAME, running_operator
from tests.apiserver.progress_world import DATA, World, installed, train
from tests.apiserver.reporting import FLAGS, SECONDS, authority_of, expired, report, signed_anew, token
from tests.builders import stage
from tests.cluster import Cluster, audit
from tests.cluster.api import Object
from tests.cluster.pods import await_value, finish


@pytest.fixture(scope="module")
def world(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log = tmp_path_factory.mktemp("operator") / "log"
    with installed(control_plane, log) as made, running_operator(control_plane, log, *FLAGS, "--progress-port", "0"):
        yield made


def test_a_pods_report_is_what_kubectl_shows(world: World) -> None:
    pod = world.start("shown")
    assert world.report(pod, train(410, tokensPerSecond=5120.0, metrics={"eval_loss": 1.5})) == (200, '{"taken": true}')
    progress = world.step("shown", 410)
    assert (progress["percent"], progress["totalSteps"], progress["loss"]) == (41, 1000, 0.5)
    assert progress["eta"]
    (only,) = world.status("shown")["stages"]
    assert only["metrics"] == {"loss": 0.5, "eval_loss": 1.5}
    shown = world.cluster.kubectl("get", "ftj", "shown", "-n", world.namespace)
    header, row = (line.split() for line in shown.splitlines())
    assert header == ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "ETA", "QUEUE", "AGE"]
    assert row[:5] == ["shown", "Running", "only", "41", "0.5"]
    assert world.report(pod, train(409))[0] == 409, "a step that goes back"
    finish(world.api, world.api.get(f"/api/v1/namespaces/{world.namespace}/pods/{pod['metadata']['name']}"), message=SUCCESS)
    await_value(lambda: world.status("shown").get("phase") == "Succeeded", what="its end", timeout=SECONDS)
    assert world.status("shown")["progress"]["percent"] == 100
    assert "eta" not in world.status("shown")["progress"]


def test_kubectl_shows_which_seed_is_trained_whichever_pod_trains_it(world: World) -> None:
    """The stages ask for different resources, so that a pod trains the first for every seed, and another the second."""
    stages = [stage("domain", handOver="merge", data=DATA), stage("task", data=DATA, resources={"gpus": 0})]
    pod = world.start("seeds", *stages, seeds=[1, 7])
    for name in ("domain", "task"):
        for arm, seed in enumerate(("seed 1", "seed 7")):
            assert world.report(pod, {**train(100 + arm, arm=arm), "stage": name})[0] == 200
            world.step("seeds", 100 + arm)
            header, row = world.cluster.kubectl("get", "ftj", "seeds", "-n", world.namespace).splitlines()
            assert row[header.index("STAGE") : header.index("PROGRESS")].strip() == f"{seed}: {name}"
            described = world.cluster.kubectl("describe", "ftj", "seeds", "-n", world.namespace)
            assert re.search(rf"\n +Arm: +{seed}\n", described)
        finish(world.api, world.api.get(f"/api/v1/namespaces/{world.namespace}/pods/{pod['metadata']['name']}"), message=SUCCESS)
        if name == "domain":
            pod = world.pod("seeds", other_than=pod["metadata"]["name"])
            assert world.status("seeds")["summary"]["stage"] == "task", "nobody has said for which seed"
    await_value(lambda: world.status("seeds").get("phase") == "Succeeded", what="its end", timeout=SECONDS)
    assert [each["segment"] for each in world.status("seeds")["attempts"]] == ["domain", "task"]


SUCCESS: Final = '{"outcome": "Succeeded", "exitCode": 0, "message": "done"}'
FAILURE: Final = '{"outcome": "Failed", "exitCode": 1, "reason": "InternalError", "message": "broken"}'


def forged(world: World, pod: Object, tmp_path: Path) -> str:
    """Everything is right but the key."""
    key = tmp_path / "other.key"
    made = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return signed_anew(token(world.api, pod), key)


def signing_key(world: World) -> Path:
    return world.cluster.layout.certificates / "service-accounts.key"


def later_than_the_operator_reads(world: World, pod: Object, _: Path) -> str:
    """Its claims say that it is good, and the API server's signature is of another payload."""
    head, payload, _signature = token(world.api, pod).split(".")
    other = token(world.api, pod, "https://kubernetes.default.svc").split(".")[2]
    return f"{head}.{payload}.{other}"


WRONG: Final[dict[str, tuple[Callable[[World, Object, Path], str], int, str]]] = {
    "no token": (lambda world, pod, _: "", 401, "a bearer token"),
    "no JWT": (lambda world, pod, _: "x", 401, "no service account token"),
    "forged": (forged, 401, "not valid"),
    "with another's signature": (later_than_the_operator_reads, 401, "not valid"),
    "expired": (lambda world, pod, _: expired(token(world.api, pod), signing_key(world)), 401, "has expired"),
    "for another audience": (lambda world, pod, _: token(world.api, pod, "https://elsewhere"), 401, "not for the audience"),
    "bound to no pod": (lambda world, pod, _: token(world.api, pod, bound=False), 403, "bound to no pod"),
}


@pytest.fixture(scope="module")
def victim(world: World) -> Object:
    return world.start("victim")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_token_gains_nothing(world: World, victim: Object, case: str, tmp_path: Path) -> None:
    make, status, said = WRONG[case]
    code, text = world.report(victim, train(999), make(world, victim, tmp_path))
    assert (code, said in text) == (status, True), text
    assert "progress" not in world.status("victim")


def test_a_pod_of_nobody_and_a_pod_of_another_job_say_nothing_of_this_one(world: World, victim: Object) -> None:
    container = {
        "name": "c",
        "image": "example/none",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    secure = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    labels = victim["metadata"]["labels"]
    metadata = {"name": "stranger", "labels": labels}
    stranger = world.api.post(
        f"/api/v1/namespaces/{world.namespace}/pods", {"metadata": metadata, "spec": {"containers": [container], "securityContext": secure}}
    )
    code, text = world.report(victim, train(999), token(world.api, stranger))
    assert (code, "belongs to no FineTuneJob" in text) == (403, True), f"labels are believed nowhere: {text}"
    other = world.start("other")
    assert world.report(other, train(7))[0] == 200
    world.step("other", 7)
    assert world.report(other, {**train(8), "stage": "another"})[0] == 422
    assert "progress" not in world.status("victim")


def test_a_token_that_was_copied_is_worth_nothing_once_its_pod_has_ended(world: World) -> None:
    first = world.start("replayed")
    kept = token(world.api, first)
    assert world.report(first, train(5), kept)[0] == 200
    finish(world.api, world.api.get(f"/api/v1/namespaces/{world.namespace}/pods/{first['metadata']['name']}"), code=1, message=FAILURE)
    second = world.pod("replayed", other_than=first["metadata"]["name"])
    code, text = world.report(first, train(999), kept)
    assert code == 409, text
    assert world.report(second, train(3))[0] == 200
    progress = world.step("replayed", 3)
    assert progress["percent"] == 0
    finish(world.api, world.api.get(f"/api/v1/namespaces/{world.namespace}/pods/{second['metadata']['name']}"), message=SUCCESS)
    await_value(lambda: world.status("replayed").get("phase") == "Succeeded", what="its end", timeout=SECONDS)
    kept = world.job("replayed")["metadata"]["resourceVersion"]
    assert world.report(second, train(4))[0] in (401, 403, 409)
    assert world.job("replayed")["metadata"]["resourceVersion"] == kept


@pytest.mark.parametrize("body", [b"{", b'{"activity": "train", "loss": NaN}', b'{"activity": "train", "loss": 1e308}', b"x" * 10_000_000])
def test_what_is_malformed_is_refused(world: World, victim: Object, body: bytes) -> None:
    try:
        code, _ = report(world.port, authority_of(victim), token(world.api, victim), body)
    except (ConnectionError, ssl.SSLError):  # closed while ten megabytes were on their way
        code = 413
    assert code in (400, 413, 422)
    assert "progress" not in world.status("victim")


def events(world: World, name: str) -> list[tuple[str, str, str]]:
    """Type, reason and words of the job's Events, in order."""
    found = world.api.items(f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events")
    mine = [each for each in found if each["regarding"]["name"] == name and each["regarding"]["kind"] == "FineTuneJob"]
    return [(each["type"], each["reason"], each["note"]) for each in sorted(mine, key=lambda each: str(each["eventTime"]))]


def test_what_a_trainer_notices_is_a_condition_a_warning_and_one_event_each(world: World) -> None:
    pod = world.start("silent")
    silent = {"reason": "NoProgress", "message": "train only, after step 40: nothing has advanced since 12:00:00 UTC."}
    flat = {"reason": "LossFlat", "message": "stage only: the loss has not fallen."}
    newer = {"reason": "OutOfSorts", "message": "only a later version knows what that is"}

    def reason() -> tuple[str, str, str]:
        kinds = {each["type"]: each for each in world.status("silent")["conditions"]}
        return kinds["Running"]["status"], kinds["Running"]["reason"], kinds["Reconciling"]["reason"]

    assert world.report(pod, train(40, notices=[silent, flat, newer]))[0] == 200
    await_value(lambda: reason() == ("True", "NoProgress", "NoProgress"), what="the silence in its conditions", timeout=SECONDS)
    status = world.status("silent")
    assert (status["phase"], [(each["reason"], each["message"]) for each in status["warnings"]]) == (
        "Running",
        [("LossFlat", flat["message"])],
    )
    assert world.report(pod, train(40, notices=[silent, flat]))[0] == 200
    assert world.report(pod, train(41, notices=[]))[0] == 200
    await_value(lambda: reason() == ("True", "Training", "Training"), what="that it goes on", timeout=SECONDS)
    await_value(lambda: "warnings" not in world.status("silent"), what="the warning's end", timeout=SECONDS)
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    assert [event for event in events(world, "silent") if event[0] == "Warning"] == [
        ("Warning", "NoProgress", f"pod {name} on node {node}: {silent['message']}"),
        ("Warning", "LossFlat", flat["message"]),
    ]
    assert world.report(pod, train(42))[0] == 200, "a trainer that is older than notices"
    world.step("silent", 42)


def test_many_reports_are_few_writes(world: World) -> None:
    """As many as a pod may send, for longer than a turn lasts: the writes are counted in the API server's own log."""
    pod = world.start("hasty")
    text, start, began = token(world.api, pod), audit.size(world.cluster.audit_log), time.monotonic()
    taken = refused = 0
    while time.monotonic() - began < 2.5 * INTERVAL:
        code, _ = world.report(pod, train(taken + 1), text)
        taken, refused = taken + (code == 200), refused + (code == 429)
    world.step("hasty", taken)
    seconds = time.monotonic() - began
    writes = [
        event
        for event in audit.events(world.cluster.audit_log, start)
        if event["user"]["username"] == USERNAME
        and event["verb"] == "update"
        and (event.get("objectRef") or {}).get("name") == "hasty"
        and event["stage"] == "ResponseComplete"
        and event["responseStatus"]["code"] == 200
    ]
    assert taken >= POD_BURST and refused >= 1
    assert 1 <= len(writes) <= seconds / INTERVAL + 2
