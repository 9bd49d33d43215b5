"""The request to read that a FineTuneJob carries: which one it is, and whether it was answered. Pure; the policy `reading` answers it."""

from __future__ import annotations

from finetune_api.constants import READ_ANNOTATION
from finetune_api.reading import request_id
from finetune_operator.model import Manifest


def request_text(job: Manifest) -> str | None:
    """The annotation as it stands, None where there is none."""
    text = (job["metadata"].get("annotations") or {}).get(READ_ANNOTATION)
    return str(text) if text else None


def is_served(job: Manifest) -> bool:
    """Whether the request that stands was answered, or there is none."""
    text = request_text(job)
    return text is None or ((job.get("status") or {}).get("lastRead") or {}).get("id") == request_id(text)
