"""`finetune logs` through a real API server: attempts, following over a broken connection, and lines that no terminal should see."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from finetune_operator.resources.job import TRAINER
from scripts.render_chart import objects, rendered
from tests.apiserver.installation import ACCOUNT, rules_of
from tests.apiserver.kubelet_logs import LogServer
from tests.apiserver.test_cli import Shell
from tests.apiserver.trouble import Scene
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.pods import await_value

NASTY = [
    ("2026-11-22T10:00:00.000000001Z", b"loss 0.5 \x1b[31mred\x1b[0m \x1b]0;owned\x07"),
    ("2026-11-22T10:00:00.5Z", b"caf\xc3\xa9 \xff\xfe not UTF-8"),
    ("2026-11-22T10:00:01Z", b"x" * 1_000_000),
    ("2026-11-22T10:00:02Z", b"  0%|\r100%|done"),
]


@pytest.fixture
def kubelet(control_plane: Cluster) -> Iterator[LogServer]:
    with LogServer(control_plane) as server:
        yield server


def key(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["name"], TRAINER


def test_the_lines_of_each_attempt_are_safe_and_whole(stage: Scene, kubelet: LogServer) -> None:
    finetune = Shell(stage)
    trial = stage.trial("logged")
    first = trial.start()
    kubelet.logs[key(first)] = NASTY
    shown = finetune("logs", "logged").stdout.splitlines()
    assert (shown[0], shown[1], shown[3]) == ("loss 0.5 red ", "café �� not UTF-8", "100%|done")
    assert shown[2].startswith("x" * 8_000) and shown[2].endswith("characters more)") and len(shown[2]) < 9_000
    assert finetune("logs", "logged", "--tail", "1", "--timestamps").stdout == "2026-11-22T10:00:02Z 100%|done\n"

    trial.puppet.finish(first, 1)
    second = trial.run(2)
    kubelet.logs[key(second)] = [("2026-11-22T10:05:00Z", b"second attempt")]
    newest, every = finetune("logs", "logged"), finetune("logs", "logged", "--all")
    assert newest.stdout == "second attempt\n"
    assert [line.split(", ")[-1] for line in every.stderr.splitlines()] == ["attempt 1 <==", "attempt 2 <=="]
    assert every.stdout.splitlines() == [*shown, "second attempt"]


def test_a_follower_whose_connection_breaks_hears_each_line_once(stage: Scene, kubelet: LogServer) -> None:
    trial = stage.trial("followed")
    trial.submit()
    following = Shell(stage).begin("logs", "followed", "-f")
    try:
        pod = trial.await_pod()
        lines = [(f"2026-11-22T10:00:00.{number}Z", f"line {number}".encode()) for number in range(1, 10)]
        kubelet.broken = 4
        kubelet.logs[key(pod)] = lines  # before it runs: a connection that breaks without a line is made again from the beginning
        pod = stage.puppet.run(pod)
        await_value(lambda: any("sinceTime" in query for query in kubelet.asked), what="a connection that is made again", timeout=120)
        ending = threading.Thread(target=trial.succeed, args=(pod,))
        ending.start()
        out, err = following.communicate(timeout=150)
        ending.join(120)
    finally:
        following.kill()
    assert (following.returncode, out.splitlines()) == (0, [text.decode() for _, text in lines]), err


def person(stage: Scene, name: str, rules: Sequence[Mapping[str, list[str]]]) -> Shell:
    """The shell of somebody who has these rights in the namespace, and no others."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}"
    stage.api.post(f"{rbac}/roles", {"rules": rules, "metadata": {"name": name}})
    bound = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    stage.api.post(f"{rbac}/rolebindings", bound)
    finetune = Shell(stage, stage.cluster.user(name))
    await_value(lambda: finetune("get").returncode == 0, what="the right to get jobs")
    return finetune


def test_who_may_not_read_logs_is_told(stage: Scene, kubelet: LogServer) -> None:
    trial = stage.trial("secret")
    trial.start()
    finetune = person(stage, "viewer", [{"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": ["get", "list"]}])
    done = finetune("logs", "secret")
    assert (done.returncode, 'User "viewer" cannot list resource "pods"' in done.stderr) == (6, True)
    told = finetune("describe", "secret")
    assert (told.returncode, "note: without its events: " in told.stderr, told.stdout.startswith("secret in ")) == (0, True, True)


def test_the_charts_role_for_viewers_is_enough_to_follow_and_to_describe(stage: Scene, kubelet: LogServer) -> None:
    finetune = person(stage, "follower", rules_of(objects(rendered({})), f"{ACCOUNT}-view"))
    trial = stage.trial("viewed")
    pod = trial.start()
    kubelet.logs[key(pod)] = [("2026-11-22T10:00:00Z", b"its only line")]
    trial.succeed(pod)
    done = finetune("logs", "viewed", "-f")
    assert (done.returncode, done.stdout) == (0, "its only line\n"), done.stderr
    told = finetune("describe", "viewed")
    assert (told.returncode, told.stderr) == (0, "")
    assert "What happened" in told.stdout
