"""`finetune report`, `get-model` and late `logs` through a real API server, by a user who may make nothing; the reading is the real trainer's."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_api import constants as c
from finetune_client import Client, Unreadable
from finetune_operator.kinds import POD, SEEN_EVENT
from tests.apiserver.kubelet_logs import LogServer
from tests.apiserver.reading import Volume
from tests.apiserver.test_cli import Ran, Shell
from tests.apiserver.trouble import Scene
from tests.cluster import Cluster
from tests.cluster.pods import await_value

RULES = [
    {"apiGroups": [c.GROUP], "resources": [c.PLURAL], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
"""Of the chart's roles view and edit, what reading takes."""


@pytest.fixture(scope="module")
def kubelet(control_plane: Cluster) -> Iterator[LogServer]:
    with LogServer(control_plane) as server:
        yield server


@pytest.fixture(scope="module")
def reader(stage: Scene, control_plane: Cluster) -> Shell:
    """A user who may read what jobs left, and make nothing."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}"
    stage.api.post(f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": RULES})
    bound = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    stage.api.post(f"{rbac}/rolebindings", bound)
    shell = Shell(stage, control_plane.user("reader"))
    await_value(lambda: shell("get").returncode == 0, what="the right to list jobs")
    return shell


def succeeded(stage: Scene, name: str, folder: Path) -> Volume:
    trial = stage.trial(name)
    pod = trial.start()
    volume = Volume(trial, folder / "volume")
    trial.succeed(pod, artifacts=volume.artifacts())
    return volume


def beside(work: Callable[[], object], command: Callable[[], Ran]) -> Ran:
    """A command, while something else is done."""
    other = threading.Thread(target=work)
    other.start()
    done = command()
    other.join(150)
    assert not other.is_alive()
    return done


def annotation(volume: Volume) -> str | None:
    found: str | None = (volume.trial.seen["metadata"].get("annotations") or {}).get(c.READ_ANNOTATION)
    return found


def events(volume: Volume) -> list[str]:
    trial = volume.trial
    uid = trial.seen["metadata"]["uid"]
    return [each["reason"] for each in trial.api.items(SEEN_EVENT.path(trial.namespace), fieldSelector=f"involvedObject.uid={uid}")]


def test_report_model_and_logs_reach_a_user_who_may_make_nothing(stage: Scene, reader: Shell, kubelet: LogServer, tmp_path: Path) -> None:
    volume = succeeded(stage, "whole", tmp_path)
    trial, target = volume.trial, tmp_path / "here"
    before = {name: value for name, value in trial.status.items() if name != "lastRead"}

    done = beside(lambda: volume.play(kubelet), lambda: reader("get-model", "whole", str(target)))
    assert done.returncode == 0, done.stderr
    digest = trial.status["artifacts"][0]["sha256"]
    assert f"adapter of whole, 2 files, 6.2 MiB, sha256 {digest} as published" in done.stdout
    for path in (volume.run / "artifacts/adapter").iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
    assert len(list(target.iterdir())) == 2
    assert annotation(volume) is None
    assert {name: value for name, value in trial.status.items() if name != "lastRead"} == before
    assert "Read" in events(volume)

    refused = reader("get-model", "whole", str(target))
    assert (refused.returncode, "is not empty" in refused.stderr) == (30, True)

    pods = frozenset(pod["metadata"]["name"] for pod in trial.pods())
    done = beside(lambda: volume.play(kubelet, pods), lambda: reader("report", "whole", "--dir", str(tmp_path / "report")))
    assert (done.returncode, (tmp_path / "report/report.html").read_text()) == (0, "<h1>report</h1>"), done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == ["report.html", "README.md"]

    for pod in trial.pods():
        trial.api.delete(POD.path(trial.namespace, pod["metadata"]["name"]), grace=0)
    done = beside(lambda: volume.play(kubelet), lambda: reader("logs", "whole"))
    assert (done.returncode, done.stdout) == (0, "loss 0.5\nwith ***\n"), done.stderr
    assert "==> 002-train.log, from the run folder <==" in done.stderr
    assert {name: value for name, value in trial.status.items() if name != "lastRead"} == before


def test_what_was_changed_on_the_volume_is_not_handed_out(stage: Scene, reader: Shell, kubelet: LogServer, tmp_path: Path) -> None:
    volume = succeeded(stage, "changed", tmp_path)
    (volume.run / "artifacts/adapter/adapter_config.json").write_text('{"base": "evil"}')
    done = beside(lambda: volume.play(kubelet), lambda: reader("get-model", "changed", str(tmp_path / "here")))
    assert (done.returncode, "is not the adapter that was published" in done.stderr) == (3, True), done.stderr
    assert "→ Somebody changed or removed it on the volume." in done.stderr
    assert not (tmp_path / "here").exists()
    status = volume.trial.status
    assert (status["phase"], "failure" in status, len(status["attempts"])) == ("Succeeded", False, 1)


def test_what_can_not_be_asked_for_is_said_at_once(stage: Scene, reader: Shell, tmp_path: Path) -> None:
    trial = stage.trial("early")
    pod = trial.start()
    done = reader("get-model", "early", str(tmp_path / "here"))
    assert (done.returncode, "early has not ended yet: it is Running" in done.stderr) == (3, True)
    trial.succeed(pod)
    done = reader("get-model", "early", str(tmp_path / "here"), "--kind", "merged")
    assert (done.returncode, "published no merged: there is adapter" in done.stderr) == (3, True)
    done = reader("report", "none-such", "-q")
    assert (done.returncode, "there is no FineTuneJob none-such" in done.stderr) == (5, True)
    with Client(kubeconfig=reader.kubeconfig, namespace=stage.namespace) as client, pytest.raises(Unreadable, match="no report"):
        client.fetch("early", "report", tmp_path / "here")


def test_ctrl_c_takes_the_request_back(stage: Scene, reader: Shell, tmp_path: Path) -> None:
    volume = succeeded(stage, "broken-off", tmp_path)
    process = reader.begin("get-model", "broken-off", str(tmp_path / "here"))
    try:
        await_value(lambda: annotation(volume), what="the request", timeout=60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, annotation(volume), (tmp_path / "here").exists()) == (130, None, False)


def test_who_waits_in_vain_is_told_for_what(stage: Scene, reader: Shell, tmp_path: Path) -> None:
    volume = succeeded(stage, "waiting", tmp_path)

    def wait() -> None:
        stage.puppet.wait(volume.reader(), "ImagePullBackOff", "the registry is away")

    done = beside(wait, lambda: reader("report", "waiting", "--dir", str(tmp_path / "here"), "--timeout", "8s"))
    assert (done.returncode, "ImagePullBackOff: the registry is away" in done.stderr) == (4, True), done.stderr


@pytest.mark.parametrize("text", ["nonsense", '{"id": "1a2b3c4d", "what": "../../etc/passwd"}', "x" * 100_000])
def test_an_annotation_that_is_no_request_is_said_once_and_makes_nothing(stage: Scene, text: str, tmp_path: Path) -> None:
    volume = succeeded(stage, f"nonsense-{len(text)}", tmp_path)
    trial = volume.trial
    jobs = len(trial.batch_jobs())
    trial.api.patch(trial.path, {"metadata": {"annotations": {c.READ_ANNOTATION: text}}})
    told = trial.await_that(lambda: trial.status.get("lastRead"), "the annotation is told to be no request")
    assert "is no request" in told["message"]
    trial.await_that(lambda: "ReadRefused" in events(volume), "an Event says so")
    request = {"id": "1a2b3c4d", "what": "logs"}
    trial.api.patch(trial.path, {"metadata": {"annotations": {c.READ_ANNOTATION: json.dumps(request)}}})
    trial.await_that(lambda: trial.status["lastRead"]["id"] == "1a2b3c4d", "a request is served after all")
    (made,) = [each["metadata"]["name"] for each in trial.batch_jobs() if each["metadata"]["name"].endswith("-read-1a2b3c4d")]
    assert (trial.status["lastRead"]["job"], len(trial.batch_jobs())) == (made, jobs + 1)
