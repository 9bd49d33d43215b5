"""Loads what a run published with transformers and peft alone. Run as a script by a process that knows nothing of this project."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any


def load(artifacts: Path) -> None:
    """Load every model of the folder by `from_pretrained` alone, and let it answer; raises where that fails or an answer is not finite."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    def model_class(folder: Path) -> Any:
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        return AutoModelForSequenceClassification if name.endswith("SequenceClassification") else AutoModelForCausalLM

    def answer(folder: Path, model: torch.nn.Module) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            logits = model.eval()(**tokenizer("a small beetle", return_tensors="pt", return_token_type_ids=False)).logits
        if not bool(torch.isfinite(logits).all()):
            raise SystemExit(f"{folder}: the logits are not finite")
        print(f"{folder.name}: {type(model).__name__} {tuple(logits.shape)}")

    loaded = 0
    merged, adapter = artifacts / "merged", artifacts / "adapter"
    if merged.exists():
        answer(merged, model_class(merged).from_pretrained(merged))
        loaded += 1
    if adapter.exists():
        base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
        base = base if base.is_absolute() else adapter / base
        labels = artifacts / "merged/config.json"
        options = (
            {"num_labels": len(json.loads(labels.read_text())["id2label"])} if labels.exists() and "id2label" in labels.read_text() else {}
        )
        plain, own = model_class(base).from_pretrained(base, **options), adapter / "load_adapter.py"
        answer(adapter, runpy.run_path(str(own))["load"](plain, adapter) if own.exists() else PeftModel.from_pretrained(plain, adapter))
        loaded += 1
    if not loaded:
        raise SystemExit(f"{artifacts}: neither merged/ nor adapter/")


if __name__ == "__main__":
    load(Path(sys.argv[1]))
