"""The end of a stage that is followed by another: what that one starts from, with the share of the change that is given or chosen; recorded."""

from __future__ import annotations

import json
from typing import Any

from finetune_api.wire import Activity
from finetune_trainer import handover, holding_back, outcome
from finetune_trainer.arms import RESOLVED
from finetune_trainer.checkpoint.lineage import stage_index
from finetune_trainer.engine.precision import autocast
from finetune_trainer.engine.stage import make_collator
from finetune_trainer.engine.validation import Aborted
from finetune_trainer.errors import Stopped
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start, Tensors
from finetune_trainer.work import Work


def handed_over(work: Work, key: str, model: StageModel) -> Start:
    """What the next stage starts from, with the share of this one's change that is given or that its validation rows choose; recorded."""
    stage, index = model.stage, stage_index(key)
    assert stage.hand_over is not None, "asked of stages that are followed by another"
    start = handover.hand_over(model, stage.hand_over)
    share, record = stage.hand_over_scale, dict[str, Any](kind=str(stage.hand_over))
    if share is None and stage.hand_over_scale_by is None:
        return start
    before: Tensors = holding_back.weights_before(model) if share != 1 else {}
    if share is None:
        losses = losses_of_shares(work, index, model, start, before)
        share = holding_back.best(losses)
        record |= {"losses": {f"{tried:g}": loss for tried, loss in losses.items()}}
        work.progress.report(Activity.HAND_OVER, stage=stage.name, message=holding_back.choice(losses))
    path = work.epoch.stage_folder(key) / RESOLVED
    known = json.loads(path.read_bytes())
    known |= {"handOver": record | {"scale": share}, "metrics": known["metrics"] | {outcome.SCALE: share}}
    work.epoch.files.replace_file(path, (json.dumps(known, indent=1) + "\n").encode())
    return holding_back.scaled(start, model, before, share)


def losses_of_shares(work: Work, index: int, model: StageModel, start: Start, before: Tensors) -> dict[float, float]:
    """The loss of the next stage's validation rows at each share that is tried. Raises Stopped once a signal was answered."""
    following = work.config.spec.stages[index + 1]
    rows = work.prepared.stages[following.name].validation
    assert rows is not None, "validation refuses it without"
    seed, probability = work.seed(index + 1), following.training.mlm_probability

    def tried(done: int) -> None:
        total = len(holding_back.SHARES)
        work.progress.report(Activity.HAND_OVER, stage=model.stage.name, done=done, total=total, unit="shares")

    try:
        with autocast(work.precision(following), work.device):
            return holding_back.shares_on_validation(
                start,
                model,
                before,
                following,
                rows,
                make_collator(following.objective, work.tokenizer, seed=seed, mlm_probability=probability),
                tokenizer=work.tokenizer,
                device=work.device,
                should_stop=lambda: work.stop.requested,
                on_share=tried,
            )
    except Aborted as error:
        raise Stopped("while the share to hand over was chosen; nothing is lost, it is chosen again") from error
