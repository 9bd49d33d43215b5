"""`make generate`: write everything that is made from the code."""

from __future__ import annotations

from pathlib import Path

from finetune_api import crd
from finetune_cli import reference

ROOT = Path(__file__).parents[1]


def main() -> None:
    crd.main([str(ROOT)])
    (ROOT / "docs/reference/cli.md").write_text(reference.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
