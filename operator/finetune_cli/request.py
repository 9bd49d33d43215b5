"""What `run` was asked for, checked against the job before a process is started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.constants import REASONS, Reason
from finetune_api.sources import claim_in, credentials, uris
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_cli.errors import CommandError


@dataclass(frozen=True)
class RunRequest:
    """The options of `finetune run`."""

    manifest: str
    run_folder: Path | None = None
    mounts: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    threads: int | None = None
    quiet: bool = False
    output: str = "text"


def pairs(option: str, values: Iterable[str]) -> dict[str, Path]:
    """Parse `NAME=PATH` options. Raises CommandError that names the option and what is wrong with it."""
    found: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not sign or not name or not path:
            raise CommandError(f"{option} {value}: expected NAME=PATH", hint=f"For instance: {option} models=/srv/models")
        if name in found:
            raise CommandError(f"{option} {name} is there twice", hint="Give each name once.")
        found[name] = Path(path).expanduser().absolute()
    for name, folder in found.items():
        if option == "--mount" and not folder.is_dir():
            raise CommandError(f"{option} {name}: {folder} is no folder", hint="Give the folder that stands for the claim.")
        if option == "--secret" and not (folder.is_file() and os.access(folder, os.R_OK)):
            raise CommandError(f"{option} {name}: {folder} is no readable file", hint="Give a file with nothing but the token in it.")
    return found


def refuse_missing(spec: FineTuneJobSpec, request: RunRequest) -> None:
    """Raise where the job uses a claim or a Secret that this machine was not told of; all of them at once."""
    claims = sorted({claim for _, uri in uris(spec) if (claim := claim_in(uri)) is not None} - set(request.mounts))
    secrets = sorted({name for _, name in credentials(spec)} - set(request.secrets))
    if not claims and not secrets:
        return
    wants = [f"--mount {name}=DIR" for name in claims] + [f"--secret {name}=FILE" for name in secrets]
    words = [f"the claim {name} (pvc://{name}/…)" for name in claims] + [f"the Secret {name}" for name in secrets]
    raise CommandError(
        f"the job uses {', '.join(words)}, which this machine doesn't know",
        hint=f"Add {' '.join(wants)}: a folder stands for a claim, a file with the token for a Secret.",
        exit_code=REASONS[Reason.SOURCE_NOT_FOUND].exit_code,
        reason=Reason.SOURCE_NOT_FOUND,
    )


def unused(spec: FineTuneJobSpec) -> list[str]:
    """What a manifest asks of a cluster and this machine does not do, as sentences."""
    asked = {
        "runtimeRef": spec.runtime_ref is not None,
        "suspend": spec.suspend,
        "activeDeadlineSeconds": spec.active_deadline_seconds is not None,
        "ttlSecondsAfterFinished": spec.ttl_seconds_after_finished is not None,
    }
    fields = [f"spec.{name}" for name, present in asked.items() if present]
    return [f"{', '.join(fields)}: for clusters only; this machine runs the job as it is"] if fields else []
