"""A user who may create FineTuneJobs in one namespace, and nothing else, tries to get more. None succeeds; the count is printed.

The API server is real, the operator runs under the chart's own rights. What the API server takes is judged by what the operator makes
of it: `escalations.py` has the attempts, `invariants.py` the judge.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from finetune_api import constants as c
from scripts.render_chart import DIGEST
from tests.apiserver import escalations as e
from tests.apiserver.installation import (
    JOBS,
    apply,
    install,
    namespace,
    path_of,
    refusal,
    running_operator,
    uninstall,
)
from tests.apiserver.invariants import Granted, violations
from tests.builders import edited
from tests.cluster import Cluster
from tests.cluster.api import Api, ApiError
from tests.cluster.pods import await_value

Document = dict[str, Any]
RUNTIME: Final[Document] = {
    "apiVersion": c.API_VERSION,
    "kind": c.RUNTIME_KIND,
    "metadata": {"name": "platform", "annotations": {c.DEFAULT_RUNTIME_ANNOTATION: "true"}},
    "spec": {
        "image": f"registry.example.com/trainer@{DIGEST}",
        "gpus": 0,
        "storage": {"claimTemplate": {"accessMode": "ReadWriteOnce", "size": "1Gi"}},
        "claims": [{"name": "shared", "claimName": "shared-models", "readOnly": True}],
        "secrets": [{"name": "hub", "secretName": "platform-hub"}],
        "env": [{"name": "HF_HUB_ETAG_TIMEOUT", "value": "5"}],
        "podLabels": {"example.com/team": "a"},
    },
}
UNUSED: Final = {**RUNTIME, "metadata": {"name": "unused"}}
NAMES: Final = [(area, name) for area, attempts in e.ATTEMPTS.items() for name in attempts]
SECONDS: Final = 120
"""How long the operator may take for all the jobs of all attempts together, on a busy machine."""


@dataclass(frozen=True)
class Outcome:
    escalated: bool
    how: str
    """What the API server answered, or what the operator made of it."""


@dataclass(frozen=True)
class World:
    """A cluster with a victim in it, whose names the attempts use."""

    admin: Api
    jane: Api
    granted: Granted
    names: Mapping[str, str]

    def fill(self, value: Any) -> Any:
        """Put the victim's names in for their placeholders."""
        text = json.dumps(value)
        for placeholder, name in self.names.items():
            text = text.replace(f"{{{placeholder}}}", name)
        return json.loads(text)


def documents() -> Iterator[Document]:
    """The namespaces and what is in them, before anybody tries anything."""
    yield namespace(e.HOME)
    yield namespace(e.ELSEWHERE)
    for where, names in e.SECRETS.items():
        for name in names:
            metadata = {"name": name, "namespace": where}
            yield {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"token": e.HIDDEN}}
    for where, names in e.CLAIMS.items():
        for name in names:
            spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
            yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": where}, "spec": spec}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "admin", "namespace": e.HOME}}
    yield RUNTIME
    yield UNUSED
    yield _role("jane-reads-hers", [_read("secrets", "jane-token"), _read("persistentvolumeclaims", "jane-data")])
    yield _binding("jane-trains", "ClusterRole", "finetune-operator-edit")
    yield _binding("jane-reads-hers", "Role", "jane-reads-hers")


def _read(resource: str, name: str) -> Document:
    return {"apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": ["get"]}


def _role(name: str, rules: list[Document]) -> Document:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name, "namespace": e.HOME}, "rules": rules}


def _binding(name: str, kind: str, role: str) -> Document:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": e.HOME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }


def children(api: Api, where: str, uid: str) -> list[Document]:
    return api.items(f"/apis/batch/v1/namespaces/{where}/jobs", labelSelector=f"{c.JOB_UID_LABEL}={uid}")


