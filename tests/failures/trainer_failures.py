"""What goes wrong while a run trains: memory, the network, the run folder, signals and the training itself."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from typing import Final

from finetune_api.constants import ClusterReason, Reason
from tests.builders import suite
from tests.failures.base import Layer
from tests.failures.ground import Ground, rows
from tests.failures.run_failure import RunFailure, elsewhere, stopped_at
from tests.unit.data.stand_in import Repository

# Memory


def _too_large_a_batch(ground: Ground) -> None:
    ground.rows("rows.jsonl", [{"text": "the bird of the wood sings in the morning " * 40} for _ in range(256)])
    ground.edit(
        {"spec.stages[0].training": {"maxSteps": 1, "perDeviceTrainBatchSize": 256, "gradientAccumulationSteps": 1, "maxLength": 256}}
    )
    ground.memory = 1_400_000_000  # the quarter takes 0.8, the whole more than 2: each thread sets address space aside


def _a_quarter_of_the_batch(ground: Ground) -> None:
    """The hint twice over: whether half of it fits depends on how much the allocator has set aside for each thread."""
    ground.edit({"spec.stages[0].training.perDeviceTrainBatchSize": 64, "spec.stages[0].training.gradientAccumulationSteps": 4})


# What a run is told, and who else is there


def _begun(ground: Ground) -> None:
    ground.run()
    ground.edit({"spec.stages[0].training.maxSteps": 3})


def _busy(ground: Ground) -> None:
    ground.run_folder.mkdir()
    held = os.open(ground.run_folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    ground.stack.callback(os.close, held)


# The training


def _diverging(ground: Ground) -> None:
    ground.edit(
        {
            "spec.stages[0].method": {"type": "full"},
            "spec.stages[0].training": {
                "maxSteps": 12,
                "perDeviceTrainBatchSize": 2,
                "learningRate": 6.0,
                "optimizer": "sgd",
                "maxGradNorm": 0,
            },
        }
    )


def _gated(ground: Ground) -> None:
    ground.rows("words.jsonl", rows(4))
    gate = {"suite": "words", "metric": "loss", "minImprovement": {"relative": 0.9}}
    ground.edit({"spec.evaluation.suites": [suite("words")], "spec.evaluation.gates": [gate]})


def _a_third(ground: Ground) -> None:
    rate = ground.manifest["spec"]["stages"][0]["training"]["learningRate"]
    ground.edit({"spec.stages[0].training.learningRate": rate / 3})
    elsewhere(ground)


def _less_gated(ground: Ground) -> None:
    gate = {"suite": "words", "metric": "loss", "maxRegression": {"relative": 0.5}}
    ground.edit({"spec.evaluation.gates": [gate]})
    elsewhere(ground)


# The network


def _on_the_hub(ground: Ground, **said: object) -> Repository:
    """Rows in a repository of this failure's own."""
    data = "".join(json.dumps(row) + "\n" for row in rows()).encode()
    repository = ground.shared.hub.repositories[ground.folder.name] = Repository({"rows.jsonl": data}, **said)  # type: ignore[arg-type]
    ground.edit({"spec.stages[0].data.train": [{"uri": f"hf://datasets/OWNER/{ground.folder.name}/rows.jsonl"}]})
    return repository


def _answers(ground: Ground) -> None:
    ground.shared.hub.repositories[ground.folder.name].status = None


def _with_token(ground: Ground) -> None:
    (ground.folder / "token").write_text("hf_abcdefghijklmnop\n")
    ground.secrets = {"hub": ground.folder / "token"}
    ground.edit(
        {
            "spec.references": {"secrets": [{"name": "hub", "secretName": "hub-token"}]},
            "spec.stages[0].data.train[0].credentials": "hub",
        }
    )


def _revision(ground: Ground, name: str) -> None:
    ground.edit({"spec.stages[0].data.train[0].revision": name})


def _tagged(ground: Ground) -> None:
    _on_the_hub(ground)
    _revision(ground, "v7")


def again(ground: Ground) -> None:
    """Nothing but the same command."""
    ground.stack.close()


