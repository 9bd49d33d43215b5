"""Every way in which the client fails, said for people: `message` is what was wrong, `hint` what to do.

ClientError
├── ConfigError         the kubeconfig can't be read, or has no such context
├── Unreachable         no answer: the address, the network, or the certificate
├── ServerTrouble       the API server answered that it can't now (429, 5xx), or answered what is no Kubernetes
│   └── Expired         410: it has forgotten the version that was asked for; a watch begins anew by itself
├── Unauthorized        401: it does not know these credentials
├── Forbidden           403: it knows them, and they may not
├── NotFound            404: there is no such object
├── OperatorMissing     404: this cluster does not know FineTuneJobs at all
├── Conflict            409: another manager owns a field, or the object changed in between
│   └── AlreadyExists   409 at a create
├── Invalid             400, 422: the object is refused; `causes` names the fields
├── Unreadable          what a job left can't be read: it has not ended, did not publish it, or it is gone from the volume
├── Unwritable          what was read can't be written here: the folder is not empty, or the disk is full
├── JobEnded            what was waited for will not come any more; `job` is how it ended
└── WaitTimeout         it did not come in the time that was given; `job` is how it stood
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from finetune_client.objects import Job


class ClientError(Exception):
    """A sentence on what was wrong, and one on what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n→ {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(ClientError):
    pass


class Unreachable(ClientError):
    pass


class ServerTrouble(ClientError):
    pass


class Expired(ServerTrouble):
    pass


class Unauthorized(ClientError):
    pass


class Forbidden(ClientError):
    pass


class NotFound(ClientError):
    pass


class OperatorMissing(ClientError):
    pass


class Conflict(ClientError):
    pass


class AlreadyExists(Conflict):
    pass


class Cause(NamedTuple):
    """What is wrong with one field."""

    field: str
    message: str


class Invalid(ClientError):
    def __init__(self, message: str, hint: str = "", causes: Sequence[Cause] = ()) -> None:
        super().__init__(message, hint)
        self.causes = tuple(causes)


class Unreadable(ClientError):
    pass


class Unwritable(ClientError):
    pass


class JobEnded(ClientError):
    def __init__(self, message: str, hint: str, job: Job) -> None:
        super().__init__(message, hint)
        self.job = job


class WaitTimeout(ClientError):
    def __init__(self, message: str, hint: str, job: Job | None) -> None:
        super().__init__(message, hint)
        self.job = job


def error_of(code: int, status: dict[str, Any], *, what: str, server: str) -> ClientError:
    """The error that an answer stands for. status: the API server's Status object, empty where it answered something else.

    what: the object that was asked for, in words.
    """
    said, reason = str(status.get("message") or ""), str(status.get("reason") or "")
    if code == 401:
        return Unauthorized(
            f"{server} does not know these credentials",
            "Log in again, or choose another context: `kubectl config get-contexts` lists them.",
        )
    if code == 403 and reason in ("Forbidden", ""):
        return Forbidden(
            said or f"not allowed: {what}", "Ask whoever runs the cluster for this right, or choose another namespace or context."
        )
    if code == 404:
        return _not_found(status, what=what, server=server)
    if code == 409:
        return _conflict(status, said, reason)
    if code == 410:
        return Expired(said or "the version that was asked for is forgotten", "Try again.")
    if 400 <= code < 500 and code != 429:
        return _invalid(status, said or f"the API server refused: {what} ({code})")
    wait = "Try again in a moment."
    return ServerTrouble(f"{server} can't answer now ({code} {reason}): {said}" if said else f"{server} can't answer now ({code})", wait)


def _not_found(status: dict[str, Any], *, what: str, server: str) -> ClientError:
    # A path that no API serves is answered by plain text; an object that is not there by a Status with its name.
    if not status or not (status.get("details") or {}).get("name"):
        return OperatorMissing(
            f"{server} does not know FineTuneJobs",
            "Install the operator and its CRDs there first (docs/how-to/install.md), or choose another context.",
        )
    return NotFound(f"there is no {what}")


def _conflict(status: dict[str, Any], said: str, reason: str) -> ClientError:
    if reason == "AlreadyExists":
        return AlreadyExists(said, "Choose another name, or delete that one first.")
    owners = [Cause(str(each.get("field", "")), str(each.get("message", ""))) for each in (status.get("details") or {}).get("causes") or []]
    if not owners:
        return Conflict(said, "It changed in between: try again.")
    fields = "; ".join(f"{cause.field.removeprefix('.')}: {cause.message}" for cause in owners)
    return Conflict(
        f"somebody else owns fields of it: {fields}",
        "Leave these fields to whoever owns them, or take them over with --force (force=True).",
    )


def _invalid(status: dict[str, Any], said: str) -> Invalid:
    causes = [Cause(str(each.get("field", "")), str(each.get("message", ""))) for each in (status.get("details") or {}).get("causes") or []]
    named = [cause for cause in causes if cause.message]
    if named:
        said = "the cluster refuses it: " + "; ".join(
            f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in named
        )
    return Invalid(said, "", named)
