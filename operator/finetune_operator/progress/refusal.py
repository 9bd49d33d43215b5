"""Why a report is not taken: the HTTP status, and a sentence for the pod's log."""

from __future__ import annotations


class Refusal(Exception):
    """status: what the sender gets. The message never repeats what was sent. pod: the uid of who sent it, where that is known."""

    def __init__(self, status: int, message: str, *, pod: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.pod = pod
