"""Whose report it is: a token of our audience → TokenReview → the pod's uid → pod, Job, FineTuneJob by ownerReferences.

What a token says of itself is used only to refuse it cheaply; what is believed is the API server's answer, kept for a minute at most. A
review costs the API server a request, so there are so many a second and no more, whoever asks.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from finetune_api import constants as c
from finetune_operator.errors import KubeError, NotFound
from finetune_operator.index import Entry, Index, is_live, whole
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD, Kind, uid_of
from finetune_operator.kube import Kube
from finetune_operator.model import Key
from finetune_operator.names import parse_job_name
from finetune_operator.progress.limits import Bucket
from finetune_operator.progress.refusal import Refusal
from finetune_operator.views import order

LONGEST_TOKEN: Final = 16 * 1024
KEPT_SECONDS: Final = 60.0
REFUSED_SECONDS: Final = 10.0
MOST_KEPT: Final = 8192
REVIEWS_A_SECOND: Final = 50.0
REVIEWS_AT_ONCE: Final = 200
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
NOT_A_TRAINER: Final = "this pod belongs to no FineTuneJob"


@dataclass(frozen=True)
class Pod:
    """Whom the API server knows by a token."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Sender:
    """A pod at work, and what it works for."""

    pod: Pod
    job: str
    """Name of its batch Job."""
    owner: str
    """uid of the FineTuneJob."""
    key: Key
    stages: tuple[str, ...]
    """Names of the FineTuneJob's stages, in order."""


