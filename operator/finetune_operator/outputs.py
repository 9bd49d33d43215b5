"""Where FineTuneJobs write, so that no two write into one folder: read out of each as its watch delivers it, and small enough for all."""

from __future__ import annotations

import sys
from typing import Any

from finetune_api.constants import ConditionType
from finetune_api.sources import claim_in
from finetune_operator.model import Manifest, Output
from finetune_operator.views import holds


def output_of(job: Manifest) -> Output | None:
    """Return where a FineTuneJob writes, None where it leaves that to the operator."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    uri = (spec.get("output") or {}).get("uri")
    if uri is None:
        return None
    references: list[dict[str, Any]] = (spec.get("references") or {}).get("claims") or []
    claim = next((str(each.get("claimName")) for each in references if each.get("name") == claim_in(uri)), None)
    return Output(
        uri=str(uri),
        claim=sys.intern(claim) if claim is not None else None,
        created=str(job["metadata"].get("creationTimestamp")),
        begun=bool(status.get("attempts")),
        failed=holds(job, ConditionType.FAILED),
    )


def folder_of(uri: str) -> str:
    """Return the folder in its claim: one folder may be written in several ways."""
    return "/".join(part for part in uri.removeprefix(f"pvc://{claim_in(uri) or ''}").split("/") if part not in ("", "."))
