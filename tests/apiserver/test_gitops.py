"""A job as GitOps tools handle it, on a real API server: judged at every step of its life, applied again, compared, waited for, pruned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_api import constants as c
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, POD, uid_of
from finetune_operator.kube import FIELD_MANAGER
from scripts import argocd
from tests.apiserver.follower import Follower
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, published, said, stopped
from tests.cluster.api import ApiError, Object
from tests.cluster.errors import ClusterError
from tests.cluster.pods import await_value
from tests.gitops.judge import Judge, patched
from tests.gitops.rows import judged
from tests.gitops.states import EDITED, FAILED, GOES_ON, NEW, REFUSED, SUCCEEDED, SUSPENDED

FLUX: Final = "kustomize-controller"
ARGO: Final = "argocd-controller"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def say(trial: Trial) -> str:
    """The manifest as it would lie in Git."""
    return json.dumps(trial.manifest)


def kubectl(stage: Scene, *arguments: str, given: str = "") -> str:
    return stage.cluster.kubectl(*arguments, "--namespace", stage.namespace, given=given)


# A whole life, judged


def test_a_life_with_a_suspension_is_judged_alike_at_every_step(stage: Scene, judge: Judge) -> None:
    trial = stage.trial("judged")
    with Follower(stage.api, stage.namespace, trial.name) as follower:
        pod = trial.start()
        trial.edit(suspend=True)
        trial.await_phase("Suspending")
        trial.stop(trial.await_stopping(pod), message=stopped(40))
        trial.await_phase("Suspended")
        trial.edit(suspend=False)
        trial.succeed(trial.run(2))
        follower.await_state(trial.seen["metadata"]["resourceVersion"])
        rows = judged(judge, follower.seen)
        assert (rows[0], rows[-1]) == (NEW, SUCCEEDED)
        assert rows.index(SUSPENDED) > rows.index(EDITED) > rows.index(GOES_ON)
        assert rows.count(SUSPENDED) == rows.count(SUCCEEDED) == 1
        trial.delete()
        follower.await_gone()


def test_a_failure_is_judged_alike_at_every_step(stage: Scene, judge: Judge) -> None:
    trial = stage.trial("judged-failure")
    with Follower(stage.api, stage.namespace, trial.name) as follower:
        words = said("Failed", 11, reason=c.Reason.DATA_INVALID, stage="task", message="train.jsonl line 3: prompt is missing")
        stage.puppet.finish(trial.start(), 11, words)
        trial.await_failed(c.Reason.DATA_INVALID)
        follower.await_state(trial.seen["metadata"]["resourceVersion"])
    rows = judged(judge, follower.seen)
    assert rows == [NEW, GOES_ON, FAILED]
    status, message = judge.health(follower.seen[-1])
    assert (status, "train.jsonl line 3: prompt is missing" in message) == ("Degraded", True)


def test_a_refusal_is_judged_alike_until_it_is_mended(stage: Scene, judge: Judge) -> None:
    trial = stage.trial("judged-refusal", runtime="comes-later")
    with Follower(stage.api, stage.namespace, trial.name) as follower:
        trial.submit()
        trial.await_refused("RuntimeNotFound")
        stage.runtime("comes-later")
        stage.operator.advance(31)
        trial.succeed(trial.run())
        follower.await_state(trial.seen["metadata"]["resourceVersion"])
    assert judged(judge, follower.seen) == [NEW, REFUSED, GOES_ON, SUCCEEDED]


# Argo CD's actions, as its server carries them out


def test_actions_suspend_resume_and_make_it_again(stage: Scene, judge: Judge) -> None:
    trial = stage.trial("acted-upon", spec__tokenizer={}, spec__evaluation={"suites": [], "gates": []})
    pod = trial.start()

    def act(action: str) -> None:
        live = trial.seen
        assert judge.actions(live)[action]
        changed = patched(judge.act(action, live), live)
        assert {**changed, "spec": None} == {**live, "spec": None}
        stage.api.patch(trial.path, {"spec": changed["spec"]})

    act("suspend")
    trial.stop(trial.await_stopping(pod), message=stopped(40))
    trial.await_phase("Suspended")
    act("resume")
    stage.puppet.finish(trial.run(2), 11, said("Failed", 11, reason=c.Reason.DATA_INVALID, message="no rows"))
    trial.await_failed(c.Reason.DATA_INVALID)
    live = trial.seen
    assert judge.actions(live) == {"suspend": False, "resume": False, "retry": True}
    (asked,) = judge.act("retry", live)
    made = stage.api.post(FINE_TUNE_JOB.path(stage.namespace), asked["resource"], fieldValidation="Strict")
    again = Trial(stage.api, stage.puppet, made)
    again.succeed(again.run())
    trial.delete()
    again.await_gone()


def test_the_snippet_adds_to_what_argo_cd_is_configured_with(stage: Scene) -> None:
    metadata = {"name": "argocd-cm"}
    stage.api.post(
        f"/api/v1/namespaces/{stage.namespace}/configmaps", {"metadata": metadata, "data": {"url": "https://argocd.example.com"}}
    )
    kubectl(stage, "patch", "configmap", "argocd-cm", "--type", "merge", "--patch-file", str(argocd.CONFIG_MAP))
    data = stage.api.get(f"/api/v1/namespaces/{stage.namespace}/configmaps/argocd-cm")["data"]
    assert data["url"] == "https://argocd.example.com"
    assert "resource.customizations.actions.finetune.dev_FineTuneJob" in data


# Applied again, by one and by two, and compared with Git


def stands(trial: Trial) -> tuple[str, int]:
    metadata = trial.seen["metadata"]
    return metadata["resourceVersion"], metadata["generation"]


@pytest.mark.parametrize("how", [["--server-side", "--field-manager", FLUX], []], ids=["server-side", "client-side"])
def test_an_unchanged_manifest_applied_again_is_no_change(stage: Scene, how: list[str]) -> None:
    trial = stage.trial("again" + ("-server" if how else "-client"))
    apply = ["apply", *how, "-f", "-"]
    differ = ["diff", *how, "-f", "-"]
    kubectl(stage, *apply, given=say(trial))
    assert kubectl(stage, *differ, given=say(trial)) == "", "nothing is filled in that Git has not"
    pod = trial.run()
    while_running = stands(trial)
    kubectl(stage, *apply, given=say(trial))
    assert kubectl(stage, *differ, given=say(trial)) == ""
    assert stands(trial) == while_running
    trial.succeed(pod)
    at_the_end = stands(trial)
    kubectl(stage, *apply, given=say(trial))
    assert kubectl(stage, *differ, given=say(trial)) == ""
    stage.operator.advance(1)
    assert stands(trial) == at_the_end
    assert at_the_end[1] == 1, "the operator never writes the spec"
    assert [job["metadata"]["name"][-3:] for job in trial.batch_jobs()] == ["1-1"]


def managers(manifest: Object) -> set[tuple[str, str]]:
    """Who owns fields, and of what: the object or its status."""
    return {(entry["manager"], entry.get("subresource", "")) for entry in manifest["metadata"]["managedFields"]}


def test_two_managers_apply_their_own_fields(stage: Scene) -> None:
    trial = stage.trial("two-managers")
    manifest = trial.manifest
    other = {key: manifest[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": trial.name}}
    stage.api.patch(trial.path, manifest, how="apply", fieldManager=ARGO, force="false", fieldValidation="Strict")
    stage.api.patch(trial.path, {**other, "spec": {"ttlSecondsAfterFinished": 86400}}, how="apply", fieldManager="platform", force="false")
    trial.run()
    stage.api.patch(trial.path, manifest, how="apply", fieldManager=ARGO, force="false")
    seen = trial.seen
    assert seen["spec"] == {**manifest["spec"], "ttlSecondsAfterFinished": 86400}, "neither takes the other's field away"
    assert managers(seen) == {(ARGO, ""), ("platform", ""), (FIELD_MANAGER, "status")}
    with pytest.raises(ApiError) as refusal:
        theirs = {**manifest, "spec": {**manifest["spec"], "ttlSecondsAfterFinished": 60}}
        stage.api.patch(trial.path, theirs, how="apply", fieldManager=ARGO, force="false")
    assert (refusal.value.code, 'conflict with "platform"' in str(refusal.value)) == (409, True)


def test_a_fixed_field_that_changed_in_git_is_refused_and_named(stage: Scene) -> None:
    trial = stage.trial("fixed-field")
    kubectl(stage, "apply", "-f", "-", given=say(trial))
    trial.manifest["spec"]["seed"] = 7
    with pytest.raises(ClusterError, match=r"spec\.seed: Invalid value: .*a job is fixed from its creation: make a new job"):
        kubectl(stage, "apply", "-f", "-", given=say(trial))


# Waited for


def wait(stage: Scene, trial: Trial, condition: str, seconds: int = 120) -> None:
    kubectl(stage, "wait", f"ftj/{trial.name}", f"--for=condition={condition}", f"--timeout={seconds}s")


def test_kubectl_waits_for_either_end(stage: Scene) -> None:
    good, bad = stage.trial("waited-for"), stage.trial("waited-for-in-vain")
    good_pod, bad_pod = good.start(), bad.start()
    wait(stage, good, "Running")
    with pytest.raises(ClusterError, match="timed out"):
        wait(stage, good, "Finished", 1)
    stage.puppet.finish(good_pod, message=published())
    stage.puppet.finish(bad_pod, 11, said("Failed", 11, reason=c.Reason.DATA_INVALID, message="no rows"))
    wait(stage, good, "Finished")
    wait(stage, good, "Complete")
    wait(stage, bad, "Finished")
    wait(stage, bad, "Failed")
    with pytest.raises(ClusterError, match="timed out"):
        wait(stage, bad, "Complete", 1)


# Whose is what


def test_children_say_whose_they_are_and_carry_nothing_that_a_tool_prunes_by(stage: Scene) -> None:
    tracking = {"app.kubernetes.io/instance": "training", "kustomize.toolkit.fluxcd.io/name": "training"}
    stage.runtime("own-claim", storage={"claimTemplate": {"className": "shared", "accessMode": "ReadWriteMany", "size": "1Gi"}})
    trial = stage.trial("owned", runtime="own-claim")
    trial.manifest["metadata"] |= {"labels": tracking, "annotations": {"argocd.argoproj.io/tracking-id": "training:ftj"}}
    trial.start()
    uid = uid_of(trial.seen)
    children = [
        child
        for kind in (JOB, POD, CLAIM)
        for child in stage.api.items(kind.path(stage.namespace), labelSelector=f"{c.JOB_LABEL}=owned")
        if child["metadata"]["labels"][c.JOB_UID_LABEL] == uid
    ]
    assert {child["metadata"]["name"][:9] for child in children} == {"ft-owned-"}
    assert len(children) == 3
    for child in children:
        metadata = child["metadata"]
        assert metadata["labels"][c.MANAGED_LABEL] == "true"
        assert not {*metadata["labels"], *metadata.get("annotations", {})} & {*tracking, "argocd.argoproj.io/tracking-id"}
        assert all(owner["kind"] in ("FineTuneJob", "Job") for owner in metadata.get("ownerReferences", []))


def test_prune_takes_the_job_and_what_runs_and_nothing_is_left_to_wait_for(stage: Scene) -> None:
    trial = stage.trial("pruned")
    pod = trial.start()
    uid = uid_of(trial.seen)
    kubectl(stage, "delete", "ftj", "pruned", "--timeout", "60s")
    stage.puppet.remove(trial.await_stopping(pod))
    await_value(lambda: not trial.pods(uid), what="its pod is gone")
    await_value(lambda: not stage.api.items(JOB.path(stage.namespace), labelSelector=f"{c.JOB_UID_LABEL}={uid}"), what="its Job is gone")


def test_the_page_says_which_fields_may_change(stage: Scene) -> None:
    page = (Path(argocd.ROOT) / "docs/how-to/gitops.md").read_text(encoding="utf-8")
    trial = stage.trial("may-change", spec__activeDeadlineSeconds=600)
    trial.submit()
    changes: dict[str, Any] = {
        "suspend": True,
        "ttlSecondsAfterFinished": 60,
        "activeDeadlineSeconds": 700,
        "retry.maxAttempts": 9,
        "retry.maxPreemptions": 99,
    }
    for field, value in changes.items():
        assert re.search(rf"`(spec\.)?{re.escape(field)}`", page)
        trial.edit(**{field.replace(".", "__"): value})
