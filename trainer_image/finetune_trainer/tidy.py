"""What is left of a run folder after success: artifacts, logs, and the result that tells of them. A volume is dear, checkpoints are large."""

from __future__ import annotations

from finetune_api.wire import RunResult
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.run_folder import RunFolder


def tidy(run: RunFolder, files: FileLayer | None = None) -> None:
    """Remove the rest. It may be interrupted anywhere and done again. Raises TrainerError (StorageUnwritable) or OSError."""
    files = files or FileLayer()
    kept = {run.artifacts, run.logs, run.result, run.identity}
    for path in sorted(run.root.iterdir()):
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            files.remove_tree(path)
        else:
            files.unlink(path)
    files.sync_folder(run.root)


def without_checkpoints(result: RunResult) -> RunResult:
    """The result, silent about checkpoints, which go with the rest."""
    stages = [stage.model_copy(update={"status": stage.status.model_copy(update={"checkpoint": None})}) for stage in result.stages]
    return result.model_copy(update={"stages": stages})
