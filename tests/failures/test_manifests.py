"""Each mistake of a manifest is named by `finetune validate`, and the edit that its hint asks for mends it."""

from __future__ import annotations

import pytest

from tests.failures.base import shortfalls
from tests.failures.manifest_failures import MANIFEST_FAILURES, ManifestFailure
from tests.failures.trials import try_manifest


@pytest.mark.parametrize("failure", MANIFEST_FAILURES, ids=lambda failure: failure.name)
def test_it_is_told_and_mended(failure: ManifestFailure) -> None:
    assert shortfalls(failure, try_manifest(failure)) == []
