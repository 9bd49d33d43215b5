"""Every failure of the set."""

from __future__ import annotations

from typing import Final

from tests.failures.base import Failure
from tests.failures.cluster_failures import CLUSTER_FAILURES
from tests.failures.data_failures import DATA_FAILURES
from tests.failures.manifest_failures import MANIFEST_FAILURES
from tests.failures.model_failures import MODEL_FAILURES
from tests.failures.pod_failure import PodFailure
from tests.failures.pod_failures_of_clusters import CLUSTER_POD_FAILURES
from tests.failures.pod_failures_of_files import FILE_FAILURES
from tests.failures.run_failure import RunFailure
from tests.failures.storage_failures import STORAGE_FAILURES
from tests.failures.trainer_failures import TRAINER_FAILURES

RUN_FAILURES: Final[tuple[RunFailure, ...]] = (*DATA_FAILURES, *MODEL_FAILURES, *STORAGE_FAILURES, *TRAINER_FAILURES)
POD_FAILURES: Final[tuple[PodFailure, ...]] = (*FILE_FAILURES, *CLUSTER_POD_FAILURES)
CATALOGUE: Final[tuple[Failure, ...]] = (*MANIFEST_FAILURES, *RUN_FAILURES, *CLUSTER_FAILURES, *POD_FAILURES)
LEAST: Final = 60
SHARE: Final = 0.95
"""Of the failures that must end well: with the right reason, the place, a hint, and a pass when it was followed."""
