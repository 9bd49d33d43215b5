"""What a cluster does to real pods: its nodes, its rules, its network, its clock."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from finetune_api.constants import ClusterReason, ConditionReason, Reason
from tests.apiserver.installation import apply
from tests.cluster.api import ApiError, Object
from tests.cluster.pods import await_value, evict
from tests.failures.base import Layer
from tests.failures.pod_failure import OWN, Play, PodFailure, again, job, own, own_again, plainly
from tests.failures.pod_failures_of_files import MAX_STEPS
from tests.failures.site import LONG, STEPS, Site, limits
from tests.node.jobs import Job
from tests.node.platform import PATIENCE, PREFERS, VICTIM
from tests.unit.data.stand_in import Repository

SOME: Final = 150
"""Steps that take some fifteen seconds: time for what is done to a job that must end well."""
CLOSED_PORT: Final = 9
TOKEN: Final = "hf_abcdefghijklmnop"

# Nodes


def _tainted(site: Site) -> Job:
    taint = {"key": "finetune.test/reserved", "value": site.namespace, "effect": "NoSchedule"}
    for node in site.platform.cluster.nodes:
        path = f"/api/v1/nodes/{node.name}"
        site.api.patch(path, {"spec": {"taints": [taint]}})
        site.stack.callback(site.api.patch, path, {"spec": {"taints": []}})
    return site.job("tried")


def _disrupted(preemptions: int) -> Play:
    def play(site: Site) -> Job:
        job = site.job("tried", **{MAX_STEPS: SOME, "spec.retry.maxPreemptions": preemptions})
        evict(site.api, site.committed(job))
        return job

    return play


def _disrupted_again(site: Site, job: Job) -> Job:
    """The same happens to the new job, once."""
    anew = site.again(job, **{MAX_STEPS: SOME, "spec.retry.maxPreemptions": 1})
    evict(site.api, site.committed(anew))
    return anew


def _on_a_node_that_is_lost(site: Site, preemptions: int) -> Mapping[str, Any]:
    """Of the two nodes, the operator's is spared. Returns the job's edits."""
    operators = site.platform.await_operator()["spec"]["nodeName"]
    (node,) = [node for node in site.platform.cluster.nodes if node.name != operators]
    path = f"/api/v1/nodes/{node.name}"
    site.api.patch(path, {"metadata": {"labels": VICTIM}})
    site.stack.callback(site.api.patch, path, {"metadata": {"labels": dict.fromkeys(VICTIM)}})
    site.runtime(OWN, nodeLostAfterSeconds=10, affinity=PREFERS)
    return {MAX_STEPS: LONG if preemptions == 0 else SOME, "spec.retry.maxPreemptions": preemptions}


def _lost(site: Site) -> Job:
    job = site.job("tried", OWN, **_on_a_node_that_is_lost(site, 0))
    _lose_node_of(site, site.committed(job))
    return job


def _lost_again(site: Site, job: Job) -> Job:
    """The first node is there again; the same happens to the new job, once."""
    site.stack.close()
    anew = site.again(job, OWN, **_on_a_node_that_is_lost(site, 1))
    _lose_node_of(site, site.committed(anew))
    return anew


def _lose_node_of(site: Site, pod: Object) -> None:
    node = site.platform.cluster.node(pod["spec"]["nodeName"])
    site.stack.callback(node.start_kubelet)
    node.kill_kubelet()


def _killed(site: Site) -> Job:
    job = site.job("tried", **{MAX_STEPS: LONG})
    site.killed(site.committed(job))
    return job


# Rules


def _quota_on_limits(site: Site) -> Job:
    site.made("ResourceQuota", "cpu", spec={"hard": {"limits.cpu": "64"}})
    path = f"/api/v1/namespaces/{site.namespace}/resourcequotas/cpu"
    await_value(lambda: site.api.get(path).get("status", {}).get("hard"), what="the quota counts", timeout=PATIENCE)
    site.runtime(OWN)
    return site.job("tried", OWN)


def _images_of_a_registry(site: Site, registry: str) -> None:
    """A policy of the cluster for the Jobs of this namespace; returns once it says something."""
    name = f"{site.namespace}-images"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": site.namespace}}
    check = {
        "expression": f"object.spec.template.spec.containers.all(each, each.image.startsWith('{registry}/'))",
        "message": f"images come from {registry}/",
    }
    group = "admissionregistration.k8s.io/v1"
    policy = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": [check]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}}
    for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)):
        apply(site.api, {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec})
        path = f"/apis/{group}/{'validatingadmissionpolicies' if kind.endswith('Policy') else 'validatingadmissionpolicybindings'}/{name}"
        site.stack.callback(site.api.delete, path)


def _admission(site: Site) -> Job:
    _images_of_a_registry(site, "registry.example.com")
    pod = {"restartPolicy": "Never", "containers": [{"name": "any", "image": "localhost/any"}]}
    probe = {"metadata": {"name": "probe"}, "spec": {"template": {"spec": pod}}}

    def refuses() -> bool:
        try:
            site.api.post(f"/apis/batch/v1/namespaces/{site.namespace}/jobs", probe, dryRun="All")
        except ApiError as error:
            return "images come from" in str(error.status.get("message"))
        return False

    await_value(refuses, what="a policy that refuses", timeout=PATIENCE, every=1)
    return site.job("tried")


def _admitted(site: Site, job: Job) -> Job:
    """Whoever made the rule admits the image: the operator tries again within half a minute."""
    site.stack.close()
    return job


# The network


def _on_the_hub(site: Site, port: int | None = None) -> dict[str, Any]:
    """Rows in a repository that wants a token; fields of a runtime whose hub this is. port: another one, where nobody listens."""
    rows = "".join(json.dumps({"text": f"the small tree number {number} stands by the lake"}) + "\n" for number in range(16))
    site.hub.repositories["rows"] = Repository({"rows.jsonl": rows.encode()}, token=TOKEN)
    url = site.hub_url if port is None else f"{site.hub_url.rpartition(':')[0]}:{port}"
    return {"env": [{"name": "HF_ENDPOINT", "value": url}, {"name": "HF_HUB_DISABLE_XET", "value": "1"}]}


FROM_HUB: Final = {
    "spec.references.secrets": [{"name": "hub", "secretName": "hub-token"}],
    "spec.stages[0].data.train": [{"uri": "hf://datasets/OWNER/rows/rows.jsonl", "credentials": "hub"}],
}


def _with_secret(site: Site, **data: str) -> None:
    site.made("Secret", "hub-token", stringData=data)


def _from_hub(**data: str) -> Play:
    """A job whose rows come from the hub; with these keys of its Secret, or without any Secret."""

    def play(site: Site) -> Job:
        if data:
            _with_secret(site, **data)
        site.runtime(OWN, **_on_the_hub(site))
        return site.job("tried", OWN, **FROM_HUB)

    return play


def _token_added(site: Site, job: Job) -> Job:
    """The kubelet tries again by itself."""
    _with_secret(site, token=TOKEN)
    return job


def _token_corrected(site: Site, job: Job) -> Job:
    _with_secret(site, token=TOKEN)
    return site.again(job, OWN, **FROM_HUB)


def _no_hub(site: Site) -> Job:
    _with_secret(site, token=TOKEN)
    site.runtime(OWN, **_on_the_hub(site, CLOSED_PORT))
    return site.job("tried", OWN, **FROM_HUB)


# Hangs


def _hanging(site: Site) -> Job:
    """What it writes to stands still, as a file server's folder that no longer answers: a pipe that nobody reads."""
    site.runtime(OWN, stalledAfterSeconds=60)
    job = site.job("tried", OWN, **{MAX_STEPS: LONG})
    site.committed(job)
    pipe = job.run_folder / "pipe"
    os.mkfifo(pipe, 0o666)
    pipe.chmod(0o666)
    pipe.rename(job.run_folder / "journal.jsonl")
    return job


