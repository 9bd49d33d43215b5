"""Storage that is full, taken, damaged or not there: of the run, of its output and of what it reads."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import Final

from finetune_api.constants import Reason
from tests.failures.base import Layer
from tests.failures.ground import Ground, rows
from tests.failures.run_failure import Change, RunFailure, elsewhere, stopped_at


def _on_a_disk_of(kilobytes: int) -> Change:
    def seed(ground: Ground) -> None:
        disk = ground.folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=True)
        ground.stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        ground.run_folder = disk / "run"

    return seed


def _larger(ground: Ground) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(ground.folder / "disk")], check=True)


def _file_for_run_folder(ground: Ground) -> None:
    ground.run_folder.write_text("a file")


def _file_for_output(ground: Ground) -> None:
    (ground.folder / "models").write_text("a file")
    ground.edit({"spec.output": {"uri": "file://models/birds"}})


def _output_of_another(ground: Ground) -> None:
    """Another job has published there."""
    ground.edit({"spec.output": {"uri": "file://models/birds"}})
    ground.run()
    shutil.rmtree(ground.run_folder)
    ground.edit({"spec.seed": 8})


def _damaged(ground: Ground) -> None:
    """A run that was stopped, and whose every checkpoint was cut off."""
    stopped_at(ground, signal.SIGTERM)
    ground.run()
    ground.stack.close()
    for weights in ground.run_folder.glob("epochs/*/stages/*/checkpoint-*/weights.safetensors"):
        weights.write_bytes(b"")


def _claimed(ground: Ground) -> None:
    ground.rows("corpora/rows.jsonl", rows())
    ground.edit(
        {
            "spec.references": {"claims": [{"name": "corpora", "claimName": "team-corpora"}]},
            "spec.stages[0].data.train": [{"uri": "pvc://corpora/rows.jsonl"}],
        }
    )


def _mounted(ground: Ground) -> None:
    ground.mounts = {"corpora": ground.folder / "corpora"}


STORAGE_FAILURES: Final = (
    RunFailure(
        name="disk-full-in-prepare",
        layer=Layer.STORAGE,
        what="no space for the prepared data",
        reason=Reason.STORAGE_FULL,
        place="/disk/run",
        hint="enlarge its volume",
        fix="a larger volume, and the same command",
        seed=_on_a_disk_of(48),
        mend=_larger,
    ),
    RunFailure(
        name="disk-full-while-saving",
        layer=Layer.STORAGE,
        what="no space for a checkpoint",
        reason=Reason.STORAGE_FULL,
        place="/disk/run",
        hint="enlarge its volume",
        fix="a larger volume, and the same command",
        seed=_on_a_disk_of(200),
        mend=_larger,
    ),
    RunFailure(
        name="file-for-run-folder",
        layer=Layer.STORAGE,
        what="a file stands where the run folder belongs",
        reason=Reason.STORAGE_UNWRITABLE,
        place="/run can't be made: a file stands there",
        hint="Choose another folder (--run-folder)",
        fix="another folder",
        seed=_file_for_run_folder,
        mend=elsewhere,
    ),
    RunFailure(
        name="file-for-output",
        layer=Layer.STORAGE,
        what="a file stands where the model shall be published",
        reason=Reason.STORAGE_UNWRITABLE,
        place="spec.output.uri",
        hint="or write another spec.output.uri",
        fix="another `spec.output.uri`",
        seed=_file_for_output,
        mend=lambda ground: ground.edit({"spec.output.uri": "file://other/birds"}),
    ),
    RunFailure(
        name="output-of-another-job",
        layer=Layer.STORAGE,
        what="another job's model lies in the output folder",
        reason=Reason.INVALID_SPEC,
        place="spec.output.uri",
        hint="Write another spec.output.uri",
        fix="another `spec.output.uri`",
        seed=_output_of_another,
        mend=lambda ground: ground.edit({"spec.output.uri": "file://models/others"}),
    ),
    RunFailure(
        name="checkpoints-damaged",
        layer=Layer.STORAGE,
        what="every checkpoint is cut off",
        reason=Reason.CHECKPOINT_INVALID,
        place="weights.safetensors",
        hint="delete the folder to start anew",
        fix="the run folder was deleted",
        seed=_damaged,
        mend=lambda ground: shutil.rmtree(ground.run_folder),
    ),
    RunFailure(
        name="claim-not-mounted",
        layer=Layer.STORAGE,
        what="a claim that this machine does not know",
        reason=Reason.SOURCE_NOT_FOUND,
        place="pvc://corpora/",
        hint="Add --mount corpora=DIR",
        fix="`--mount corpora=DIR`",
        seed=_claimed,
        mend=_mounted,
    ),
    RunFailure(
        name="rows-not-there",
        layer=Layer.STORAGE,
        what="the data's file is misspelt",
        reason=Reason.SOURCE_NOT_FOUND,
        place="spec.stages[0].data.train[0]",
        hint="Check the URI",
        fix="the file that is there",
        seed=lambda ground: ground.edit({"spec.stages[0].data.train": [{"uri": "file://row.jsonl"}]}),
        mend=lambda ground: ground.edit({"spec.stages[0].data.train": [{"uri": "file://rows.jsonl"}]}),
    ),
)
