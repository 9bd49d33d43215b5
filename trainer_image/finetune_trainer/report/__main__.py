"""`python -m finetune_trainer.report RUN`: writes the report of a run folder and prints its path. A folder without a run exits 10."""

from __future__ import annotations

import sys
from pathlib import Path

from finetune_trainer.errors import TrainerError
from finetune_trainer.report.html import write_report
from finetune_trainer.run_folder import RunFolder


def main(arguments: list[str]) -> int:
    """Write the report and return an exit code."""
    if len(arguments) != 1:
        print("usage: python -m finetune_trainer.report RUN_FOLDER", file=sys.stderr)
        return 2
    try:
        print(write_report(RunFolder(Path(arguments[0]))))
    except TrainerError as error:
        print(f"{error}\n{error.hint}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