TRAINER_FAILURES: Final = (
    RunFailure(
        name="batch-too-large",
        layer=Layer.MEMORY,
        what="a batch that does not fit into memory",
        reason=Reason.OUT_OF_MEMORY,
        place="at step 1, with 256 rows a batch",
        hint="Halve training.perDeviceTrainBatchSize and double gradientAccumulationSteps",
        fix="halved twice: 64 rows a batch, 4 accumulated",
        seed=_too_large_a_batch,
        mend=_a_quarter_of_the_batch,
    ),
    RunFailure(
        name="batch-too-large-for-its-length",
        layer=Layer.MEMORY,
        what="rows too long for memory",
        reason=Reason.OUT_OF_MEMORY,
        place="domain step 1",
        hint="lower maxLength",
        fix="`maxLength: 64`",
        seed=_too_large_a_batch,
        mend=lambda ground: ground.edit({"spec.stages[0].training.maxLength": 64}),
    ),
    RunFailure(
        name="hub-down",
        layer=Layer.NETWORK,
        what="the hub answers with 503",
        reason=Reason.SOURCE_UNREACHABLE,
        place="spec.stages[0].data.train[0]",
        hint="start again",
        fix="the same command, when the hub answers again",
        seed=lambda ground: _on_the_hub(ground, status=503) and None,
        mend=_answers,
    ),
    RunFailure(
        name="token-missing",
        layer=Layer.NETWORK,
        what="a repository that wants a token",
        reason=Reason.SOURCE_FORBIDDEN,
        place="spec.stages[0].data.train[0]",
        hint="Name a Secret with a token that may read it in spec.references.secrets, and in the field credentials",
        fix="Secret and `credentials`",
        seed=lambda ground: _on_the_hub(ground, token="hf_abcdefghijklmnop") and None,
        mend=_with_token,
    ),
    RunFailure(
        name="no-such-revision",
        layer=Layer.NETWORK,
        what="a revision that the repository does not have",
        reason=Reason.SOURCE_NOT_FOUND,
        place="spec.stages[0].data.train[0]",
        hint="Check the URI, its revision",
        fix="a revision that is there",
        seed=_tagged,
        mend=lambda ground: _revision(ground, "v1"),
    ),
    RunFailure(
        name="run-of-another-manifest",
        layer=Layer.TRAINER,
        what="the run folder holds another manifest's run",
        reason=Reason.RUN_FOLDER_MISMATCH,
        place="spec.stages[0].training.maxSteps was 2 and is now 3",
        hint="choose another folder",
        fix="another folder",
        seed=_begun,
        mend=elsewhere,
    ),
    RunFailure(
        name="run-folder-busy",
        layer=Layer.TRAINER,
        what="another live run uses the folder",
        reason=Reason.RUN_FOLDER_BUSY,
        place="/run: another live run uses this folder",
        hint="choose another folder",
        fix="another folder",
        seed=_busy,
        mend=elsewhere,
    ),
    RunFailure(
        name="loss-diverges",
        layer=Layer.TRAINER,
        what="a learning rate at which the loss diverges",
        reason=Reason.LOSS_DIVERGED,
        place="at step ",
        hint="Lower training.learningRate (to a third, say)",
        fix="a third of it, in a new run folder",
        seed=_diverging,
        mend=_a_third,
    ),
    RunFailure(
        name="gate-missed",
        layer=Layer.TRAINER,
        what="a gate that asks for too much",
        reason=Reason.GATE_FAILED,
        place="spec.evaluation.gates",
        hint="change the training or the gate, in a new run folder",
        fix="a gate that asks for less, in a new run folder",
        seed=_gated,
        mend=_less_gated,
    ),
    RunFailure(
        name="fp16-without-gpu",
        layer=Layer.TRAINER,
        what="fp16 on a machine without a GPU",
        reason=Reason.INVALID_SPEC,
        place="stage domain, training.mixedPrecision: fp16 needs a GPU, and this machine has none: write auto, bf16 or no",
        hint="Correct the field that the message names",
        fix="`mixedPrecision: auto`",
        seed=lambda ground: ground.edit({"spec.stages[0].training.mixedPrecision": "fp16"}),
        mend=lambda ground: ground.edit({"spec.stages[0].training.mixedPrecision": "auto"}),
    ),
    RunFailure(
        name="told-to-stop",
        layer=Layer.NODE,
        what="SIGTERM while it trains",
        reason=Reason.STOPPED,
        place="domain step ",
        hint="start it again to go on from there",
        fix="the same command",
        seed=lambda ground: stopped_at(ground, signal.SIGTERM),
        mend=again,
    ),
    RunFailure(
        name="trainer-killed",
        layer=Layer.NODE,
        what="SIGKILL while it trains",
        reason=ClusterReason.UNKNOWN_EXIT,
        place="was killed (SIGKILL, exit code 137)",
        hint="the same command goes on from the last checkpoint",
        fix="the same command",
        seed=lambda ground: stopped_at(ground, signal.SIGKILL),
        mend=again,
    ),
)
