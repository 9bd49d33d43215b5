"""A job that trains in real pods, from `finetune apply` to its end by commands alone, and what each command said of it meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.apiserver.follower import Follower
from tests.cluster.api import Object
from tests.cluster.pods import await_value
from tests.node.commands import Done, Person, cells
from tests.node.jobs import Job, manifest, strike
from tests.node.platform import PATIENCE, TEAM, Platform

NAME: Final = "followed"
WITHIN: Final = ("--timeout", f"{2 * PATIENCE}s")


@dataclass(frozen=True)
class Life:
    job: Job
    said: Mapping[str, str]
    """What commands printed that were given on the way, by what was asked."""
    columns: Mapping[str, Mapping[str, str]]
    """Of `finetune get`, `kubectl get` and their wide forms, while it trained."""
    beside: Mapping[str, Done]
    """What commands came to that ran beside it to its end."""
    states: list[Object]
    """Each state that it was ever in."""


def live(platform: Platform, person: Person) -> Life:
    """It is suspended and cancelled once each, and goes on both times. `watch`, `logs --follow` and `kubectl wait` run beside it.

    Its trainer stands still while commands look at it, so that what they see is so on a machine of any speed.
    """
    document = json.dumps(manifest(NAME, evaluation={"baseline": False}))
    job = Job(platform, NAME)
    said: dict[str, str] = {}
    columns: dict[str, Mapping[str, str]] = {}

    def kubectl(*arguments: str) -> str:
        return platform.cluster.kubectl(*arguments, "--namespace", TEAM, user=person.kubeconfig)

    with contextlib.ExitStack() as stack:
        follower = stack.enter_context(Follower(platform.cluster.api, TEAM, NAME))
        said["apply"] = person.does("apply", "-f", "-", given=document)
        beside = {
            "watch": stack.enter_context(person.beside("watch", NAME)),
            "logs": stack.enter_context(person.beside("logs", NAME, "--follow")),
            "kubectl wait": stack.enter_context(
                person.kubectl_beside("wait", f"ftj/{NAME}", "--for=condition=Finished", f"--timeout={2 * PATIENCE}s")
            ),
        }
        person.does("wait", NAME, "--for", "Running", *WITHIN)
        job.await_status(reports, "progress of its training")
        pod = job.next_trainer(None)
        strike(pod, signal.SIGSTOP)  # or it might be done before all have looked
        columns["kubectl get"] = cells(kubectl("get", "ftj", NAME))
        columns["kubectl get -o wide"] = cells(kubectl("get", "ftj", NAME, "--output", "wide"))
        columns["finetune get -o wide"] = cells(person.does("get", NAME, "--output", "wide"))
        said["describe"] = person.does("describe", NAME)
        said["suspend"] = person.does("suspend", NAME)
        strike(pod, signal.SIGCONT)
        person.does("wait", NAME, "--for", "Suspended", *WITHIN)
        columns["finetune get"] = cells(person.does("get", NAME))
        said["resume"] = person.does("resume", NAME)
        pod = job.next_trainer(pod)
        strike(pod, signal.SIGSTOP)
        person.does("wait", NAME, "--for", "Running", *WITHIN)
        with person.beside("cancel", NAME) as cancelling:
            await_value(lambda: job.get()["spec"]["suspend"], what="the request of cancel", timeout=PATIENCE)
            strike(pod, signal.SIGCONT)
            said["cancel"] = cancelling.end().stdout
        said["get -o json"] = person.does("get", NAME, "--output", "json")
        person.does("resume", NAME)
        person.does("wait", NAME, *WITHIN)
        ended = {name: process.end() for name, process in beside.items()}
        said["describe at the end"] = person.does("describe", NAME)
        said["kubectl describe"] = kubectl("describe", "ftj", NAME)
        follower.await_state(job.get()["metadata"]["resourceVersion"])
    return Life(job, said, columns, ended, follower.seen)


def reports(status: Mapping[str, Any]) -> bool:
    """Whether a trainer has said how far it is."""
    progress = status.get("progress") or {}
    return status.get("phase") == "Running" and progress.get("loss") is not None and bool(progress.get("eta"))


def happened(life: Life) -> list[str]:
    """The reasons of the Events of its description, as kubectl has them."""
    lines = life.said["kubectl describe"].partition("\nEvents:\n")[2].splitlines()
    return [line.split()[1] for line in lines[2:]]
