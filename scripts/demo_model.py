"""The demo's language model: SmolLM2-135M-Instruct, from the GGUF file that a package carries, as a folder of safetensors.

transformers reads GGUF, but refuses to save what it read ("quantized with gguf and is not serializable"): the weights go into a fresh
model whose configuration says nothing of quantisation. They are the Q4_1 weights, a little worse than the originals on the hub.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(gguf: Path, folder: Path) -> None:
    """Write fp32 safetensors, configuration and tokenizer to `folder`, 0.5 GB; takes half a minute.

    The imports stand here because torch takes seconds, and whoever finds the folder made needs none of it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = quantised.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        settings.pop(name, None)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.float32)
    model.load_state_dict(quantised.state_dict(), strict=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
