"""Prompt tuning by PEFT. Its first embeddings are set here, since PEFT would load the tokenizer by name once more."""

from __future__ import annotations

from typing import Any

import torch
from peft import PromptTuningConfig

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.prompts import PromptInitialization, PromptTuning
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.prompts import TASKS, prompt_method, repeated, set_prompt


def configure(setting: Setting) -> PromptTuningConfig:
    options = setting.stage.method.prompt_tuning or PromptTuning()
    text = options.text
    if text is not None and setting.tokenizer is not None and not setting.tokenizer(text, add_special_tokens=False)["input_ids"]:
        raise TrainerError(Reason.INVALID_SPEC, "the tokenizer makes no token of this text", where=setting.field("text"))
    return PromptTuningConfig(task_type=TASKS[setting.plain.head], num_virtual_tokens=options.num_virtual_tokens)


def begin(setting: Setting, module: Any) -> None:
    """From the text's tokens, or from tokens drawn from the vocabulary; PEFT's own are random."""
    options = setting.stage.method.prompt_tuning or PromptTuning()
    embeddings = setting.plain.model.get_input_embeddings().weight.detach()
    if options.initialization is PromptInitialization.TEXT:
        numbers = setting.tokenizer(options.text, add_special_tokens=False)["input_ids"]
    elif options.initialization is PromptInitialization.VOCABULARY:
        numbers = torch.randint(0, embeddings.shape[0], (options.num_virtual_tokens,)).tolist()
    else:
        return
    set_prompt(module, embeddings[repeated(numbers, options.num_virtual_tokens)].float())


METHOD = prompt_method(configure, begin)
