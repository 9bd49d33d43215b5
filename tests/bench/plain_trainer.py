"""A plain script on transformers' Trainer, with nothing of ours in it: what `tests.bench.agreement` compares with.

Reads a JSON file: model (a folder), task (causal or classification), train and evaluation (rows of input_ids and labels, in the order in which
they are consumed) and arguments (TrainingArguments). Prints the loss on the evaluation rows after training, as JSON.
"""

import json
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer, TrainingArguments


class InOrder(Trainer):
    """Takes the rows as they come."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def collator(task, pad):
    """Pads a batch to its longest row."""

    def collate(rows):
        width = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), width), pad)
        mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, -100)
        for line, row in enumerate(rows):
            tokens = torch.tensor(row["input_ids"])
            input_ids[line, : len(tokens)] = tokens
            mask[line, : len(tokens)] = 1
            if task == "causal":
                labels[line, : len(tokens)] = torch.tensor(row["labels"])
        if task == "classification":
            labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}

    return collate


def main(path):
    with open(path) as file:  # noqa: PTH123 - as anyone would write it
        spec = json.load(file)
    kind = AutoModelForCausalLM if spec["task"] == "causal" else AutoModelForSequenceClassification
    model = kind.from_pretrained(spec["model"], dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                **spec["arguments"],
            ),
            train_dataset=spec["train"],
            data_collator=collator(spec["task"], model.config.pad_token_id),
        )
        trainer.train()
    print(json.dumps({"loss": evaluation_loss(trainer.model.eval(), spec)}))


@torch.no_grad()
def evaluation_loss(model, spec):
    """Mean over all labels, row by row."""
    collate = collator(spec["task"], model.config.pad_token_id)
    total, count = 0.0, 0
    for row in spec["evaluation"]:
        batch = collate([row])
        labels = (batch["labels"][:, 1:] if spec["task"] == "causal" else batch["labels"]).ne(-100).sum().item()
        total += model(**batch).loss.item() * labels
        count += labels
    return total / count


if __name__ == "__main__":
    main(sys.argv[1])
