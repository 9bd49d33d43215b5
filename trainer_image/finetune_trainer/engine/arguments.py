"""A stage's training options in the words of transformers' TrainingArguments, and the record of what they became."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import LrSchedulerType, Optimizer, Training
from finetune_trainer.engine.precision import Precision
from finetune_trainer.engine.schedule import warmup_steps

OPTIMIZERS = {Optimizer.ADAMW: "adamw_torch_fused", Optimizer.ADAFACTOR: "adafactor", Optimizer.SGD: "sgd"}
SCHEDULES = {
    LrSchedulerType.LINEAR: "linear",
    LrSchedulerType.COSINE: "cosine",
    LrSchedulerType.CONSTANT: "constant_with_warmup",
}


def training_arguments(
    stage: Stage, *, seed: int, total_steps: int, precision: Precision, device: torch.device, folder: Path
) -> TrainingArguments:
    """Return the arguments. Saving, logging and evaluation are not Trainer's here, so their options stay off."""
    training = stage.training
    assert training.learning_rate is not None, "the plan resolves the learning rate"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total_steps,
        per_device_train_batch_size=training.batch_rows,
        per_device_eval_batch_size=training.eval_rows,
        gradient_accumulation_steps=training.accumulation,
        optim=OPTIMIZERS[training.optimizer],
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.lr_scheduler_type],
        warmup_steps=warmup_steps(training, total_steps),
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        label_smoothing_factor=training.label_smoothing_factor or 0.0,
        bf16=precision.autocast is torch.bfloat16,
        fp16=precision.autocast is torch.float16,
        activation_checkpointing=training.gradient_checkpointing,
        seed=seed,
        use_cpu=device.type == "cpu",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else Trainer wraps the model in DataParallel, under whose replicas no guard's hook holds
    return arguments


def record(arguments: TrainingArguments, precision: Precision, training: Training) -> dict[str, Any]:
    """What the options became, for resolved.json: every default filled in."""
    return {
        **training.model_dump(mode="json", exclude_none=True),
        "optimizer": "adamw in bf16, rounded stochastically" if precision.trainable is torch.bfloat16 else arguments.optim.value,
        "learningRate": arguments.learning_rate,
        "lrSchedulerType": arguments.lr_scheduler_type.value,
        "warmupSteps": int(arguments.warmup_steps),
        "maxSteps": arguments.max_steps,
        "seed": arguments.seed,
        "mixedPrecision": precision.record(),
    }
