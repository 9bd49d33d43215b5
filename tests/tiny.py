"""The tiny models of the tests: real architectures, 2 layers × 64, made in a moment by `python -m tests.tiny DIR`, the same bytes everywhere.

Weights come from a seeded numpy generator and go straight to safetensors, so that nothing here imports torch. The tokenizers are
committed artefacts (training them again gives other token numbers). Each maker asserts the digest of what it wrote.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TOKENIZERS = Path(__file__).parent / "assets/tiny-tokenizer"
Weights = np.ndarray[Any, np.dtype[np.float32]]
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 1024, 64, 128, 2, 4, 2

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template of tiny-llama: no generation markers, as in most models; what is supervised follows from the difference of prefixes."""

CHATML_WITH_GENERATION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The same text with markers around what the assistant says, for `model.chatTemplate`."""

DIGESTS = {
    "tiny-llama": "cd71b547b94bed9a51810159da438e9f1cc990551537044ddf88acc53367deff",
    "tiny-llama-untied": "48a5135251d728c4807b42f295e5ae71c14cdb9941102ea06ed93f5b82cdc34b",
    "tiny-bert": "d2052b7375378724a918c3408e421172eaa2acece711a4c0e957507dd8ac5fed",
}


def make_tiny_llama(folder: Path, *, tied: bool = True) -> Path:
    """Write a LlamaForCausalLM of 0.14 M parameters (fp32) with a ChatML template, end token <|im_end|> and its own pad token."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "dtype": "float32",
    }
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHATML,
    }
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    name = "tiny-llama" if tied else "tiny-llama-untied"
    documents = {"config.json": config, "tokenizer_config.json": tokenizer, "generation_config.json": generation}
    return _write(folder, name, documents, TOKENIZERS / "llama", _llama_shapes(tied))


def make_tiny_bert(folder: Path) -> Path:
    """Write a BertForMaskedLM of 0.15 M parameters (fp32), dropout 0.1, with a lower-case WordPiece tokenizer; [MASK] is 4."""
    config: dict[str, Any] = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "model_max_length": 128,
        "clean_up_tokenization_spaces": False,
    }
    return _write(folder, "tiny-bert", {"config.json": config, "tokenizer_config.json": tokenizer}, TOKENIZERS / "bert", _bert_shapes())


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        total.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _llama_shapes(tied: bool) -> Iterable[tuple[str, tuple[int, ...]]]:
    head = HIDDEN // HEADS
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        yield f"{layer}.input_layernorm.weight", (HIDDEN,)
        yield f"{layer}.post_attention_layernorm.weight", (HIDDEN,)
        yield f"{layer}.self_attn.q_proj.weight", (HEADS * head, HIDDEN)
        yield f"{layer}.self_attn.k_proj.weight", (KV_HEADS * head, HIDDEN)
        yield f"{layer}.self_attn.v_proj.weight", (KV_HEADS * head, HIDDEN)
        yield f"{layer}.self_attn.o_proj.weight", (HIDDEN, HEADS * head)
        yield f"{layer}.mlp.gate_proj.weight", (INNER, HIDDEN)
        yield f"{layer}.mlp.up_proj.weight", (INNER, HIDDEN)
        yield f"{layer}.mlp.down_proj.weight", (HIDDEN, INNER)
    yield "model.norm.weight", (HIDDEN,)
    if not tied:
        yield "lm_head.weight", (VOCABULARY, HIDDEN)


def _bert_shapes() -> Iterable[tuple[str, tuple[int, ...]]]:
    def linear(name: str, outputs: int, inputs: int) -> Iterable[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (outputs, inputs)
        yield f"{name}.bias", (outputs,)

    def norm(name: str) -> Iterable[tuple[str, tuple[int, ...]]]:
        yield f"{name}.LayerNorm.weight", (HIDDEN,)
        yield f"{name}.LayerNorm.bias", (HIDDEN,)

    yield "bert.embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)
    yield "bert.embeddings.position_embeddings.weight", (128, HIDDEN)
    yield "bert.embeddings.token_type_embeddings.weight", (2, HIDDEN)
    yield from norm("bert.embeddings")
    for index in range(LAYERS):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        yield from linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        yield from norm(f"{layer}.attention.output")
        yield from linear(f"{layer}.intermediate.dense", INNER, HIDDEN)
        yield from linear(f"{layer}.output.dense", HIDDEN, INNER)
        yield from norm(f"{layer}.output")
    yield from linear("cls.predictions.transform.dense", HIDDEN, HIDDEN)
    yield from norm("cls.predictions.transform")
    yield "cls.predictions.bias", (VOCABULARY,)


def _write(
    folder: Path, name: str, documents: dict[str, dict[str, Any]], tokenizer: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, document in documents.items():
        (folder / file).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
    save_file(_weights(dict(sorted(shapes))), str(folder / "model.safetensors"), metadata={"format": "pt"})
    found = digest(folder)
    if found != DIGESTS[name]:
        raise RuntimeError(f"{folder}: {name} has the digest {found}, expected {DIGESTS[name]}: another numpy, or the recipe was changed")
    return folder


def _weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Weights]:
    """Matrices of variance 1 / inputs (logits of about unit size), norms of one, biases near zero. Uniform: no libm, so exact anywhere."""
    generator = np.random.default_rng(7)

    def tensor(name: str, shape: tuple[int, ...]) -> Weights:
        noise: Weights = 2 * generator.random(shape, np.float32) - 1
        if len(shape) == 1:
            return np.float32(1.0 if name.endswith(("norm.weight", "LayerNorm.weight")) else 0.0) + np.float32(0.02) * noise
        scaled: Weights = noise * np.sqrt(np.float32(3) / np.float32(shape[-1]))
        return scaled

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def main(folder: Path) -> None:
    print(make_tiny_llama(folder / "tiny-llama"), DIGESTS["tiny-llama"])
    print(make_tiny_llama(folder / "tiny-llama-untied", tied=False), DIGESTS["tiny-llama-untied"])
    print(make_tiny_bert(folder / "tiny-bert"), DIGESTS["tiny-bert"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
