"""The chart as it renders: what it asks of the cluster, what its pod may do, and that what is committed is what it renders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest
import yaml

from finetune_api import constants as c
from scripts.render_chart import CHART, FULL, MANIFEST, NAMESPACE, ROOT, SNAPSHOTS, crd_copies, generated, objects, rendered, run_helm

Document = dict[str, Any]
LARGEST_CRD: Final = 200_000
"""Bytes. kubectl's annotation holds 262,144, and a ConfigMap or a helm release not much more."""


def of_kind(documents: Iterable[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def only(documents: Iterable[Document], kind: str, suffix: str = "") -> Document:
    (found,) = [d for d in of_kind(documents, kind) if d["metadata"]["name"].endswith(f"finetune-operator{suffix}")]
    return found


@pytest.fixture(scope="module", params=list(SNAPSHOTS))
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return objects(rendered(SNAPSHOTS[request.param]))


def test_helm_lint_has_nothing_to_say_but_of_the_icon() -> None:
    printed = run_helm("lint", "--strict", values=FULL)
    assert "0 chart(s) failed" in printed
    assert "[WARNING]" not in printed, printed


def test_what_is_committed_is_what_renders() -> None:
    different = [str(path) for path, text in generated().items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    assert not different, f"run make generate and commit: {different}"


def test_the_charts_crds_are_the_crds_to_the_byte() -> None:
    copies = crd_copies()
    assert {path.name for path in (CHART / "crds").iterdir()} == {path.name for path in copies}
    for path, content in copies.items():
        assert (ROOT / path).read_bytes() == content, path


def test_a_crd_stays_small_enough_for_every_way_to_apply_it() -> None:
    for path, content in crd_copies().items():
        assert len(json.dumps(yaml.safe_load(content))) < LARGEST_CRD, path


def test_the_manifest_holds_the_crds_and_every_object_of_the_defaults() -> None:
    held = objects((ROOT / MANIFEST).read_text(encoding="utf-8"))
    crds = [yaml.safe_load(content) for content in crd_copies().values()]
    assert [d for d in held if d["kind"] == "CustomResourceDefinition"] == crds
    defaults = [d for d in objects(rendered({})) if "helm.sh/hook" not in d["metadata"].get("annotations", {})]
    rest = [d for d in held if d["kind"] not in ("CustomResourceDefinition", "Namespace")]
    assert sorted(map(json.dumps, rest)) == sorted(map(json.dumps, defaults))


# --- rights ---------------------------------------------------------------------------------------------------------------------------


def rules(documents: Iterable[Document]) -> list[Mapping[str, list[str]]]:
    """Every rule that the operator's service account gets, in every namespace."""
    names = ("finetune-operator", "finetune-operator-progress")
    return [rule for d in of_kind(documents, "ClusterRole", "Role") if d["metadata"]["name"] in names for rule in d["rules"]]


def test_no_rule_of_anybody_is_a_wildcard(documents: list[Document]) -> None:
    for role in of_kind(documents, "ClusterRole", "Role"):
        for rule in role["rules"]:
            assert set(rule) - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
            assert "*" not in itertools.chain.from_iterable(rule.values()), role["metadata"]["name"]


def test_the_operator_reads_one_secret_by_its_name_and_grants_itself_nothing(documents: list[Document]) -> None:
    touched = {
        (group, resource.split("/")[0]) for rule in rules(documents) for group in rule["apiGroups"] for resource in rule["resources"]
    }
    assert touched == {
        ("finetune.dev", "finetunejobs"),
        ("finetune.dev", "clusterfinetuneruntimes"),
        ("batch", "jobs"),
        ("", "pods"),
        ("", "persistentvolumeclaims"),
        ("", "events"),
        ("events.k8s.io", "events"),
        ("", "nodes"),
        ("", "secrets"),
        ("authentication.k8s.io", "tokenreviews"),
    }
    (own,) = [rule for rule in rules(documents) if "secrets" in rule["resources"]]
    assert own == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["finetune-operator-progress"], "verbs": ["get", "update"]}
    verbs = {verb for rule in rules(documents) for verb in rule["verbs"]}
    assert not verbs & {"impersonate", "bind", "escalate", "deletecollection"}
    asked = {resource for rule in rules(documents) for resource in rule["resources"]}
    assert {resource for resource in asked if "exec" in resource or "token" in resource} == {"tokenreviews"}


def test_namespaced_mode_keeps_a_small_cluster_role() -> None:
    documents = objects(rendered({"watchNamespaces": ["team-a", "team-b"]}))
    (cluster,) = [d for d in of_kind(documents, "ClusterRole") if d["metadata"]["name"] == "finetune-operator"]
    assert {(rule["resources"][0], tuple(rule["verbs"])) for rule in cluster["rules"]} == {
        ("clusterfinetuneruntimes", ("list",)),
        ("nodes", ("get", "list")),
        ("tokenreviews", ("create",)),
    }
    for kind in ("Role", "RoleBinding"):
        found = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in of_kind(documents, kind)}
        assert found == {
            ("team-a", "finetune-operator"),
            ("team-b", "finetune-operator"),
            (NAMESPACE, "finetune-operator-progress"),
        }


def test_both_modes_give_the_same_rights_in_a_watched_namespace() -> None:
    def rights(values: Mapping[str, Any]) -> set[tuple[str, str, str]]:
        found = rules(objects(rendered(values)))
        return {(g, r, v) for rule in found for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}

    assert rights({}) == rights({"watchNamespaces": ["team-a"]})


def test_nobody_but_the_operator_writes_a_status(documents: list[Document]) -> None:
    for suffix in ("-view", "-edit"):
        role = only(documents, "ClusterRole", suffix)
        status = [rule for rule in role["rules"] if "finetunejobs/status" in rule["resources"]]
        assert [rule["verbs"] for rule in status] == [["get"]]


def test_roles_for_people_are_added_to_kubernetes_own_unless_told_not_to() -> None:
    def targets(values: Mapping[str, Any], suffix: str) -> set[str]:
        labels = only(objects(rendered(values)), "ClusterRole", suffix)["metadata"]["labels"]
        return {key.rpartition("-")[2] for key, value in labels.items() if "aggregate-to" in key and value == "true"}

    assert targets({}, "-view") == {"view", "edit", "admin"}
    assert targets({}, "-edit") == {"edit", "admin"}
    assert targets({"aggregateRoles": False}, "-edit") == set()


# --- the pod --------------------------------------------------------------------------------------------------------------------------


def pods(documents: Iterable[Document]) -> list[Document]:
    return [d["spec"]["template"]["spec"] for d in of_kind(documents, "Deployment")] + [d["spec"] for d in of_kind(documents, "Pod")]


def test_pods_are_restricted_and_read_only(documents: list[Document]) -> None:
    for pod in pods(documents):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all(set(volume) <= {"name", "emptyDir"} for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert container["securityContext"] == allowed


def test_one_replica_that_is_never_two(documents: list[Document]) -> None:
    spec = only(documents, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_digest_goes_before_a_tag() -> None:
    def image(**values: str) -> str:
        return str(only(objects(rendered({"image": values})), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"])

    digest = "sha256:" + "a" * 64
    assert image(repository="r/o", tag="1.2.3") == "r/o:1.2.3"
    assert image(repository="r/o") == "r/o:" + yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert image(repository="r/o", tag="1.2.3", digest=digest) == f"r/o@{digest}"


def test_the_policy_of_the_network_is_about_the_operator_and_lets_its_probes_in(documents: list[Document]) -> None:
    labels = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    policy = only(documents, "NetworkPolicy")["spec"]
    service = only(documents, "Service")["spec"]
    for selector in (policy["podSelector"]["matchLabels"], service["selector"]):
        assert selector.items() <= labels.items()
        assert all(not selector.items() <= d["metadata"]["labels"].items() for d in of_kind(documents, "Pod"))
    probes, metrics, progress = policy["ingress"]
    assert probes == {"ports": [{"port": "http", "protocol": "TCP"}]}
    assert metrics["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert progress == {
        "ports": [{"port": "progress", "protocol": "TCP"}],
        "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {c.MANAGED_LABEL: "true"}}}],
    }


def test_progress_comes_and_goes_as_a_whole() -> None:
    with_it, without = objects(rendered({})), objects(rendered({"progress": {"enabled": False}}))
    assert "progress" in json.dumps([d for d in with_it if d["kind"] != "ConfigMap"])
    assert "progress" not in json.dumps([d for d in without if d["kind"] != "ConfigMap"])
    assert not of_kind(without, "Secret")
    (secret,) = of_kind(with_it, "Secret")
    assert not {"data", "stringData"} & set(secret), "what the operator wrote there would be overwritten by each upgrade"


def test_pods_are_told_the_address_of_the_service_or_that_which_was_given() -> None:
    def told(values: Mapping[str, Any]) -> str:
        (container,) = only(objects(rendered(values)), "Deployment")["spec"]["template"]["spec"]["containers"]
        (url,) = [each["value"] for each in container["env"] if each["name"] == "FINETUNE_OPERATOR_PROGRESS_URL"]
        return str(url)

    assert told({}) == f"https://finetune-operator.{NAMESPACE}.svc:8443/v1/progress"
    assert told({"progress": {"port": 443}}) == f"https://finetune-operator.{NAMESPACE}.svc:443/v1/progress"
    assert told({"progress": {"clusterIP": "10.96.0.50"}}) == "https://10.96.0.50:8443/v1/progress"
    assert only(objects(rendered({"progress": {"clusterIP": "10.96.0.50"}})), "Service")["spec"]["clusterIP"] == "10.96.0.50"
    assert told({"progress": {"url": "https://10.0.0.9:1/v1/progress"}}) == "https://10.0.0.9:1/v1/progress"


# --- the admission policy -------------------------------------------------------------------------------------------------------------


def test_each_reference_that_the_schema_allows_has_its_validation() -> None:
    policy = objects(rendered({}))
    validations = only(policy, "ValidatingAdmissionPolicy", "-references")["spec"]["validations"]
    checked = [(name, index) for name in ("secrets", "claims") for index in range(c.MAX_REFERENCES)]
    assert len(validations) == len(checked)
    for (name, index), validation in zip(checked, validations, strict=True):
        assert f"size(variables.{name}) <= {index} ||" in validation["expression"]
        assert f"variables.{name}[{index}]." in validation["expression"]
        assert f"spec.references.{name}[{index}]." in validation["messageExpression"]


def test_the_policy_refuses_where_it_cannot_be_asked() -> None:
    policy = objects(rendered({}))
    assert only(policy, "ValidatingAdmissionPolicy", "-references")["spec"]["failurePolicy"] == "Fail"
    assert only(policy, "ValidatingAdmissionPolicyBinding", "-references")["spec"]["validationActions"] == ["Deny"]


def notes(values: Mapping[str, Any]) -> str:
    """What helm prints after an installation."""
    printed = run_helm("install", "--dry-run=client", "--namespace", "finetune-system", "trial", values=values)
    return printed.partition("\nNOTES:\n")[2]


def test_without_the_policy_the_notes_warn() -> None:
    values = {"admissionPolicy": {"enabled": False}, "watchNamespaces": ["team-a"]}
    assert not of_kind(objects(rendered(values)), "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert "WARNING: admissionPolicy is off." in notes(values)
    assert "the FineTuneJobs of team-a." in notes(values)


def test_the_notes_of_the_defaults_say_what_is_missing() -> None:
    said = notes({})
    assert "every namespace" in said
    assert "make a ClusterFineTuneRuntime" in said
    assert "WARNING" not in said
    assert "trial-finetune-operator-edit" in said