class Identifier:
    def __init__(self, kube: Kube, index: Index, *, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        """clock: seconds, monotonic. now: the time, which a token's end is held against."""
        self._kube = kube
        self._index = index
        self._clock = clock
        self._now = now
        self._known: OrderedDict[bytes, tuple[float, Pod | Refusal]] = OrderedDict()
        self._reviews = Bucket(REVIEWS_A_SECOND, REVIEWS_AT_ONCE, clock)

    async def identify(self, authorization: str) -> Sender:
        """Return who sends this header. Raises Refusal: 401, 403, 409, 429, or 503 where the API server can't be asked."""
        digest, pod = await self._pod(authorization)
        try:
            return await self._sender(pod)
        except NotFound as error:
            self._foreign(digest)
            raise Refusal(403, NOT_A_TRAINER) from error
        except Refusal as refusal:
            if refusal.status == 403:
                self._foreign(digest)
            raise
        except KubeError as error:
            raise Refusal(503, "whose pod it is can't be asked now: try again later") from error

    def _foreign(self, digest: bytes) -> None:
        """Not asked about again for some seconds: any pod of the cluster may have a token of this audience."""
        self._known[digest] = (self._clock() + REFUSED_SECONDS, Refusal(403, NOT_A_TRAINER))

    async def _pod(self, authorization: str) -> tuple[bytes, Pod]:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN:
            raise Refusal(401, f"a bearer token for the audience {c.PROGRESS_AUDIENCE} is missing")
        digest, now = hashlib.sha256(token.encode(errors="surrogateescape")).digest(), self._clock()
        found = self._known.get(digest)
        if found is None or found[0] <= now:
            kept, answer = await self._review(token)
            self._known[digest] = (now + kept, answer)
            self._known.move_to_end(digest)
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        else:
            answer = found[1]
        if isinstance(answer, Refusal):
            raise Refusal(answer.status, answer.message)
        return digest, answer

    async def _review(self, token: str) -> tuple[float, Pod | Refusal]:
        """Ask the API server. Returns for how many seconds the answer is kept, too."""
        left = _seconds_left(token, self._now().timestamp())
        if not self._reviews.take():
            raise Refusal(429, "too many unknown tokens are being asked about: try again later")
        try:
            status = await self._kube.review_token(token, c.PROGRESS_AUDIENCE)
        except KubeError as error:
            raise Refusal(503, "the token can't be reviewed now: try again later") from error
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        uid, name = (next(iter(extra.get(word) or ()), "") for word in (_POD_UID, _POD_NAME))
        if not status.get("authenticated"):
            return REFUSED_SECONDS, Refusal(401, "the token is not valid: it is forged, expired, or of a pod that is gone")
        if c.PROGRESS_AUDIENCE not in (status.get("audiences") or ()):
            return REFUSED_SECONDS, Refusal(401, f"the token is not for the audience {c.PROGRESS_AUDIENCE}")
        words = str(user.get("username", "")).split(":")
        if not uid or not name or len(words) != 4 or words[:2] != ["system", "serviceaccount"]:
            return REFUSED_SECONDS, Refusal(403, "the token is bound to no pod")
        return min(KEPT_SECONDS, left), Pod(words[2], name, uid)

    async def _sender(self, pod: Pod) -> Sender:
        """Follow the chain, which the watches know, and hold it against what is at work. Raises KubeError, Refusal."""
        found = await self._entry(POD, pod.uid, pod.namespace, pod.name)
        child = await self._above(found, JOB)
        job = await self._above(child, FINE_TUNE_JOB)
        if job.settled:
            raise Refusal(409, "the FineTuneJob has finished")
        if found.body is not None and not is_live(POD, whole(found.body)):
            raise Refusal(409, "this pod has ended, or is being stopped")
        identity = parse_job_name(child.name, job.name, job.uid)
        if identity is None:
            raise Refusal(403, NOT_A_TRAINER)
        siblings = (parse_job_name(entry.name, job.name, job.uid) for entry in self._index.children(job.uid) if entry.kind is JOB)
        if any(order(other) > order(identity) for other in siblings if other is not None):
            raise Refusal(409, "a later attempt of this FineTuneJob is at work")
        spec = (whole(job.body) if job.body is not None else await self._kube.get(FINE_TUNE_JOB, job.namespace, job.name))["spec"]
        stages = tuple(str(stage["name"]) for stage in spec["stages"])
        return Sender(pod, child.name, job.uid, Key(job.namespace, job.name), stages)

    async def _above(self, entry: Entry, kind: Kind) -> Entry:
        """What controls it, which must be of this kind."""
        if entry.controller is None:
            raise Refusal(403, NOT_A_TRAINER)
        known = self._index.get(entry.controller)
        if known is not None:
            if known.kind is not kind:
                raise Refusal(403, NOT_A_TRAINER)
            return known
        here = await self._kube.get(entry.kind, entry.namespace, entry.name)
        owner = next((each for each in here["metadata"].get("ownerReferences") or [] if each.get("controller")), None)
        if owner is None or owner["kind"] != kind.name or owner["apiVersion"] != kind.api_version:
            raise Refusal(403, NOT_A_TRAINER)
        return await self._entry(kind, owner["uid"], entry.namespace, owner["name"])

    async def _entry(self, kind: Kind, uid: str, namespace: str, name: str) -> Entry:
        """From the index, else as the API server has it: a watch may be a moment behind. Only what is ours is taken into the index."""
        known = self._index.get(uid)
        if known is not None:
            if (known.kind, known.namespace, known.name) != (kind, namespace, name):
                raise Refusal(403, NOT_A_TRAINER)
            return known
        manifest = await self._kube.get(kind, namespace, name)
        if uid_of(manifest) != uid:
            raise Refusal(403, NOT_A_TRAINER)
        return Index().put(kind, manifest, watched=False)


def _seconds_left(token: str, now: float) -> float:
    """How long a token lives, by what it says itself: enough to refuse it. Raises Refusal."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends = float(claims["exp"])
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else list(claims["aud"])
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        raise Refusal(401, "the token is no service account token") from None
    if c.PROGRESS_AUDIENCE not in audiences:
        raise Refusal(401, f"the token is not for the audience {c.PROGRESS_AUDIENCE}")
    if ends <= now:
        raise Refusal(401, "the token has expired: read it from its file again")
    return ends - now
