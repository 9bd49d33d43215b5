"""The job of `tests.bench.start` as a script on TRL: `trl_script.py MODEL ROWS`. Says `first step` when the first optimizer step is done."""

import sys
import tempfile

from datasets import load_dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class FirstStep(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        print("first step", flush=True)


def main(model, rows):
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset("json", data_files=rows, split="train", cache_dir=folder)
        config = SFTConfig(
            output_dir=folder, max_steps=1, per_device_train_batch_size=8, max_length=128, learning_rate=1e-4, use_cpu=True, bf16=False,
            report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        SFTTrainer(model, args=config, train_dataset=dataset, callbacks=[FirstStep()]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
