"""Everything of the chart against a real API server: strict server-side dry runs, Pod Security, who may do what, the CRDs' upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from finetune_api import constants as c
from scripts.render_chart import MANIFEST, NAMESPACE, ROOT, SNAPSHOTS, crd_copies, objects, rendered, run_helm
from tests.apiserver.installation import USERNAME, apply, install, namespace, path_of, uninstall
from tests.cluster import Cluster, monitoring
from tests.cluster.api import ApiError
from tests.cluster.pods import await_served, await_value

Document = dict[str, Any]
TEAM: Final = "team-a"
PROMETHEUS: Final = "monitoring.coreos.com/"
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def installed(control_plane: Cluster) -> Iterator[Cluster]:
    """With the chart's defaults, and the namespaces that the other snapshots name."""
    for name in (TEAM, "team-b"):
        apply(control_plane.api, namespace(name))
    documents = install(control_plane.api)
    yield control_plane
    uninstall(control_plane.api, documents)


@pytest.fixture(scope="module")
def monitored(installed: Cluster) -> Iterator[Cluster]:
    """The same with the Prometheus operator's kinds."""
    crds = [d for path in monitoring.definitions() for d in objects(path.read_text(encoding="utf-8"))]
    for crd in crds:
        apply(installed.api, crd)
        await_served(installed.api, crd["metadata"]["name"])
    yield installed
    uninstall(installed.api, crds)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_object_passes_a_strict_dry_run(monitored: Cluster, name: str) -> None:
    for document in objects(rendered(SNAPSHOTS[name])):
        apply(monitored.api, document, dryRun="All")


def test_monitors_are_judged_too(monitored: Cluster) -> None:
    """The control of the test above: their schemas are there, and refuse what they don't know."""
    kinds = {d["kind"]: d for name in SNAPSHOTS for d in objects(rendered(SNAPSHOTS[name])) if d["apiVersion"].startswith(PROMETHEUS)}
    assert set(kinds) == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    for document in kinds.values():
        with pytest.raises(ApiError, match="unknown"):
            apply(monitored.api, {**document, "spec": {**document["spec"], "unknown": 1}}, dryRun="All")


def test_the_plain_manifest_passes_a_strict_dry_run(installed: Cluster) -> None:
    documents = objects((ROOT / MANIFEST).read_text(encoding="utf-8"))
    assert len(documents) > 10
    for document in documents:
        apply(installed.api, document, dryRun="All")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_pods_are_taken_where_restricted_is_enforced(installed: Cluster, name: str) -> None:
    for document in objects(rendered(SNAPSHOTS[name])):
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": template["spec"]}
            installed.api.post(path_of(pod), pod, dryRun="All", fieldValidation="Strict")


def test_a_pod_that_may_more_is_refused_there(installed: Cluster) -> None:
    """The control of the test above: the namespace does enforce."""
    pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        installed.api.post(path_of(pod), pod, dryRun="All")


def test_the_policys_expressions_have_no_warning(installed: Cluster) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/finetune-operator-references"
    assert installed.api.get(path).get("status", {}).get("typeChecking", {}).get("expressionWarnings", []) == []


# --- who may do what ------------------------------------------------------------------------------------------------------------------

OURS, CORE, BATCH = c.GROUP, "", "batch"
MAY: Final[dict[str, tuple[bool, str, str, str, str]]] = {
    "viewer reads jobs": (True, "finetune-operator-view", OURS, "finetunejobs", "list"),
    "viewer makes none": (False, "finetune-operator-view", OURS, "finetunejobs", "create"),
    "viewer lists pods": (True, "finetune-operator-view", CORE, "pods", "list"),
    "viewer reads logs": (True, "finetune-operator-view", CORE, "pods/log", "get"),
    "viewer makes no pods": (False, "finetune-operator-view", CORE, "pods", "create"),
    "viewer asks for no model": (False, "finetune-operator-view", OURS, "finetunejobs", "patch"),
    "viewer reads no Secret": (False, "finetune-operator-view", CORE, "secrets", "get"),
    "editor makes jobs": (True, "finetune-operator-edit", OURS, "finetunejobs", "create"),
    "editor deletes jobs": (True, "finetune-operator-edit", OURS, "finetunejobs", "delete"),
    "editor writes no status": (False, "finetune-operator-edit", OURS, "finetunejobs/status", "update"),
    "editor patches no status": (False, "finetune-operator-edit", OURS, "finetunejobs/status", "patch"),
    "editor asks for a model": (True, "finetune-operator-edit", OURS, "finetunejobs", "patch"),
    "editor sees no pods": (False, "finetune-operator-edit", CORE, "pods", "list"),
    "editor reads no logs": (False, "finetune-operator-edit", CORE, "pods/log", "get"),
    "editor makes no pods": (False, "finetune-operator-edit", CORE, "pods", "create"),
    "editor makes no Jobs": (False, "finetune-operator-edit", BATCH, "jobs", "create"),
    "editor reads no Secret": (False, "finetune-operator-edit", CORE, "secrets", "get"),
    "editor reads runtimes": (True, "finetune-operator-edit", OURS, "clusterfinetuneruntimes", "list"),
    "editor changes no runtime": (False, "finetune-operator-edit", OURS, "clusterfinetuneruntimes", "update"),
    "Kubernetes' viewer reads jobs": (True, "view", OURS, "finetunejobs", "get"),
    "Kubernetes' viewer makes none": (False, "view", OURS, "finetunejobs", "create"),
    "Kubernetes' editor makes jobs": (True, "edit", OURS, "finetunejobs", "create"),
    "Kubernetes' editor writes no status": (False, "edit", OURS, "finetunejobs/status", "update"),
    "Kubernetes' admin makes jobs": (True, "admin", OURS, "finetunejobs", "create"),
    "Kubernetes' admin changes no runtime": (False, "admin", OURS, "clusterfinetuneruntimes", "update"),
}


