"""Long modules are asking to be two: no module above 400 lines, the median of the product's at most 150, the recipe on two screens."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 400
MEDIAN = 150
RECIPE = Path("trainer_image/finetune_trainer/recipe.py")
RECIPE_LONGEST = 200
PRODUCT = ("operator/", "trainer_image/")


def problems(lengths: dict[str, int]) -> list[str]:
    """What is too long among path → lines."""
    found = [f"{path}: {lines} lines, at most {LONGEST}" for path, lines in sorted(lengths.items()) if lines > LONGEST]
    product = [lines for path, lines in lengths.items() if path.startswith(PRODUCT) and not path.endswith("__init__.py")]
    if product and statistics.median(product) > MEDIAN:
        found.append(f"the median module of {' and '.join(PRODUCT)} has {statistics.median(product):.0f} lines, at most {MEDIAN}")
    if lengths.get(str(RECIPE), 0) > RECIPE_LONGEST:
        found.append(f"{RECIPE}: {lengths[str(RECIPE)]} lines, at most {RECIPE_LONGEST}")
    return found


def measure() -> dict[str, int]:
    """Lines of each Python file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in listed if (ROOT / name).exists()}


def main() -> int:
    found = problems(measure())
    for problem in found:
        print(problem, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
