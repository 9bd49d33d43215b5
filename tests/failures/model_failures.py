"""Models that can't be loaded, or not for what the manifest asks of them."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

from finetune_api.constants import Reason
from tests.failures.base import Layer
from tests.failures.ground import Ground
from tests.failures.run_failure import RunFailure


def without(ground: Ground, name: str) -> None:
    (ground.own_model() / name).unlink()


def restored(ground: Ground, name: str) -> None:
    """The file as it was at its source."""
    (ground.folder / "model" / name).write_bytes((ground.shared.llama / name).read_bytes())


def _configured(ground: Ground, **fields: Any) -> None:
    path = ground.own_model() / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def _pickled(ground: Ground) -> None:
    import torch
    from safetensors.torch import load_file

    folder = ground.own_model()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _converted(ground: Ground) -> None:
    import torch
    from safetensors.torch import save_file

    folder = ground.folder / "model"
    save_file(torch.load(folder / "pytorch_model.bin", weights_only=True), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "pytorch_model.bin").unlink()


def _torn(ground: Ground) -> None:
    path = ground.own_model() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20_000])


def _more_tokens(ground: Ground) -> None:
    path = ground.own_model() / "tokenizer.json"
    document = json.loads(path.read_bytes())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document["added_tokens"] += [{"id": 1024 + number, "content": f"<|more-{number}|>", **plain} for number in range(8)]
    path.write_text(json.dumps(document))


def _no_tokenizer(ground: Ground) -> None:
    folder = ground.own_model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _bert(ground: Ground) -> None:
    ground.own_model(ground.shared.bert)


def _bloom(ground: Ground) -> None:
    """A model that tells words apart by their distance, and documents not at all."""
    folder = ground.own_model()
    hidden, inner, words = 64, 256, 1024
    config = {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "vocab_size": words,
        "hidden_size": hidden,
        "n_layer": 2,
        "n_head": 4,
    }
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}))
    shapes = {"word_embeddings.weight": (words, hidden), "word_embeddings_layernorm": (hidden,), "ln_f": (hidden,)}
    for layer in ("h.0", "h.1"):
        shapes |= {f"{layer}.input_layernorm": (hidden,), f"{layer}.post_attention_layernorm": (hidden,)}
        shapes |= {f"{layer}.self_attention.query_key_value": (3 * hidden, hidden), f"{layer}.self_attention.dense": (hidden, hidden)}
        shapes |= {f"{layer}.mlp.dense_h_to_4h": (inner, hidden), f"{layer}.mlp.dense_4h_to_h": (hidden, inner)}
    generator = np.random.default_rng(7)
    weights: dict[str, Any] = {}
    for name, shape in shapes.items():
        weight = generator.normal(0, 0.3, shape) if len(shape) == 2 else np.ones(shape)
        weights[f"transformer.{name.removesuffix('.weight')}.weight"] = weight.astype(np.float32)
        if not name.endswith(".weight"):
            weights[f"transformer.{name}.bias"] = np.zeros(shape[0], np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ground.edit({"spec.stages[0].training.packing": True})


def _another_model(ground: Ground) -> None:
    ground.edit({"spec.model.uri": f"file://{ground.shared.llama}"})


MODEL_FAILURES: Final = (
    RunFailure(
        name="model-not-there",
        layer=Layer.STORAGE,
        what="the model's folder is misspelt",
        reason=Reason.SOURCE_NOT_FOUND,
        place="spec.model.uri: there is no folder",
        hint="Check the URI",
        fix="the folder that is there",
        seed=lambda ground: ground.edit({"spec.model.uri": "file://modle"}),
        mend=_another_model,
    ),
    RunFailure(
        name="no-config",
        layer=Layer.MODEL,
        what="`config.json` is missing",
        reason=Reason.MODEL_UNSUPPORTED,
        place="has no config.json",
        hint="Point spec.model.uri at a folder or repository that transformers can load",
        fix="a folder that has it",
        seed=lambda ground: without(ground, "config.json"),
        mend=_another_model,
    ),
    RunFailure(
        name="no-weights",
        layer=Layer.MODEL,
        what="there are no weights",
        reason=Reason.MODEL_UNSUPPORTED,
        place="has no weights",
        hint="Point spec.model.uri at a folder",
        fix="a folder that has them",
        seed=lambda ground: without(ground, "model.safetensors"),
        mend=_another_model,
    ),
    RunFailure(
        name="no-tokenizer",
        layer=Layer.MODEL,
        what="there is no tokenizer",
        reason=Reason.MODEL_UNSUPPORTED,
        place="has no tokenizer",
        hint="Point spec.model.uri at a folder",
        fix="a folder that has one",
        seed=_no_tokenizer,
        mend=_another_model,
    ),
    RunFailure(
        name="weights-cut-off",
        layer=Layer.MODEL,
        what="a download that ended too soon",
        reason=Reason.MODEL_UNSUPPORTED,
        place="model.safetensors",
        hint="Copy or download the model's files again",
        fix="the file was copied again",
        seed=_torn,
        mend=lambda ground: restored(ground, "model.safetensors"),
    ),
    RunFailure(
        name="unknown-architecture",
        layer=Layer.MODEL,
        what="an architecture that transformers does not have",
        reason=Reason.MODEL_UNSUPPORTED,
        place="spec.model.uri",
        hint="Point spec.model.uri at a folder",
        fix="another model",
        seed=lambda ground: _configured(ground, model_type="llamma"),
        mend=_another_model,
    ),
    RunFailure(
        name="masked-model-for-a-causal-stage",
        layer=Layer.MODEL,
        what="a BERT for causal language modelling",
        reason=Reason.MODEL_UNSUPPORTED,
        place="spec.model.uri",
        hint="or point spec.model.uri at a causal language model",
        fix="a causal model",
        seed=_bert,
        mend=_another_model,
    ),
    RunFailure(
        name="pickled-weights",
        layer=Layer.MODEL,
        what="weights as a pickle",
        reason=Reason.MODEL_UNSAFE,
        place="pytorch_model.bin",
        hint="convert the weights",
        fix="converted to safetensors",
        seed=_pickled,
        mend=_converted,
    ),
    RunFailure(
        name="remote-code",
        layer=Layer.MODEL,
        what="a configuration that asks for code of its own",
        reason=Reason.MODEL_UNSAFE,
        place="auto_map: AutoModel",
        hint="use another repository",
        fix="another model",
        seed=lambda ground: _configured(ground, auto_map={"AutoModel": "modeling.Model"}),
        mend=_another_model,
    ),
    RunFailure(
        name="tokens-without-embedding",
        layer=Layer.MODEL,
        what="a tokenizer of another model",
        reason=Reason.MODEL_UNSUPPORTED,
        place="without an embedding",
        hint="Use the tokenizer that belongs to this model",
        fix="the model's own tokenizer",
        seed=_more_tokens,
        mend=lambda ground: restored(ground, "tokenizer.json"),
    ),
    RunFailure(
        name="no-such-module",
        layer=Layer.MODEL,
        what="LoRA on a module that the model does not have",
        reason=Reason.INVALID_SPEC,
        place="spec.stages[0].method.lora.targetModules",
        hint="Correct the field that the message names",
        fix="a module that the message lists",
        seed=lambda ground: ground.edit({"spec.stages[0].method.lora.targetModules": ["query_proj"]}),
        mend=lambda ground: ground.edit({"spec.stages[0].method.lora.targetModules": ["q_proj"]}),
    ),
    RunFailure(
        name="longer-than-the-model",
        layer=Layer.MODEL,
        what="`maxLength` beyond the model's positions",
        reason=Reason.INVALID_SPEC,
        place="spec.stages[0].training.maxLength",
        hint="Correct the field that the message names",
        fix="the number that the message names",
        seed=lambda ground: ground.edit({"spec.stages[0].training.maxLength": 4096}),
        mend=lambda ground: ground.edit({"spec.stages[0].training.maxLength": 512}),
    ),
    RunFailure(
        name="packing-that-mixes",
        layer=Layer.MODEL,
        what="packing where a document would see the one before it",
        reason=Reason.PACKING_UNSAFE,
        place="stage domain, training.packing",
        hint="set training.packing to false for this stage",
        fix="`packing: false`",
        seed=_bloom,
        mend=lambda ground: ground.edit({"spec.stages[0].training.packing": False}),
    ),
)
