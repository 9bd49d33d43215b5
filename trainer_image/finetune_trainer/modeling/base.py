"""The plain model that a stage puts its method on: the base's weights, what earlier stages changed, the head that the objective needs."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from finetune_api.constants import Reason
from finetune_trainer.data.models import check_folder
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.tokenizer import gguf_arguments

CLASSES: Final[Mapping[Head, Any]] = {
    Head.CAUSAL: AutoModelForCausalLM,
    Head.MASKED: AutoModelForMaskedLM,
    Head.CLASSIFICATION: AutoModelForSequenceClassification,
}
DROPOUTS: Final = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_dropout", "attention_dropout", "activation_dropout", "dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "resid_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
)
"""What architectures call the dropout of hidden states and attention in their configurations."""
SOURCE: Final = "spec.model.uri"


@dataclass(frozen=True)
class Plain:
    """A model without any method on it."""

    model: Any
    """A PreTrainedModel, fp32 or the frozen type, on the CPU."""
    head: Head
    new: frozenset[str]
    """Weights that neither the base nor an earlier stage has: made from the seed, so they must be trained."""

    @property
    def head_names(self) -> list[str]:
        """The head's own weights: those outside the backbone. A projection that is tied to the embeddings belongs to the backbone."""
        prefix = f"{self.model.base_model_prefix}."
        return [name for name, _ in self.model.named_parameters() if not name.startswith(prefix)]


def load_plain(
    start: Start,
    head: Head,
    *,
    labels: Sequence[str] | None = None,
    tokenizer: Any = None,
    added: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
    dropout: float | None = None,
    seed: int = 0,
    where: str = "spec.model",
) -> Plain:
    """Build the plain model of a stage.

    labels: the classes in their order, for a classification head. added: ids of added tokens; the embeddings grow to hold them.
    seed: of every weight that has to be made (a new head, new rows). The caller's random state is left as it was.
    Raises TrainerError (ModelUnsupported, ModelUnsafe, InvalidSpec).
    """
    check_folder(start.model)
    config = load_config(start.model)
    own_labels = [config.id2label[index] for index in sorted(config.id2label)] if config.id2label else []
    configured(config, head, labels=labels, tokenizer=tokenizer, dropout=dropout, where=where)
    with seeded(seed):
        model, missing = _from_pretrained(start.model, head, config, dtype)
        plain = Plain(model, head, frozenset())
        names = set(plain.head_names)
        if head is Head.CLASSIFICATION and list(labels or ()) != own_labels:
            missing |= _renew(model, names)
        _check_backbone(missing - names, start.model)
        if added:
            _grow(model, added)
    restored = restore(model, {**start.weights, **_usable_head(start, head, labels)})
    return Plain(model, head, frozenset(missing - restored))


def load_config(model: Path, *, where: str = SOURCE) -> Any:
    """The model's configuration, without remote code. Raises TrainerError(ModelUnsupported)."""
    place, arguments = gguf_arguments(model)
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False, **arguments)
    except (ValueError, OSError, KeyError) as error:
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED, f"transformers can't read the configuration in {place}: {first_line(error)}", where=where
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from this seed inside, and leave the CPU's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    text = str(error).strip()
    return text.splitlines()[0] if text else repr(error)


def configured(
    config: Any, head: Head, *, labels: Sequence[str] | None, tokenizer: Any = None, dropout: float | None = None, where: str
) -> Any:
    """Set in a model's configuration what a stage decides, and return it. Raises TrainerError(InvalidSpec)."""
    config.use_cache = False
    if head is Head.CLASSIFICATION:
        if tokenizer is not None and type(config) not in CLASSES[Head.MASKED]._model_mapping:
            # A decoder classifies by the last token that is no padding. Elsewhere the model's own stays: RoBERTa counts positions from it.
            config.pad_token_id = tokenizer.pad_token_id
        if not labels:
            raise TrainerError(Reason.INVALID_SPEC, "a classification head needs at least two labels", where=where)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    if dropout is not None:
        names = [name for name in DROPOUTS if hasattr(config, name)]
        if not names:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{config.model_type} models have no dropout of their own; leave it out, or use method.lora.dropout",
                where=f"{where}.training.dropout",
            )
        for name in names:
            setattr(config, name, dropout)
    return config


def _from_pretrained(model: Path, head: Head, config: PretrainedConfig, dtype: torch.dtype) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of weights that its files don't have."""
    place, arguments = gguf_arguments(model)
    try:
        loaded, info = CLASSES[head].from_pretrained(
            place,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=head is Head.CLASSIFICATION,
            output_loading_info=True,
            **arguments,
        )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of its progress bar: the log's disk is full, and the model is not at fault
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"transformers can't load {place} ({config.model_type}) with a {head} head: {first_line(error)}",
            where=SOURCE,
        ) from error
    if head is Head.CAUSAL and type(config) in CLASSES[Head.MASKED]._model_mapping and not getattr(loaded.config, "is_decoder", False):
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"{place} ({config.model_type}) is a masked language model: read as a causal one, each token would see those that it shall predict",
            where=SOURCE,
            hint="Write objective: maskedLanguageModeling, or point spec.model.uri at a causal language model.",
        )
    if arguments:
        loaded = _without_quantization(loaded)
    missing = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    return loaded, missing & {name for name, _ in loaded.named_parameters()}


def _without_quantization(model: Any) -> PreTrainedModel:
    """A GGUF model is dequantised when it is read, but refuses to be saved while its configuration says what it came from."""
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    fresh: PreTrainedModel = type(model)(type(model.config).from_dict(config)).to(model.dtype)
    fresh.load_state_dict(model.state_dict())
    fresh.tie_weights()
    fresh.generation_config = model.generation_config
    return fresh


def _renew(model: Any, head: set[str]) -> set[str]:
    """Make a head anew: the checkpoint's was for other classes, even where their number is the same."""
    for name, module in model.named_modules():
        own = {f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)}
        if own & head:
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False
            module._is_hf_initialized = False
            model._init_weights(module)
    return set(head)


def _check_backbone(missing: set[str], model: Path) -> None:
    """A pooler may be missing (a language model has none); any other gap means that the files are not this architecture's."""
    lost = sorted(name for name in missing if "pooler" not in name.split("."))
    if lost:
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"the weights in {model} lack {len(lost)} tensors that its architecture needs ({', '.join(lost[:3])}, …): "
            "the files are incomplete, or belong to another architecture than config.json says",
            where=SOURCE,
        )


def _grow(model: Any, added: Sequence[int]) -> None:
    """Make room for added tokens; a new row starts at the mean of the others, with their spread."""
    rows = model.get_input_embeddings().weight.shape[0]
    if max(added) >= rows:
        model.resize_token_embeddings(max(added) + 1)


def _usable_head(start: Start, head: Head, labels: Sequence[str] | None) -> dict[str, torch.Tensor]:
    """The head that an earlier stage ended with, where it is the same: the same kind and the same classes."""
    if head is Head.CLASSIFICATION and list(labels or ()) != list(start.labels or ()):
        return {}
    return dict(start.heads.get(head, {}))


def restore(model: Any, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Put changed weights in the place of the base's. Weights of another head are passed over. Returns the names that were found."""
    own = dict(model.named_parameters())
    found = own.keys() & weights.keys()
    with torch.no_grad():
        for name in found:
            own[name].copy_(weights[name])
    return set(found)
