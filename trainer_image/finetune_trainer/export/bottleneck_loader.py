"""Puts a published bottleneck adapter on its base: `load(model, folder)`. Needs torch and safetensors, and nothing of this project."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def load(model, folder):  # type: ignore[no-untyped-def]
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    weights, work = load_file(Path(folder) / "adapter_model.safetensors"), torch.nn.functional
    activation = torch.tanh if config["activation"] == "tanh" else getattr(work, config["activation"])
    for name in config["target_modules"]:
        down, up = ([weights.pop(f"{name}.{part}.{leaf}") for leaf in ("weight", "bias")] for part in ("down", "up"))

        def added(module, inputs, output, down=down, up=up):  # type: ignore[no-untyped-def]
            hidden = inputs[0] if config["place"] == "parallel" else output
            return output + config["scale"] * work.linear(activation(work.linear(hidden, *down)), *up)

        model.get_submodule(name).register_forward_hook(added)
    model.load_state_dict(weights, strict=False)
    return model