CLUSTER_POD_FAILURES: Final = (
    PodFailure(
        name="every-node-tainted",
        layer=Layer.NODE,
        what="nodes that are kept for others",
        reason=ConditionReason.UNSCHEDULABLE,
        place="untolerated taint",
        hint="tolerations or resources changed",
        fix="the toleration in the runtime, and the job made again",
        play=_tainted,
        mend=own_again(lambda site: {"tolerations": [{"key": "finetune.test/reserved", "operator": "Exists"}]}),
    ),
    PodFailure(
        name="more-cpu-than-any-node-has",
        layer=Layer.NODE,
        what="a request for more CPUs than any node has",
        reason=ConditionReason.UNSCHEDULABLE,
        place="Insufficient cpu",
        hint="tolerations or resources changed",
        fix="a smaller request in the runtime, and the job made again",
        play=own(lambda site: {"resources": {**limits(), "train": {"requests": {"cpu": "4096"}}}}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="more-gpus-than-any-node-has",
        layer=Layer.NODE,
        what="more GPUs than any node has",
        reason=ConditionReason.GPU_UNAVAILABLE,
        place="2 of 2 nodes have nvidia.com/gpu (4 in all)",
        hint="ask for fewer: resources.gpus of the stage",
        fix="`resources.gpus: 1`",
        play=job(**{"spec.stages[0].resources": {"gpus": 4}}),
        mend=again(**{"spec.stages[0].resources": {"gpus": 1}}),
    ),
    PodFailure(
        name="evicted",
        layer=Layer.NODE,
        what="a pod that is evicted, and `maxPreemptions: 0`",
        reason=ClusterReason.TOO_MANY_DISRUPTIONS,
        place="retry.maxPreemptions is 0; the last was Evicted",
        hint="raise retry.maxPreemptions in a new job",
        fix="a new job with `maxPreemptions: 1`, evicted once",
        play=_disrupted(0),
        mend=_disrupted_again,
    ),
    PodFailure(
        name="node-lost",
        layer=Layer.NODE,
        what="a node that falls silent, and `maxPreemptions: 0`",
        reason=ClusterReason.TOO_MANY_DISRUPTIONS,
        place="retry.maxPreemptions is 0; the last was NodeLost",
        hint="raise retry.maxPreemptions in a new job",
        fix="a new job with `maxPreemptions: 1`, whose node is lost once",
        play=_lost,
        mend=_lost_again,
        cost=4,
    ),
    PodFailure(
        name="trainer-killed-in-its-pod",
        layer=Layer.TRAINER,
        what="SIGKILL from outside, and `maxAttempts: 1`",
        reason=ClusterReason.UNKNOWN_EXIT,
        place="exit code 137",
        hint="where they say nothing, make the job again",
        fix="the job made again",
        play=_killed,
        mend=again(**{MAX_STEPS: STEPS}),
    ),
    PodFailure(
        name="trainer-hangs",
        layer=Layer.TRAINER,
        what="a run folder that no longer answers, and `maxAttempts: 1`",
        reason=Reason.STALLED,
        place="journal.py",
        hint="Start it again",
        fix="the job made again",
        play=_hanging,
        mend=again(**{MAX_STEPS: STEPS}),
        cost=3,
    ),
    PodFailure(
        name="quota-wants-limits",
        layer=Layer.QUOTA,
        what="a ResourceQuota on CPU limits, and a runtime without any",
        reason=ConditionReason.POD_REFUSED,
        place="must specify limits.cpu",
        hint="have the runtime's resources say it, for every role",
        fix="limits in the runtime, and the job made again",
        play=_quota_on_limits,
        mend=own_again(lambda site: {"resources": limits(cpu="4")}),
    ),
    PodFailure(
        name="secret-not-there",
        layer=Layer.NETWORK,
        what="the Secret for the hub is not there",
        reason=ConditionReason.SECRET_MISSING,
        place="Secret hub-token is not there",
        hint="make it with the key token",
        fix="the Secret was made",
        play=_from_hub(),
        mend=_token_added,
    ),
    PodFailure(
        name="secret-without-its-key",
        layer=Layer.NETWORK,
        what="the Secret for the hub has another key",
        reason=ConditionReason.SECRET_KEY_MISSING,
        place="a Secret has no key token",
        hint="add it",
        fix="the key was added",
        play=_from_hub(other="x"),
        mend=_token_added,
    ),
    PodFailure(
        name="token-refused",
        layer=Layer.NETWORK,
        what="a token that the hub does not accept",
        reason=Reason.SOURCE_FORBIDDEN,
        place="spec.stages[0].data.train[0]",
        hint="Name a Secret with a token that may read it",
        fix="the Secret's token was corrected, and the job made again",
        play=_from_hub(token="hf_ponmlkjihgfedcba"),
        mend=_token_corrected,
    ),
    PodFailure(
        name="hub-out-of-reach",
        layer=Layer.NETWORK,
        what="a hub that can't be reached from the pods",
        reason=Reason.SOURCE_UNREACHABLE,
        place="spec.stages[0].data.train[0]",
        hint="check the network from there",
        fix="the address of the hub in the runtime, and the job made again",
        play=_no_hub,
        mend=own_again(_on_the_hub, **FROM_HUB),
    ),
    PodFailure(
        name="pod-security",
        layer=Layer.OPERATOR,
        what="a runtime that a namespace's Pod Security level refuses",
        reason=ConditionReason.POD_REFUSED,
        place="violates PodSecurity",
        hint="have the level or the runtime changed",
        fix="the runtime without its annotation, and the job made again",
        play=own(lambda site: {"podAnnotations": {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="no-runtime-class",
        layer=Layer.OPERATOR,
        what="a RuntimeClass that is not there",
        reason=ConditionReason.POD_REFUSED,
        place='RuntimeClass "nvidia" not found',
        hint="have its runtimeClassName corrected",
        fix="the runtime without `runtimeClassName`, and the job made again",
        play=own(lambda site: {"runtimeClassName": "nvidia"}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="no-priority-class",
        layer=Layer.OPERATOR,
        what="a PriorityClass that is not there",
        reason=ConditionReason.POD_REFUSED,
        place="no PriorityClass with name training was found",
        hint="have its priorityClassName corrected",
        fix="the runtime without `priorityClassName`, and the job made again",
        play=own(lambda site: {"priorityClassName": "training"}),
        mend=own_again(plainly),
    ),
    PodFailure(
        name="admission-policy",
        layer=Layer.OPERATOR,
        what="an admission policy that refuses the trainer's image",
        reason=ConditionReason.ADMISSION_REFUSED,
        place="images come from registry.example.com/",
        hint="whoever made the rule must admit it",
        fix="the policy was taken away",
        play=_admission,
        mend=_admitted,
    ),
    PodFailure(
        name="deadline",
        layer=Layer.OPERATOR,
        what="longer than `activeDeadlineSeconds`",
        reason=ClusterReason.DEADLINE_EXCEEDED,
        place="which is activeDeadlineSeconds",
        hint="Make a new job with a higher activeDeadlineSeconds or less to do",
        fix="a new job with a higher one, and fewer steps",
        play=job(**{MAX_STEPS: LONG, "spec.activeDeadlineSeconds": 15}),
        mend=again(**{MAX_STEPS: STEPS, "spec.activeDeadlineSeconds": 3600}),
    ),
)
