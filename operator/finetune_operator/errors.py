"""Every way in which a call to the API server fails, and what the caller is to do about it.

KubeError
├── NotFound        404: there is no such object (or namespace)
├── Conflict        409: the object is no longer the one that was read: read it again, decide again
├── AlreadyExists   409 at a create: somebody holds the name
├── Refused         400, 403, 405, 413, 422: the same request would be refused again, until a person changes something
└── Transient       401, 410, 429, 5xx, time-outs, broken connections: try again later
Waiting             something must be gone first, and goes by itself: try again later
SettingsError       the operator was started wrongly; lists every problem at once
"""

from __future__ import annotations

from collections.abc import Sequence


class KubeError(Exception):
    """A call to the API server that did not succeed.

    code: HTTP status (0 where no answer came). reason: the API server's one word. message: its sentence.
    """

    def __init__(self, verb: str, path: str, *, code: int, reason: str, message: str) -> None:
        super().__init__(f"{verb} {path}: {code} {reason}: {message}")
        self.verb = verb
        self.path = path
        self.code = code
        self.reason = reason
        self.message = message


class NotFound(KubeError):
    pass


class Conflict(KubeError):
    pass


class AlreadyExists(KubeError):
    pass


class Refused(KubeError):
    pass


class Transient(KubeError):
    pass


class Waiting(Exception):
    """What holds a name is Terminating; nothing is wrong."""


class SettingsError(Exception):
    """How the operator was started can't work. The message names each setting, and what to write instead."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


REFUSED_CODES = frozenset({400, 403, 405, 413, 415, 422})


def error_of(verb: str, path: str, *, code: int, reason: str, message: str) -> KubeError:
    """The error that an answer of the API server means. code: its HTTP status, 400 or more."""
    if code == 404:
        kind: type[KubeError] = NotFound
    elif code == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else Conflict
    elif code in REFUSED_CODES:
        kind = Refused
    else:
        kind = Transient
    return kind(verb, path, code=code, reason=reason, message=message)
