"""The Hugging Face hub, through its own client: a revision is resolved once to a commit, then files come from the commit.

A commit never changes, so what was fetched for it once is taken from the client's cache without asking again. `HF_ENDPOINT`, `HF_HOME`
and `HF_HUB_OFFLINE` mean what they mean to every program that uses the hub.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.pulse import beat

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"^[0-9a-f]{40}$")


class Repository(NamedTuple):
    """A repository as a manifest names it. `token`: never logged, never stored."""

    name: str
    """OWNER/NAME"""
    kind: Kind
    revision: str | None
    token: str | None
    where: str
    """The field of the manifest, for messages."""


class Snapshot(NamedTuple):
    folder: Path
    commit: str


def fetch(repository: Repository, *, allow: Sequence[str], ignore: Sequence[str] = ()) -> Snapshot:
    """Bring the files that match the patterns (fnmatch; `*` matches `/` too) into the hub's cache, and say where they lie.

    Raises TrainerError: SourceForbidden (401, 403), SourceNotFound (404), SourceUnreachable (time-outs, 5xx, no network).
    """
    # The client reads HF_ENDPOINT and its kin when it is imported, and takes half a second for it.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import tqdm

    class Advancing(tqdm):
        """The client's own bar, which is told of each chunk that has come; where it is not shown, too."""

        def update(self, n: float | None = 1) -> Any:
            beat()
            return super().update(n)

    try:
        commit = repository.revision if repository.revision and _COMMIT.match(repository.revision) else None
        if commit is None and not _offline():
            info = HfApi(token=repository.token).repo_info(
                repository.name, repo_type=repository.kind, revision=repository.revision, timeout=30
            )
            commit = str(info.sha)
        folder = snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=commit or repository.revision,
            token=repository.token,
            allow_patterns=list(allow),
            ignore_patterns=list(ignore) or None,
            local_files_only=_offline(),
            tqdm_class=Advancing,
        )
    except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise _explain(repository, error) from None
    except HFValidationError:
        raise TrainerError(
            Reason.INVALID_SPEC, f"{repository.name!r} is not the name of a repository: write OWNER/NAME", where=repository.where
        ) from None
    return Snapshot(Path(folder), Path(folder).name)


def names(repository: Repository, commit: str) -> list[str]:
    """Every file of a commit, to say what a repository has instead of what was looked for."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        return sorted(HfApi(token=repository.token).list_repo_files(repository.name, repo_type=repository.kind, revision=commit))
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise _explain(repository, error) from None


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _explain(repository: Repository, error: BaseException) -> TrainerError:
    """Look through the client's errors for what the server said."""
    place = f"hf://{'datasets/' if repository.kind == 'dataset' else ''}{repository.name}"
    at = f" at revision {repository.revision!r}" if repository.revision else ""
    status = _status(error)
    if status in (401, 403):
        told = "the token was not accepted for it" if repository.token else "no credentials are given for it"
        message = f"the hub refuses {place}{at} (HTTP {status}): {told}, or it doesn't exist"
        return TrainerError(Reason.SOURCE_FORBIDDEN, message, where=repository.where)
    if status == 404:
        return TrainerError(Reason.SOURCE_NOT_FOUND, f"the hub has no {place}{at} (HTTP 404)", where=repository.where)
    if _offline():
        message = f"{place}{at} is not in the hub's cache on this machine, and HF_HUB_OFFLINE is set"
        return TrainerError(Reason.SOURCE_NOT_FOUND, message, where=repository.where)
    told = f"HTTP {status}" if status else type(_root(error)).__name__
    return TrainerError(Reason.SOURCE_UNREACHABLE, f"the hub did not give {place}{at} ({told})", where=repository.where)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        error = error.__cause__
    return None
