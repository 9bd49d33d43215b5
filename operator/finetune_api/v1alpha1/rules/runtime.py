"""Rules of a ClusterFineTuneRuntime: what would break every job that uses it is refused when it is applied."""

from __future__ import annotations

from typing import Final

from finetune_api.constants import GROUP, RESERVED_ENVIRONMENT
from finetune_api.v1alpha1.rules.rule import Rule, Unique

_DIGEST: Final = "@sha256:[0-9a-f]{64}$"
_KEY: Final = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_RESOURCE: Final = "^(cpu|memory|ephemeral-storage|hugepages-[0-9A-Za-z]+|[a-z0-9.-]+/[A-Za-z0-9._-]+)$"
_GPU: Final = "self.?gpuResourceName.orValue('nvidia.com/gpu')"
_MADE: Final = "(a claim made for each job)"
_THERE: Final = "(one that is there)"
_ROLES: Final = ("prepare", "train", "report")
_LISTS: Final = ("requests", "limits")
_OWN: Final = ("podLabels", "podAnnotations")


def _keys(field: str, holds: str, message: str, instead: str, scope: str = "spec") -> Rule:
    """A rule over the keys of a map, which names the first that breaks it."""
    return Rule(
        scopes=(scope,),
        field=field,
        holds=f"!has(self.{field}) || self.{field}.all(key, {holds})",
        offenders=f"self.{field}.filter(key, !({holds}))",
        message=message,
        instead=instead,
    )


def _image(holds: str, message: str, instead: str) -> Rule:
    return Rule(scopes=("spec",), field="image", holds=f"!has(self.image) || {holds}", message=message, instead=instead)


def _storage(holds: str, message: str, instead: str) -> Rule:
    return Rule(scopes=("spec.storage",), holds=holds, message=message, instead=instead)


def _without_gpus(role: str, amounts: str) -> Rule:
    return Rule(
        scopes=("spec",),
        each=f"resources.{role}",
        field=amounts,
        holds=f"!has(it.{amounts}) || !({_GPU} in it.{amounts})",
        message="GPUs are counted elsewhere",
        instead="leave them out here: a training pod gets the number of its stages' resources.gpus, else of the runtime's gpus; other pods get none",
    )


RUNTIME_RULES: Final = (
    _image(
        "self.image.contains('@')",
        "an image without a digest can change under a running job, whatever its tag",
        "write it by digest: NAME@sha256: and 64 hexadecimal digits",
    ),
    _image(
        f"!self.image.contains('@') || self.image.matches('{_DIGEST}')",
        "this digest is cut off or mistyped",
        "write @sha256: and all of its 64 hexadecimal digits (0-9, a-f), and nothing after them",
    ),
    _image(
        f"!self.image.matches('{_DIGEST}') || self.image.matches('^[^@ ]+@')",
        "no image is named before the digest",
        "write NAME@sha256:…, with a NAME such as registry.example.com/finetune-trainer",
    ),
    _storage(
        "has(self.claimTemplate) || has(self.claimName)",
        "no claim is given for the run folders",
        f"write storage.claimTemplate {_MADE} or storage.claimName {_THERE}",
    ),
    _storage(
        "!has(self.claimTemplate) || !has(self.claimName)",
        "two claims are given for the run folders",
        f"write storage.claimTemplate {_MADE} or storage.claimName {_THERE}, not both",
    ),
    *(
        _keys(
            amounts,
            f"key.matches('{_RESOURCE}')",
            "no resource has this name",
            "write cpu, memory, ephemeral-storage, hugepages-SIZE or DOMAIN/NAME",
            f"spec.resources.{role}",
        )
        for role in _ROLES
        for amounts in _LISTS
    ),
    *(_without_gpus(role, amounts) for role in _ROLES for amounts in _LISTS),
    *(
        _keys(
            field,
            f"key.matches('{_KEY}')",
            "this key has the wrong form",
            "write letters, digits, '-', '_' and '.', at most 63, after a domain and a slash where there is one",
        )
        for field in ("nodeSelector", *_OWN)
    ),
    *(
        _keys(
            field,
            f"!key.startsWith('{GROUP}/') && !key.startsWith('batch.kubernetes.io/')",
            f"keys with the prefixes {GROUP}/ and batch.kubernetes.io/ are not the platform's to set",
            "use a prefix of your own",
        )
        for field in _OWN
    ),
    Rule(
        scopes=("spec",),
        each="env[]",
        field="name",
        holds=f"!it.name.startsWith('FINETUNE_') && !(it.name in {list(RESERVED_ENVIRONMENT)})",
        message="the operator sets this variable itself",
        instead="leave it out (threads are set by spec.threads)",
    ),
    Rule(
        scopes=("spec.tolerations[]",),
        field="value",
        holds="!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
        message="a taint that need only exist has no value to compare",
        instead="leave value out, or write operator: Equal",
    ),
    Rule(
        scopes=("spec.tolerations[]",),
        field="key",
        holds="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
        message="without a key every taint is meant",
        instead="write key, or operator: Exists",
    ),
    Rule(
        scopes=("spec.tolerations[]",),
        field="tolerationSeconds",
        holds="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="only a taint with NoExecute drives pods away",
        instead="write effect: NoExecute, or leave tolerationSeconds out",
    ),
)
RUNTIME_UNIQUE: Final = (
    Unique("spec.imagePullSecrets", "name"),
    Unique("spec.claims", "name"),
    Unique("spec.secrets", "name"),
    Unique("spec.env", "name"),
)
