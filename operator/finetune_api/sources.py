"""What a job names outside of itself: every URI that it reads or writes, and every Secret, each with its field's path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.training import CLASSIFIER


class Use(NamedTuple):
    """A field that may name a place, and the Secret with which it is reached."""

    path: str
    uri: str | None
    credentials: str | None = None


def uses(spec: FineTuneJobSpec) -> Iterator[Use]:
    """Yield what a job reads, and last where it writes."""
    yield Use("spec.model", spec.model.uri, spec.model.credentials)
    for index, stage in enumerate(spec.stages):
        at, validation, classifier = f"spec.stages[{index}]", stage.data.validation, stage.training.classifier
        for number, source in enumerate(stage.data.train):
            yield Use(f"{at}.data.train[{number}]", source.uri, source.credentials)
        if validation is not None:
            yield Use(f"{at}.data.validation", validation.uri, validation.credentials)
        if classifier is not None:
            yield Use(f"{at}.{CLASSIFIER}", classifier.uri, classifier.credentials)
    for index, suite in enumerate(spec.evaluation.suites):
        yield Use(f"spec.evaluation.suites[{index}].data", suite.data.uri, suite.data.credentials)
    yield Use("spec.output", spec.output.uri)


def uris(spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    """Yield every URI of a job with its field's path."""
    return ((f"{use.path}.uri", use.uri) for use in uses(spec) if use.uri is not None)


def credentials(spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    """Yield the name in every field `credentials` of a job, with the field's path."""
    return ((f"{use.path}.credentials", use.credentials) for use in uses(spec) if use.credentials is not None)


def claim_in(uri: str) -> str | None:
    """Return NAME of `pvc://NAME/…`, None for another kind of URI."""
    found = re.match(r"pvc://([^/]+)", uri)
    return found[1] if found else None
