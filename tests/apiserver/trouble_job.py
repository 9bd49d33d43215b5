"""One FineTuneJob in trouble: what its user does to it, what becomes of it, and the words of its trainers."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from finetune_api import constants as c
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD, controller_of, uid_of
from tests import builders
from tests.apiserver.puppet import Puppet
from tests.builders import Document, edited
from tests.cluster.api import Api, Object
from tests.cluster.pods import await_value

T = TypeVar("T")
ROWS: Final = {"train": [{"uri": "hf://datasets/team/rows/train.jsonl"}]}
PATIENCE: Final = 120.0
"""Seconds that a test waits for what must come: a busy machine is slow, and not at fault."""


def one_stage(name: str, namespace: str, manifest: Document | None = None, **edits: Any) -> Document:
    """A job with one stage; edits by path, with `__` for a dot."""
    made = edited(manifest or builders.job(builders.stage("task", data=ROWS)), {path.replace("__", "."): edits[path] for path in edits})
    return {**made, "metadata": {**made["metadata"], "name": name, "namespace": namespace}}


def said(outcome: str = "Succeeded", code: int = 0, **fields: Any) -> str:
    """A trainer's last message."""
    return json.dumps({"outcome": outcome, "exitCode": code, **fields})


def published(**fields: Any) -> str:
    """The last message of a trainer that published an adapter."""
    artifact = {"kind": "adapter", "uri": "pvc://runs/artifacts/adapter", "sha256": "b" * 64, "bytes": 1048576, "weightsSha256": "c" * 64}
    done = {"status": {"name": "task", "phase": "Succeeded", "metrics": {"loss": 1.25}}, "steps": 100}
    return said(**{"artifacts": [artifact], "stages": [done], **fields})


def stopped(step: int) -> str:
    """The last message of a trainer that saved because it was told to stop."""
    return said("Stopped", c.ExitCode.STOPPED, reason=c.Reason.STOPPED, stage="task", step=step, message=f"saved at step {step}")


def pages(text: str) -> dict[str, str]:
    """The last messages of a report's containers, by their names."""
    data = base64.b64encode(zlib.compress(text.encode())).decode()
    parts = [data[:100], data[100:], ""]
    return {f"page-{number}": json.dumps({"page": number, "pages": 2, "data": part}) for number, part in enumerate(parts)}


