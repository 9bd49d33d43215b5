"""Argo CD and kstatus say of a job in every state what the documentation says that they say."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from finetune_api.cel import evaluate
from scripts import argocd
from tests.gitops.judge import SCRIPTS, Judge, ScriptError, patched
from tests.gitops.rows import PAGE, ROWS
from tests.gitops.states import DELETED, EDITED, FAILED, NEW, REFUSED, SUCCEEDED, SUSPENDED, State, states
from tests.unit.operator.worlds import job, runtime

STATES: Final = list(states())


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def found(name: str) -> State:
    return next(state for state in STATES if state.name == name)


def test_every_row_of_the_table_has_a_state() -> None:
    assert ROWS.keys() == {state.row for state in STATES}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_both_say_what_the_table_says(judge: Judge, state: State) -> None:
    assert (judge.health(state.manifest)[0], judge.kstatus(state.manifest)[0]) == ROWS[state.row]


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"conditions": None}, {"phase": "Running"}], ids=str)
def test_a_job_without_conditions_is_in_progress_for_argo(judge: Judge, status: Any) -> None:
    manifest = job() if status is None else job(status=status)
    assert judge.health(manifest) == ("Progressing", "no operator has looked at it yet")
    assert judge.actions(manifest) == {"suspend": True, "resume": False, "retry": False}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("running, with progress", "stage task, 41 %, 1h0m left; Training: pod "),
        ("queued", "Queued: Job "),
        ("backs off after no progress", "no step ended for 30 minutes"),
        ("its runtime is not there", "RuntimeNotFound: "),
        ("failed for its data", "DataInvalid: "),
        ("failed for its data", "Correct what the message lists"),
        ("succeeded", "Succeeded: 1 artifact was published"),
        ("suspended", "CheckpointVerified: its newest checkpoint is verified"),
    ],
)
def test_the_message_tells_what_a_person_would_ask(judge: Judge, name: str, words: str) -> None:
    assert words in judge.health(found(name).manifest)[1]


def test_a_runtime_is_healthy_as_soon_as_it_is_there(judge: Judge) -> None:
    manifest = runtime()
    assert (judge.health(manifest)[0], judge.kstatus(manifest)[0]) == ("Healthy", "Current")
    manifest["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert (judge.health(manifest)[0], judge.kstatus(manifest)[0]) == ("Progressing", "Terminating")


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_actions_are_offered_where_they_mean_something(judge: Judge, state: State) -> None:
    over = state.row in (SUCCEEDED, FAILED, DELETED) or "after the end" in state.name
    asks = state.manifest["spec"].get("suspend") is True
    assert judge.actions(state.manifest) == {"suspend": not over and not asks, "resume": not over and asks, "retry": state.row == FAILED}
    assert asks or state.row != SUSPENDED


def test_suspend_and_resume_change_nothing_else(judge: Judge) -> None:
    manifest = found("running").manifest
    manifest = {**manifest, "spec": {**manifest["spec"], "tokenizer": {}, "references": {"secrets": [], "claims": []}}}
    for action, value in (("suspend", True), ("resume", False)):
        expected = {**manifest, "spec": {**manifest["spec"], "suspend": value}}
        assert patched(judge.act(action, manifest), manifest) == expected


def test_retry_makes_the_same_job_under_a_new_name(judge: Judge) -> None:
    failed = found("failed for its data").manifest
    spec = {**failed["spec"], "tokenizer": {}, "evaluation": {"gates": []}, "seed": 4294967295, "suspend": False}
    labels = {"app.kubernetes.io/instance": "training"}
    failed = {**failed, "metadata": {**failed["metadata"], "labels": labels, "annotations": labels}, "spec": spec}
    (made,) = judge.act("retry", failed)
    assert made["operation"] == "create"
    metadata = made["resource"]["metadata"]
    assert re.fullmatch(r"example-\d{10}", metadata.pop("name"))
    owner = {key: failed[key] for key in ("apiVersion", "kind")} | {key: failed["metadata"][key] for key in ("name", "uid")}
    assert metadata == {"namespace": failed["metadata"]["namespace"], "ownerReferences": [owner]}
    assert made["resource"]["spec"] == {name: value for name, value in spec.items() if name not in ("tokenizer", "evaluation", "suspend")}


def test_retry_is_not_offered_where_the_name_would_be_too_long(judge: Judge) -> None:
    failed = found("failed for its data").manifest
    for length, offered in ((52, True), (53, False)):
        named = {**failed, "metadata": {**failed["metadata"], "name": "n" * length}}
        assert judge.actions(named)["retry"] is offered


@pytest.mark.parametrize("library", ["string", "math", "os", "io", "debug", "coroutine"])
def test_scripts_run_without_libraries_that_argo_cd_lacks(judge: Judge, library: str, tmp_path: Any) -> None:
    script = tmp_path / "health.lua"
    script.write_text(f"return {{ there = {library} ~= nil }}")
    assert judge.run(script, job()) == {"there": False}
    script.write_text("return { short = ('text'):sub(1, 2) }")
    with pytest.raises(ScriptError, match="attempt to index"):
        judge.run(script, job())


def test_the_config_map_holds_these_very_scripts() -> None:
    assert argocd.CONFIG_MAP.read_text(encoding="utf-8") == argocd.config_map(), "run `make generate` and commit it"
    data = yaml.safe_load(argocd.config_map())["data"]
    for kind in ("FineTuneJob", "ClusterFineTuneRuntime"):
        assert data.pop(f"resource.customizations.health.finetune.dev_{kind}") == (SCRIPTS / kind / "health.lua").read_text(
            encoding="utf-8"
        )
    actions = yaml.safe_load(data.pop("resource.customizations.actions.finetune.dev_FineTuneJob"))
    folder = SCRIPTS / "FineTuneJob/actions"
    assert actions.pop("discovery.lua") == (folder / "discovery.lua").read_text(encoding="utf-8")
    for definition in actions.pop("definitions"):
        assert definition.pop("action.lua") == (folder / definition.pop("name") / "action.lua").read_text(encoding="utf-8")
        assert not definition
    assert not actions and not data


@pytest.mark.parametrize("state", [state for state in STATES if state.row not in (EDITED, DELETED)], ids=lambda state: state.name)
def test_the_expressions_for_flux_wait_until_a_job_is_accepted(state: State) -> None:
    """Flux asks `failed` before `current`; where neither holds, it waits."""
    (block,) = re.findall(r"^  ```yaml\n  (healthCheckExprs:\n.*?)^  ```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (asked,) = yaml.safe_load(textwrap.dedent(f"  {block}"))["healthCheckExprs"]
    assert (asked["apiVersion"], asked["kind"]) == (state.manifest["apiVersion"], state.manifest["kind"])
    names = {"status": state.manifest["status"]}
    found = "Failed" if evaluate(asked["failed"], names) else "Current" if evaluate(asked["current"], names) else "InProgress"
    assert found == {NEW: "InProgress", REFUSED: "Failed", FAILED: "Failed"}.get(state.row, "Current")