def may(cluster: Cluster, user: str, group: str, resource: str, verb: str, where: str = TEAM) -> bool:
    """Ask the API server's own authorizer, as `kubectl auth can-i --as` does."""
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": where, "group": group, "resource": name, "subresource": subresource, "verb": verb}
    review = {"spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes}}
    answer = cluster.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize("case", MAY)
def test_roles_for_people(installed: Cluster, case: str) -> None:
    expected, role, group, resource, verb = MAY[case]
    user = f"person-of-{role}"
    apply(
        installed.api,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user, "namespace": TEAM},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
    )
    if expected:  # Kubernetes' own roles get our rules by a controller, some time after the chart is in
        await_value(lambda: may(installed, user, group, resource, verb), what=f"{role} may {verb} {resource}")
    else:
        assert not may(installed, user, group, resource, verb)
    assert not may(installed, user, group, resource, verb, where="team-b") or resource == "clusterfinetuneruntimes"


@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "update", "delete"])
@pytest.mark.parametrize("resource", ["secrets", "configmaps", "serviceaccounts", "serviceaccounts/token", "pods/exec"])
def test_the_operator_touches_nothing_that_it_need_not(installed: Cluster, verb: str, resource: str) -> None:
    for where in (TEAM, NAMESPACE, "kube-system"):
        assert not may(installed, USERNAME, CORE, resource, verb, where)


# --- CRDs -----------------------------------------------------------------------------------------------------------------------------


def test_crds_that_helm_installed_are_upgraded_as_the_notes_say(installed: Cluster) -> None:
    """Another field manager has other values in them: only --force-conflicts takes the fields over."""
    (crd,) = [d for content in crd_copies().values() for d in objects(content.decode()) if d["spec"]["names"]["kind"] == c.KIND]
    older = {**crd, "spec": {**crd["spec"], "names": {**crd["spec"]["names"], "shortNames": ["ftj", "older"]}}}
    path = f"{path_of(crd)}/{crd['metadata']['name']}"
    installed.api.patch(path, older, how="apply", fieldManager="helm", force="true")
    with pytest.raises(ApiError, match="conflict"):
        installed.api.patch(path, crd, how="apply", fieldManager="kubectl", force="false")
    installed.api.patch(path, crd, how="apply", fieldManager="kubectl", force="true")
    assert installed.api.get(path)["spec"]["names"]["shortNames"] == [c.SHORT_NAME]


# --- helm itself ----------------------------------------------------------------------------------------------------------------------


def test_helm_installs_upgrades_and_uninstalls_a_second_release(installed: Cluster) -> None:
    """Beside the first one, into a namespace of its own; it waits until the pod is Ready, and the upgrade takes rights away."""
    apply(installed.api, namespace("trial"))
    reach = ("--namespace", "trial", "--kubeconfig", str(installed.kubeconfig))
    role = f"{_RBAC}/clusterroles/trial-finetune-operator"
    run_helm("install", *reach, "--wait", "--timeout", "90s", "trial")
    assert len(installed.api.get(role)["rules"]) > 3
    run_helm("upgrade", *reach, "--wait", "--timeout", "90s", "trial", values={"watchNamespaces": [TEAM]})
    assert len(installed.api.get(role)["rules"]) == 3
    assert installed.api.find(f"{_RBAC}/namespaces/{TEAM}/roles/trial-finetune-operator") is not None
    run_helm("uninstall", *reach, "--wait", "trial", chart=None)
    assert installed.api.find(role) is None
    assert installed.api.find(f"{_RBAC}/namespaces/{TEAM}/roles/trial-finetune-operator") is None
    assert installed.api.find("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.finetune.dev") is not None