class Trial:
    def __init__(self, api: Api, puppet: Puppet, manifest: Document) -> None:
        self.api = api
        self.puppet = puppet
        self.manifest = manifest
        self.name: str = manifest["metadata"]["name"]
        self.namespace: str = manifest["metadata"]["namespace"]
        self.path = FINE_TUNE_JOB.path(self.namespace, self.name)

    # What its user does

    def submit(self) -> Object:
        """Create it, anew where it was deleted. Returns it as the API server has it."""
        return self.api.post(FINE_TUNE_JOB.path(self.namespace), self.manifest)

    def edit(self, **changes: Any) -> Object:
        """Merge changes of the spec; a dot is `__`."""
        return self.api.patch(self.path, edited({}, {f"spec.{path.replace('__', '.')}": value for path, value in changes.items()}))

    def delete(self) -> None:
        self.api.delete(self.path)

    # What there is

    @property
    def seen(self) -> Object:
        return self.api.get(self.path)

    @property
    def status(self) -> Object:
        found: Object = self.seen.get("status") or {}
        return found

    def condition(self, kind: str) -> Object:
        """The condition of this type; empty where it is not there yet."""
        return next((each for each in self.status.get("conditions") or [] if each["type"] == kind), {})

    def batch_jobs(self) -> list[Object]:
        """The batch Jobs that it controls, and that are not being deleted."""
        uid = uid_of(self.seen)
        found = self.api.items(JOB.path(self.namespace))
        return [each for each in found if controller_of(each) == uid and not each["metadata"].get("deletionTimestamp")]

    def pods(self, uid: str = "") -> list[Object]:
        return self.api.items(POD.path(self.namespace), labelSelector=f"{c.JOB_UID_LABEL}={uid or uid_of(self.seen)}")

    def attempts(self) -> list[tuple[int, str | None]]:
        """Number and reason of each attempt in the status."""
        return [(each["number"], each.get("reason")) for each in self.status.get("attempts") or []]

    def budgets(self) -> list[tuple[int, int]]:
        """Attempts and preemptions that were charged, by segment."""
        return [(each["attempts"], each["preemptions"]) for each in self.status.get("budgets") or []]

    # What is waited for

    def await_that(self, find: Callable[[], T | None], what: str) -> T:
        """What `find` returns once that is true; an AssertionError with the status where it does not come."""
        try:
            return await_value(find, what=what, timeout=PATIENCE)
        except AssertionError as error:
            slim = {**self.status, "runtime": "…"}
            raise AssertionError(f"{error}; the status of {self.name} is {json.dumps(slim, indent=1)[:8000]}") from error

    def await_condition(self, kind: str, status: str, reason: str) -> Object:
        """The condition, once it says this."""

        def found() -> Object | None:
            stands = self.condition(kind)
            return stands if (stands.get("status"), stands.get("reason")) == (status, reason) else None

        return self.await_that(found, f"{kind} is {status}, {reason}")

    def await_waiting(self, reason: str) -> str:
        """The message of what it waits for, once that has this reason. Such a wait stalls nothing."""
        stands = self.await_condition("Running", "False", reason)
        kinds = {each["type"]: each["status"] for each in self.status["conditions"]}
        assert (kinds["Accepted"], kinds["Stalled"], kinds["Reconciling"]) == ("True", "False", "True")
        return str(stands["message"])

    def await_refused(self, reason: str) -> str:
        """The message, once it is not accepted for this reason; kstatus reads that as failed."""
        stands = self.await_condition("Accepted", "False", reason)
        kinds = {each["type"]: (each["status"], each["reason"]) for each in self.status["conditions"]}
        assert (kinds["Stalled"], kinds["Reconciling"][0], kinds["Failed"][0]) == (("True", reason), "False", "False")
        return str(stands["message"])

    def await_phase(self, phase: str) -> Object:
        """The status, once it is in this phase."""
        return self.await_that(lambda: stands if (stands := self.status).get("phase") == phase else None, f"it is {phase}")

    def await_failed(self, reason: str) -> Object:
        """`status.failure`, once it has failed; which must be for this reason, in every condition."""
        failure: Object = self.await_phase("Failed")["failure"]
        kinds = {each["type"]: (each["status"], each["reason"]) for each in self.status["conditions"]}
        assert failure["reason"] == reason, failure
        assert kinds["Failed"] == kinds["Finished"] == kinds["Stalled"] == ("True", reason)
        assert failure["hint"], failure
        return failure

    def await_pod(self, number: int = 1, *, segment: int | str = 1, other: str = "", scheduled: bool = True) -> Object:
        """The pod of an attempt, on its node (unless `scheduled` is False); with `other`, one of another name."""
        uid = uid_of(self.seen)
        labels = f"{c.JOB_UID_LABEL}={uid},{c.SEGMENT_LABEL}={segment},{c.ATTEMPT_LABEL}={number}"

        def found() -> Object | None:
            pods = self.api.items(POD.path(self.namespace), labelSelector=labels)
            alive = [pod for pod in pods if pod["metadata"]["name"] != other and not pod["metadata"].get("deletionTimestamp")]
            return next((pod for pod in alive if not scheduled or pod["spec"].get("nodeName")), None)

        return self.await_that(found, f"there is a pod of segment {segment}, attempt {number}")

    def await_gone(self, path: str = "") -> None:
        """Until this object (itself, where none is said) is gone."""
        await_value(lambda: self.api.find(path or self.path) is None, what=f"{path or self.path} is gone", timeout=PATIENCE)

    def await_stopping(self, pod: Object) -> Object:
        """The pod, once somebody has asked for its end."""
        path = POD.path(self.namespace, pod["metadata"]["name"])
        return self.await_that(
            lambda: found if (found := self.api.get(path))["metadata"].get("deletionTimestamp") else None, "its pod is told to stop"
        )

    # Whole passages

    def start(self) -> Object:
        """Submit it, and have its pod run. Returns the pod."""
        self.submit()
        return self.run()

    def run(self, number: int = 1, *, segment: int | str = 1, other: str = "") -> Object:
        """Have the pod of this attempt run, until the status tells of it. Returns the pod."""
        pod = self.puppet.run(self.await_pod(number, segment=segment, other=other))
        name = pod["metadata"]["name"]

        def told() -> bool:
            status = self.status
            running = any(each["type"] == "Running" and each["status"] == "True" for each in status.get("conditions") or [])
            return running and any(each.get("pod") == name for each in status.get("attempts") or [])

        self.await_that(told, f"its status tells that pod {name} runs")
        return pod

    def stop(self, pod: Object, code: int = c.ExitCode.STOPPED, message: str = "") -> None:
        """What follows SIGTERM; the pod is gone only when its end is on record, so that the record does not depend on who was faster."""
        ended = self.puppet.finish(pod, code, message)
        name = pod["metadata"]["name"]

        def recorded() -> bool:
            return any(each.get("pod") == name and each.get("finishedAt") for each in self.status.get("attempts") or [])

        self.await_that(recorded, f"the end of pod {name} is on record")
        self.puppet.remove(ended)

    def succeed(self, pod: Object, **fields: Any) -> Mapping[str, Any]:
        """The trainer publishes and ends. Returns the status."""
        self.puppet.finish(pod, message=published(**fields))
        return self.await_phase("Succeeded")
