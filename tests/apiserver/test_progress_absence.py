"""A trainer that reports while the operator is away, and after its certificates were lost."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from pathlib import Path

import pytest

from finetune_api import constants as c
from finetune_api.wire import Activity
from finetune_operator.progress.contract import PATH
from finetune_trainer.remote_progress import HttpsSender, RemoteReporter
from tests.apiserver import reporting
from tests.apiserver.installation import running_operator
from tests.apiserver.progress_world import World, installed, train
from tests.apiserver.reporting import FLAGS, SECONDS, authority_of, port_of, report, token
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.pods import await_value


def test_the_operator_may_be_gone_and_its_authority_renewed(control_plane: Cluster, tmp_path: Path) -> None:
    """The trainer's own reporter, with what its pod was given, through an absence of the operator and a lost Secret."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    flags = ("--progress-url", f"https://127.0.0.1:{port}{PATH}", "--progress-port", str(port), *FLAGS[2:])
    log = tmp_path / "log"
    begin = partial(running_operator, control_plane, log, *flags)
    with installed(control_plane, log) as world:
        with begin():
            pod = world.start("through")
            reporter, sender = reporter_of(world, pod, tmp_path)
            deliver_until(world, reporter, 10)
        reporter.report(Activity.TRAIN, stage="only", done=20, total=1000)
        reporter.deliver()  # nobody is there: it says so in the log, and goes on
        with begin():
            deliver_until(world, reporter, 30)
        bundle = authority_of(pod)
        secret = world.api.get(reporting.secret_path())
        assert set(secret["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
        world.api.patch(reporting.secret_path(), {"data": None})
        with begin():
            newer = world.start("newer")
            with pytest.raises(ssl.SSLCertVerificationError):
                report(port_of(log), bundle, token(world.api, pod), train(40))
            reporter.deliver()
            assert authority_of(newer) != bundle
            assert report(port_of(log), authority_of(newer), token(world.api, newer), train(1))[0] == 200
            world.step("newer", 1)
            assert world.status("through")["phase"] == "Running", "whoever can't report trains on"
        sender.close()


def reporter_of(world: World, pod: Object, folder: Path) -> tuple[RemoteReporter, HttpsSender]:
    """The trainer's reporter, with the files and the address of its pod."""
    (container,) = pod["spec"]["containers"]
    (url,) = [each["value"] for each in container["env"] if each["name"] == c.PROGRESS_URL]
    (folder / "token").write_text(token(world.api, pod))
    (folder / "ca.crt").write_text(authority_of(pod))
    sender = HttpsSender(url, token=folder / "token", authority=folder / "ca.crt")
    return RemoteReporter(sender, every=0.0), sender


def deliver_until(world: World, reporter: RemoteReporter, step: int) -> None:
    """Report a step until the status has it."""

    def told() -> bool:
        reporter.report(Activity.TRAIN, stage="only", done=step, total=1000, percent=step / 10)
        reporter.deliver()
        return bool((world.status("through").get("progress") or {}).get("step") == step)

    await_value(told, what=f"step {step} in the status", timeout=SECONDS, every=1.0)
