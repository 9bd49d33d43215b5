"""`make demo-local`: say what is about to happen, put the model and the text in place, and become `finetune run`.

The command shows the progress, the table, the samples and the report's path, and ends with 22 where the tuned model misses its gates.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scripts.demo_assets import ROOT, demo_folder

MANIFEST = "examples/domain-then-task.yaml"
INTRODUCTION = """\
A real language model (SmolLM2-135M-Instruct) learns a domain and then a task, on this machine:
  1. prepare    audit and tokenise the data                                        a few seconds
  2. measure    the base model: 300 unseen words, and the Python reference         about 2 minutes
  3. domain     read 1,000 definitions of animals and plants (LoRA, merged)        about 2 minutes
  4. task       answer “Define: WORD” from 150 pairs (LoRA, completions only)      about 2 minutes
     measured again after each stage; then the model, its card and a report are written.
About 10 minutes on two cores. Ctrl-C saves, and `make demo-local` goes on from there.
"""


def main() -> None:
    print(INTRODUCTION, flush=True)
    folder = demo_folder()
    os.chdir(ROOT)
    finetune = str(Path(sys.executable).parent / "finetune")
    # exec: a Ctrl-C reaches the command itself, and its exit code is make's.
    os.execv(finetune, [finetune, "run", MANIFEST, "--mount", f"demo={_short(folder)}"])


def _short(folder: Path) -> str:
    """The checkout's own link to the folder: what the README's commands say."""
    link = ROOT / ".cache/demo"
    return str(link.relative_to(ROOT)) if link.resolve() == folder.resolve() else str(folder)


if __name__ == "__main__":
    main()
