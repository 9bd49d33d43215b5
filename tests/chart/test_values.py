"""values.schema.json: what is refused has a twin beside it that is taken, so that each rule is seen to hold and to let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from scripts.render_chart import DIGEST, FULL, HelmError, rendered

Values = Mapping[str, Any]
RUNTIME: Final[Values] = {"image": f"trainer@{DIGEST}", "storage": {"claimName": "runs"}}

TWINS: Final[dict[str, tuple[Values, Values, str]]] = {
    "a value that there is not": ({"replicas": 2}, {"aggregateRoles": False}, "replicas"),
    "a misspelt value further in": ({"image": {"digests": ""}}, {"image": {"digest": ""}}, "digests"),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, {"image": {"digest": DIGEST}}, "digest"),
    "a tag with a digest in it": ({"image": {"tag": f"1@{DIGEST}"}}, {"image": {"tag": "1.0-rc.1"}}, "tag"),
    "a repository with its tag": ({"image": {"repository": "a/b:1"}}, {"image": {"repository": "a.example:5000/b"}}, "repository"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, {"image": {"pullPolicy": "Never"}}, "pullPolicy"),
    "a namespace that is no name": ({"watchNamespaces": ["Team_A"]}, {"watchNamespaces": ["team-a"]}, "watchNamespaces"),
    "every namespace by a star": ({"watchNamespaces": ["*"]}, {"watchNamespaces": []}, "watchNamespaces"),
    "a namespace twice": ({"watchNamespaces": ["a", "a"]}, {"watchNamespaces": ["a", "b"]}, "watchNamespaces"),
    "a namespace as a string": ({"watchNamespaces": "team-a"}, {"watchNamespaces": ["team-a"]}, "watchNamespaces"),
    "a level of the log that there is not": ({"logLevel": "trace"}, {"logLevel": "debug"}, "logLevel"),
    "no worker at all": ({"workers": 0}, {"workers": 1}, "workers"),
    "more workers than the operator takes": ({"workers": 65}, {"workers": 64}, "workers"),
    "a switch that is a string": ({"admissionPolicy": {"enabled": "no"}}, {"admissionPolicy": {"enabled": False}}, "enabled"),
    "a default runtime without a spec": (
        {"defaultRuntime": {"create": True}},
        {"defaultRuntime": {"create": True, "spec": RUNTIME}},
        "defaultRuntime",
    ),
    "a default runtime by tag": (
        {"defaultRuntime": {"create": True, "spec": {**RUNTIME, "image": "trainer:1"}}},
        {"defaultRuntime": {"create": False, "spec": {**RUNTIME, "image": "trainer:1"}}},
        "image",
    ),
    "a port that is none": ({"networkPolicy": {"apiServerPorts": [0]}}, {"networkPolicy": {"apiServerPorts": [6443]}}, "apiServerPorts"),
    "no port at all": ({"networkPolicy": {"apiServerPorts": []}}, {"networkPolicy": {"enabled": False}}, "apiServerPorts"),
    "an address without its length": (
        {"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}},
        {"networkPolicy": {"apiServerCIDRs": ["10.0.0.1/32", "fd00::/8"]}},
        "apiServerCIDRs",
    ),
    "a way to scrape from nowhere": ({"metrics": {"from": [{}]}}, {"metrics": {"from": [{"podSelector": {}}]}}, "from"),
    "an interval without its unit": (
        {"metrics": {"serviceMonitor": {"interval": "30"}}},
        {"metrics": {"serviceMonitor": {"interval": "1m"}}},
        "interval",
    ),
    "runbooks with a section": (
        {"metrics": {"rules": {"runbooks": "https://a.example.com/x#y"}}},
        {"metrics": {"rules": {"runbooks": "https://a.example.com/x"}}},
        "runbooks",
    ),
    "a board's switch that is a string": (
        {"metrics": {"boards": {"enabled": "yes"}}},
        {"metrics": {"boards": {"enabled": True}}},
        "enabled",
    ),
    "an address for progress without TLS": (
        {"progress": {"url": "http://10.0.0.1:8443/v1/progress"}},
        {"progress": {"url": "https://10.0.0.1:8443/v1/progress"}},
        "url",
    ),
    "a Service's address that is a name": ({"progress": {"clusterIP": "operator"}}, {"progress": {"clusterIP": "10.96.0.50"}}, "clusterIP"),
    "a port for progress that is none": ({"progress": {"port": 0}}, {"progress": {"enabled": False}}, "port"),
    "a quantity that is none": ({"resources": {"limits": {"memory": "much"}}}, {"resources": {"limits": {"memory": "1Gi"}}}, "memory"),
    "a resource for GPUs": ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, {"resources": {"limits": {"cpu": 1}}}, "nvidia.com/gpu"),
    "a label that selects the pod": (
        {"podLabels": {"app.kubernetes.io/name": "other"}},
        {"podLabels": {"example.com/name": "other"}},
        "podLabels",
    ),
    "a label's value with a space": ({"podLabels": {"a": "b c"}}, {"podLabels": {"a": "b-c"}}, "podLabels"),
    "a pull secret by its name only": (
        {"imagePullSecrets": ["registry"]},
        {"imagePullSecrets": [{"name": "registry"}]},
        "imagePullSecrets",
    ),
}


@pytest.mark.parametrize("case", TWINS)
def test_twins(case: str) -> None:
    wrong, right, named = TWINS[case]
    rendered(right)
    with pytest.raises(HelmError) as refused:
        rendered(wrong)
    assert named in str(refused.value), refused.value


def test_every_value_is_in_the_fullest_snapshot_or_refused_there() -> None:
    rendered(FULL)
