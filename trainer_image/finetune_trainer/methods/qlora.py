"""LoRA on a base in few bits: bitsandbytes' nf4 and int8, torchao's int8.

The adapter is put on the base as it is in its files, as LoRA's is, and the layers under it are quantised then: so initialisations that
decompose a weight see it whole, and nothing else in the trainer has to know of PEFT's quantised layers.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from peft import LoraConfig
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.lora import Lora
from finetune_api.v1alpha1.methods.qlora import Qlora, QloraInitialization
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.backends import check_installed
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods import lora
from finetune_trainer.methods.base import Course, Length, Method, Setting
from finetune_trainer.methods.peft_models import TRAINED, train_beside
from finetune_trainer.methods.stacks import leaves_a_residual, lora_layers, with_frozen
from finetune_trainer.methods.targets import layer_of, linear_modules, turned
from finetune_trainer.modeling.base import load_plain, seeded
from finetune_trainer.modeling.few_bits import packed
from finetune_trainer.modeling.plain import inner_model
from finetune_trainer.modeling.quantised import quantise

BITS: Final = 4


def configure(setting: Setting) -> LoraConfig:
    """The adapter's configuration. Raises TrainerError(InvalidSpec) where the options name what is not there, or fit no matrix."""
    options = setting.stage.method.qlora or Qlora()
    loftq = options.initialization is QloraInitialization.LOFTQ
    config = lora.configure(setting, as_lora(options))
    if options.dora and turned(setting.plain.model, sorted(config.target_modules or ())):
        raise TrainerError(
            Reason.INVALID_SPEC,
            "DoRA would read this architecture's weights turned round once they are quantised: leave dora out",
            where=setting.field("dora"),
        )
    if loftq:
        config.init_lora_weights = "loftq"
        config.loftq_config = cast(Any, {"loftq_bits": BITS, "loftq_iter": options.loftq_iterations or 1})
    return config


def as_lora(options: Qlora) -> Lora:
    """The same adapter as lora's. LoftQ's start comes to it later: lora has none."""
    same = options.model_dump(include=Lora.model_fields.keys() & Qlora.model_fields.keys(), by_alias=True)
    loftq = options.initialization is QloraInitialization.LOFTQ
    return Lora.model_validate({**same, "initialization": "default" if loftq else options.initialization.value})


def apply(setting: Setting) -> nn.Module:
    """Put an adapter on the model, over the frozen ones of the start, and quantise the linear layers of its blocks.

    What stands outside the blocks is small, and a pooler that one stage makes would be the base's in the next.
    """
    options = setting.stage.method.qlora or Qlora()
    config = configure(setting)
    plain = setting.plain
    names = [name for name in linear_modules(plain, avoid=list(config.modules_to_save or ())) if layer_of(name) is not None]
    labels = list(plain.model.config.id2label.values())

    def files() -> dict[str, torch.Tensor]:
        again = load_plain(
            setting.start,
            plain.head,
            labels=labels,
            tokenizer=setting.tokenizer,
            added=setting.added,
            seed=setting.seed,
            where=setting.where,
        )
        return {f"{name}.weight": again.model.get_submodule(name).weight.detach() for name in names}

    with seeded(setting.seed):
        module = with_frozen(plain.model, setting.start.adapters, config)
    if options.initialization is QloraInitialization.LOFTQ:
        _rescale(module)
    found = quantise(inner_model(module), names, options.quantization, double=options.doubled, files=files)
    if leaves_a_residual(setting.stage):
        found.scales = {name: float(layer.scaling[TRAINED]) for name, layer in lora_layers(module).items()}
    train_beside(setting, config.modules_to_save or ())
    return module


def _rescale(module: nn.Module) -> None:
    """LoftQ makes B · A the error of quantisation, and PEFT then multiplies it by the adapter's scale: take that out of B."""
    with torch.no_grad():
        for layer in lora_layers(module).values():
            layer.lora_B[TRAINED].weight /= layer.scaling[TRAINED]


class Watch(Course):
    """Ends the training where a library has silently cut it off from its gradients.

    bitsandbytes packs nf4 weights for inference on some CPUs the first time that a model is evaluated. Ours are told not to; should another
    version do it all the same, then all losses would look well and little would be learned.
    """

    def __init__(self, module: nn.Module, stage: Stage, length: Length) -> None:
        self._stage = stage
        self._module = module
        self._layers = list(module.modules())
        self._parameters = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self._had: set[str] | None = None

    def before_update(self, step: int) -> None:
        has = {name for name, parameter in self._parameters if parameter.grad is not None}
        lost = sorted((self._had or has) - has)
        self._had = self._had or has
        cut = sum(packed(layer) for layer in self._layers)
        if lost or cut:
            what = (
                f"{len(lost)} trained tensors have no gradient any more ({lost[0]}, …)"
                if lost
                else f"no gradient comes through {cut} layers"
            )
            raise TrainerError(
                Reason.INTERNAL_ERROR,
                f"after an evaluation {what}: the quantised base was changed by the library that keeps it",
                stage=self._stage.name,
                step=step,
            )


def check_machine(where: str, stage: Stage, device: torch.device | None) -> None:
    """Raise TrainerError(InvalidSpec) where this image lacks the package, or the machine that shall train has no GPU for LoftQ."""
    check_installed(stage, where)
    options = stage.method.qlora or Qlora()
    if options.initialization is QloraInitialization.LOFTQ and device is not None and device.type == "cpu":
        raise TrainerError(
            Reason.INVALID_SPEC,
            "PEFT computes LoftQ on a GPU alone, and torch sees none here: write initialization: pissa or default, or ask for a GPU",
            where=f"{where}.method.qlora.initialization",
        )


METHOD = Method(apply, check=configure, course=Watch, machine=check_machine)