def judged(api: Api, job: Document) -> Document | None:
    """The job once the operator has said whether it takes it, and has made what it makes; None before."""
    found = api.get(f"{JOBS.format(job['metadata']['namespace'])}/{job['metadata']['name']}")
    conditions = {each["type"]: each["status"] for each in (found.get("status") or {}).get("conditions") or ()}
    if conditions.get("Accepted") == "False":
        return found
    return found if conditions and children(api, found["metadata"]["namespace"], found["metadata"]["uid"]) else None


@pytest.fixture(scope="module")
def world(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    admin = control_plane.api
    installed = install(admin)
    made = [apply(admin, document) for document in documents()]
    (runtime,) = [document for document in made if document["metadata"]["name"] == "platform"]
    control_plane.user("jane")
    folder = control_plane.layout.certificates
    jane = Api(control_plane.layout.server, folder / "ca.crt", certificate=folder / "user-jane.crt", key=folder / "user-jane.key")
    with running_operator(control_plane, tmp_path_factory.mktemp("operator") / "log"):
        victim = admin.post(JOBS.format(e.HOME), e.plain(e.VICTIM))
        admin.post(JOBS.format(e.ELSEWHERE), e.plain("theirs"))
        jane.post(JOBS.format(e.HOME), e.plain("mine"))
        await_value(lambda: judged(admin, victim), what="the victim's first Job", timeout=SECONDS)
        uid = victim["metadata"]["uid"]
        (child,) = children(admin, e.HOME, uid)
        pods = f"/api/v1/namespaces/{e.HOME}/pods"
        owned = f"batch.kubernetes.io/controller-uid={child['metadata']['uid']}"
        pod = await_value(lambda: next(iter(admin.items(pods, labelSelector=owned)), None), what="the pod of the victim's Job")
        names = {
            "uid": uid,
            "child": child["metadata"]["name"],
            "child_uid": child["metadata"]["uid"],
            "pod": pod["metadata"]["name"],
            "claim": f"ft-{e.VICTIM}-{uid[:8]}",
            "system_uid": admin.get("/api/v1/namespaces/kube-system")["metadata"]["uid"],
        }
        granted = Granted(
            runtime=runtime,
            secrets=frozenset({"jane-token", "platform-hub"}),
            claims=frozenset({"jane-data", "shared-models"}),
            read_only=frozenset({"shared-models"}),
        )
        yield World(admin, jane, granted, names)
    for where in (e.HOME, e.ELSEWHERE):
        admin.delete(f"/api/v1/namespaces/{where}")
    uninstall(admin, [*installed, RUNTIME, UNUSED])


def attempt(world: World, number: int, tried: e.Job | e.Request) -> Outcome | Document:
    """Send it as the user: how it ended, or the FineTuneJob that was taken and has to be judged."""
    try:
        if isinstance(tried, e.Request):
            return Outcome(True, f"the API server answered {_send(world, tried)['kind']}")
        manifest = world.fill(tried.manifest)
        if manifest["metadata"].get("name") == "attempt":
            manifest["metadata"]["name"] = f"attempt-{number}"
        validation = "Ignore" if tried.lenient else "Strict"
        taken = world.jane.post(JOBS.format(tried.namespace), manifest, fieldValidation=validation)
    except ApiError as error:
        return Outcome(False, refusal(error))
    return Outcome(True, "the API server took it") if tried.refused else taken


def _send(world: World, request: e.Request) -> Document:
    path, body = world.fill(request.path), world.fill(request.body)
    match request.method:
        case "GET":
            return world.jane.get(path)
        case "POST":
            return world.jane.post(path, body)
        case "PUT":
            return world.jane.put(path, body)
        case "PATCH":
            return world.jane.patch(path, body)
        case _:
            world.jane.delete(path)
            return {"kind": "Status"}


@pytest.fixture(scope="module")
def outcomes(world: World) -> dict[tuple[str, str], Outcome]:
    """Everything tried first, then everything judged: what one attempt left behind may help the next."""
    victims = [copy.deepcopy(each) for each in children(world.admin, e.HOME, world.names["uid"])]
    answers = {key: attempt(world, number, e.ATTEMPTS[key[0]][key[1]]) for number, key in enumerate(NAMES)}
    found: dict[tuple[str, str], Outcome] = {}
    for key, answer in answers.items():
        found[key] = answer if isinstance(answer, Outcome) else judge(world, answer)
    assert [each["metadata"]["uid"] for each in children(world.admin, e.HOME, world.names["uid"])] == [
        each["metadata"]["uid"] for each in victims
    ], "the victim's Jobs are others now"
    return found


def judge(world: World, taken: Document) -> Outcome:
    """What the operator made of a job that the API server took."""
    name = taken["metadata"]["name"]
    job = await_value(lambda: judged(world.admin, taken), what=f"the operator's word on {name}", timeout=SECONDS)
    if job["status"].get("runtime", {}).get("image", RUNTIME["spec"]["image"]) != RUNTIME["spec"]["image"]:
        return Outcome(True, f"the status has the image {job['status']['runtime']['image']}")
    made = children(world.admin, job["metadata"]["namespace"], job["metadata"]["uid"])
    wrong = [text for child in made for text in violations(child, job, world.granted)]
    if wrong:
        return Outcome(True, "; ".join(wrong))
    if made:
        return Outcome(False, "a Job like any other")
    (accepted,) = [each for each in job["status"]["conditions"] if each["type"] == "Accepted"]
    return Outcome(False, f"Accepted=False: {accepted['message']}")


@pytest.mark.parametrize(("area", "name"), NAMES, ids=[f"{area}: {name}" for area, name in NAMES])
def test_it_gains_nothing(outcomes: Mapping[tuple[str, str], Outcome], area: str, name: str) -> None:
    outcome = outcomes[area, name]
    assert not outcome.escalated, outcome.how


def test_the_count(outcomes: Mapping[tuple[str, str], Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    succeeded = [key for key, outcome in outcomes.items() if outcome.escalated]
    with capsys.disabled():
        print()
        for (area, name), outcome in outcomes.items():
            print(f"  {'SUCCEEDED' if outcome.escalated else 'failed   '}  {area}: {name}: {outcome.how[:160]}")
        print(f"escalations tried: {len(outcomes)}, succeeded: {len(succeeded)}")
    assert not succeeded


def test_nothing_of_others_has_changed(outcomes: Mapping[tuple[str, str], Outcome], world: World) -> None:
    assert outcomes
    for runtime in (RUNTIME, UNUSED):
        found = world.admin.get(f"{path_of(runtime)}/{runtime['metadata']['name']}")
        assert found["metadata"]["generation"] == 1
        assert found["metadata"].get("annotations", {}).keys() == runtime["metadata"].get("annotations", {}).keys()
    assert [job["metadata"]["name"] for job in world.admin.items(JOBS.format(e.ELSEWHERE))] == ["theirs"]
    mine = world.admin.get(JOBS.format(e.HOME) + "/mine")
    assert "references" not in mine["spec"]
    assert mine["status"].get("phase") != "Succeeded"
    here = {each["metadata"]["name"] for each in world.admin.items("/api/v1/namespaces") if each["status"]["phase"] == "Active"}
    for job in world.admin.items("/apis/batch/v1/jobs"):
        if job["metadata"]["namespace"] not in here:  # another test's, whose FineTuneJobs go before their Jobs
            continue
        owners = {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())}
        jobs = {each["metadata"]["uid"] for each in world.admin.items(JOBS.format(job["metadata"]["namespace"]))}
        assert owners <= jobs, f"{job['metadata']['name']} belongs to no FineTuneJob of its namespace"


def test_what_is_hers_she_may_use(world: World) -> None:
    """The control of the whole: the same user's own Secret and claim are taken and mounted."""
    manifest = edited(
        e.plain("hers"),
        {
            "spec.references": {
                "secrets": [{"name": "hub-of-jane", "secretName": "jane-token"}],
                "claims": [{"name": "data", "claimName": "jane-data"}],
            },
            "spec.model": {"uri": "hf://owner/model", "credentials": "hub-of-jane"},
            "spec.stages[0].data.train[0].uri": "pvc://data/rows.jsonl",
        },
    )
    taken = world.jane.post(JOBS.format(e.HOME), manifest, fieldValidation="Strict")
    job = await_value(lambda: judged(world.admin, taken), what="the operator's word on hers", timeout=SECONDS)
    (child,) = children(world.admin, e.HOME, job["metadata"]["uid"])
    volumes = child["spec"]["template"]["spec"]["volumes"]
    assert {v["secret"]["secretName"] for v in volumes if "secret" in v} == {"jane-token"}
    assert "jane-data" in {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert list(violations(child, job, world.granted)) == []


def _pod(change: Callable[[Document], Any]) -> Callable[[Document], Any]:
    return lambda child: change(child["spec"]["template"]["spec"])


def _first(change: Callable[[Document], Any]) -> Callable[[Document], Any]:
    return lambda child: change(child["spec"]["template"]["spec"]["containers"][0])


TAMPERED: Final[Mapping[str, Callable[[Document], Any]]] = {
    "an image": _first(lambda container: container.update(image=e.EVIL_IMAGE)),
    "a command": _first(lambda container: container.update(command=["sh"])),
    "arguments": _first(lambda container: container.update(args=["train", "--config", "/tmp/x"])),
    "a variable": _first(lambda container: container["env"].append({"name": "LD_PRELOAD", "value": "x"})),
    "a Secret as a variable": _first(lambda container: container["env"].append({"name": "HOME", "value": "", "valueFrom": {}})),
    "privileges": _first(lambda container: container["securityContext"].update(allowPrivilegeEscalation=True)),
    "a sub-path": _first(lambda container: container["volumeMounts"].append({"name": "run", "mountPath": "/x", "subPath": "../y"})),
    "a service account": _pod(lambda pod: pod.update(serviceAccountName="admin")),
    "a token": _pod(lambda pod: pod.update(automountServiceAccountToken=True)),
    "a host's network": _pod(lambda pod: pod.update(hostNetwork=True)),
    "a node": _pod(lambda pod: pod.update(nodeSelector={"a": "b"})),
    "a host's path": _pod(lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    "a Secret": _pod(lambda pod: pod["volumes"].append({"name": "x", "secret": {"secretName": "prod-db", "items": [{"key": "token"}]}})),
    "a Secret's other keys": _pod(
        lambda pod: pod["volumes"].append({"name": "x", "secret": {"secretName": "jane-token", "items": [{"key": "x"}]}})
    ),
    "a claim": _pod(lambda pod: pod["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "finance-data"}})),
    "a claim to write to": _pod(lambda pod: pod["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "shared-models"}})),
    "a label of the pod": lambda child: child["spec"]["template"]["metadata"]["labels"].update(app="payments"),
    "a queue": lambda child: child["metadata"]["labels"].update({c.QUEUE_LABEL: "vip"}),
    "an owner": lambda child: child["metadata"]["ownerReferences"][0].update(uid="other"),
    "a second owner": lambda child: child["metadata"]["ownerReferences"].append({"uid": "other"}),
    "a namespace": lambda child: child["metadata"].update(namespace=e.ELSEWHERE),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_the_judge_sees(world: World, case: str) -> None:
    """The control of the judge: each thing that an escalation would leave behind, put into the victim's real Job."""
    (child,) = children(world.admin, e.HOME, world.names["uid"])
    job = world.admin.get(f"{JOBS.format(e.HOME)}/{e.VICTIM}")
    assert list(violations(child, job, world.granted)) == []
    TAMPERED[case](child)
    assert list(violations(child, job, world.granted)) != []
