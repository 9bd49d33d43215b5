"""run.json: whose run a folder holds. Another manifest's run is refused, with the fields that differ."""

from __future__ import annotations

import json
from dataclasses import dataclass

from finetune_api.constants import Reason
from finetune_api.refusals import another_run
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder


@dataclass(frozen=True)
class Identity:
    """What the first start of a run recorded."""

    job: str
    config_hash: str
    threads: int
    """Sums depend on it, so every later start uses the same number."""


def claim(run: RunFolder, config: TrainerConfig, *, files: FileLayer | None = None) -> Identity:
    """Record whose run this is, or check that it is the same. Raises TrainerError(RunFolderMismatch). Call it with the lock held."""
    files = files or FileLayer()
    spec = config.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        recorded = json.loads(run.identity.read_bytes())
        identity = Identity(recorded["job"], recorded["configHash"], recorded["threads"])
        unlike = another_run(recorded, config.job.name, spec)
    except FileNotFoundError:
        identity = Identity(config.job.name, config.config_hash, config.threads)
        document = {"job": identity.job, "configHash": identity.config_hash, "threads": identity.threads, "spec": spec}
        files.make_parents(run.root)
        files.replace_file(run.identity, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
        return identity
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(
            Reason.RUN_FOLDER_MISMATCH, "it can't be read, so whose run this folder holds is unknown", where=str(run.identity)
        ) from error
    if identity.job != config.job.name or identity.config_hash != config.config_hash:
        raise TrainerError(Reason.RUN_FOLDER_MISMATCH, unlike, where=str(run.root))
    return identity
