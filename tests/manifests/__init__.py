"""The table of valid and broken manifests that pydantic and the API server's validator both judge (tests/unit/api/test_verdicts.py)."""

from typing import Final

from tests.manifests.arms import ARM_SHAPES, ARMS, ARMS_VALID
from tests.manifests.cases import Broken, Change
from tests.manifests.evaluations import CHANGES, EVALUATIONS
from tests.manifests.guards import GUARD_SHAPES, GUARDED, GUARDS
from tests.manifests.methods import METHODS
from tests.manifests.runtimes import BROKEN_RUNTIMES, VALID_RUNTIMES
from tests.manifests.shapes import SHAPES as _SHAPES
from tests.manifests.shares import SHARES
from tests.manifests.stages import HAND_OVERS, SOURCES, STAGES
from tests.manifests.valid import VALID as _VALID

VALID: Final = _VALID | GUARDED | ARMS_VALID
SHAPES: Final = (*_SHAPES, *GUARD_SHAPES, *ARM_SHAPES)
BROKEN: Final = (*SHAPES, *SOURCES, *STAGES, *METHODS, *HAND_OVERS, *SHARES, *GUARDS, *EVALUATIONS, *ARMS)

__all__ = ["BROKEN", "BROKEN_RUNTIMES", "CHANGES", "SHAPES", "VALID", "VALID_RUNTIMES", "Broken", "Change"]
