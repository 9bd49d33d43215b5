"""Where pods may run, in Kubernetes' own words."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from finetune_api.base import ApiModel


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key. Default: every key (operator Exists). Example: nvidia.com/gpu"""
    operator: Annotated[TolerationOperator, Field(strict=False)] | None = None
    """Exists or Equal. Default: Equal. Example: Exists"""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value (operator Equal). Default: the empty value. Example: present"""
    effect: Annotated[TaintEffect, Field(strict=False)] | None = None
    """NoSchedule, PreferNoSchedule or NoExecute. Default: all of them. Example: NoSchedule"""
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Seconds that a pod stays under a NoExecute taint. Default: for ever. Example: 300"""


Free = Annotated[dict[str, Any], Field(max_length=2)]
"""A part of a PodSpec as Kubernetes defines it. The API server judges it when the first Job is made."""


class Affinity(ApiModel):
    """As in a PodSpec; `kubectl explain pod.spec.affinity` has the fields."""

    node_affinity: Free | None = None
    """requiredDuringSchedulingIgnoredDuringExecution and preferredDuringSchedulingIgnoredDuringExecution, over nodes. Default: none. Example: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: In, values: [a100]}]}]}}"""
    pod_affinity: Free | None = None
    """The same two, over pods to be near. Default: none. Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: cache}}}]}"""
    pod_anti_affinity: Free | None = None
    """The same two, over pods to be away from. Default: none. Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: serving}}}]}"""
