"""The command as a user starts it: help, misspellings, exit codes, and what validate must not import."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.constants import ExitCode
from finetune_cli.__main__ import program
from finetune_cli.app import EXIT_CODES
from finetune_cli.errors import ClusterExit, CommandError
from finetune_cli.outline import outline
from finetune_cli.plan import show
from finetune_cli.reference import page
from finetune_cli.report import find, is_here, report, there
from finetune_cli.request import RunRequest
from finetune_cli.run import load_one, planned_for
from tests.unit.cli.manifests import BAD, GOOD


def finetune(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "finetune_cli", *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


# (arguments, exit code, words on either output)
COMMANDS = [
    (["--help"], 0, ["validate", "plan", "report", "Exit codes:", " 75  stopped by Ctrl-C", "--install-completion"]),
    (["run", "--help"], 0, ["Examples:", "finetune run job.yaml --mount models=/srv/models", "--run-folder"]),
    (["run", "job.yaml", "--lr-steps", "50"], 10, ["belong to --lr-range", "→ Add --lr-range."]),
    (["rnu"], 2, ["No such command 'rnu'", "Did you mean 'run'?"]),
    (["run", "job.yaml", "--theads", "3"], 2, ["--theads", "--threads"]),
    (["validate"], 2, ["FILES"]),
    (["validate", "job.yaml"], 0, ["job.yaml: valid (birds: 2 stages)"]),
    (
        ["validate", "bad.yaml", "job.yaml"],
        10,
        ["bad.yaml:5: error: spec.model.revision", "bad.yaml: not valid (8 errors)", "job.yaml: valid"],
    ),
    (["validate", "none.yaml"], 10, ["there is no such file"]),
    (["run", "bad.yaml"], 10, ["bad.yaml:6: error: spec.seed", "error: bad.yaml is not valid: nothing was started"]),
    (
        ["run", "job.yaml", "--mount", "models"],
        10,
        ["error: --mount models: expected NAME=PATH", "→ For instance: --mount models=/srv/models"],
    ),
    (["run", "job.yaml", "--threads", "0"], 2, ["--threads"]),
    (["plan", "job.yaml"], 0, ["segment 1, train: domain, task", "gate: words perplexity at least 5 % better than base"]),
    (["report", "./nowhere"], 10, ["error: there is no run folder nowhere", "→ Start a run with: finetune run job.yaml"]),
    (["report", "nowhere", "--kubeconfig", "missing"], 7, ["error: there is no kubeconfig (missing)"]),
    (["get-model", "nowhere", "model", "--kubeconfig", "missing"], 7, ["error: there is no kubeconfig (missing)"]),
    (["get-model", "nowhere", "model", "--timeout", "soon"], 2, ["error: --timeout soon: this is no duration"]),
    (["version"], 0, ["finetune-operator", "pydantic"]),
    (["watch", "--help"], 0, ["Show jobs as they go, with bars", "--all-namespaces", "finetune watch support-intents"]),
    (["apply"], 2, ["error: no manifest is named", "→ For instance: finetune apply -f job.yaml"]),
    (["apply", "-f", "bad.yaml", "--context", "none"], 10, ["bad.yaml:6: error: spec.seed", "in bad.yaml: nothing was applied"]),
    (["wait", "birds", "--for", "Compleet"], 2, ["error: --for Compleet: there is no such condition", "Did you mean Complete?"]),
    (["--show-completion", "bash"], 0, ["_FINETUNE_COMPLETE"]),
]


@pytest.mark.parametrize(("arguments", "code", "words"), COMMANDS, ids=[" ".join(case[0]) for case in COMMANDS])
def test_a_command_answers(tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    (tmp_path / "job.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    done = finetune(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr
    for part in words:
        assert part in said
    assert "Traceback" not in said
    assert "\x1b" not in said


def test_validate_reads_standard_input(tmp_path: Path) -> None:
    done = finetune("validate", "-", "-o", "json", cwd=tmp_path, stdin=GOOD)
    assert json.loads(done.stdout) == [{"file": "-", "valid": True, "jobs": ["birds"], "runtimes": [], "problems": []}]


@pytest.mark.parametrize(
    ("path", "name"), [("/usr/bin/kubectl-finetune", "kubectl finetune"), ("/usr/bin/finetune", "finetune"), ("__main__.py", "finetune")]
)
def test_the_program_has_the_name_that_was_typed(path: str, name: str) -> None:
    assert program(path) == name


def test_without_the_package_for_clusters_a_command_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['kubernetes'] = None; sys.argv = ['finetune', 'get']; from finetune_cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "error: the package kubernetes, which speaks to clusters, is not installed here",
            "  → Install it with: pip install 'finetune-operator[cli,client]'",
        ],
    )


def test_validate_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GOOD)
    code = """
import sys
from finetune_cli.__main__ import main
sys.argv = ["finetune", "validate", "job.yaml"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(sorted({"torch", "transformers", "numpy", "rich", "kubernetes", "huggingface_hub"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["job.yaml: valid (birds: 2 stages)", "[]"]


def test_every_exit_code_is_documented() -> None:
    assert {int(code) for code in (*ExitCode, *ClusterExit)} <= {code for code, _ in EXIT_CODES}


def test_the_reference_page_is_the_one_that_the_commands_give() -> None:
    assert (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text() == page(), "run make generate, and commit the page"


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    (tmp_path / "job.yaml").write_text(GOOD)
    return RunRequest(manifest=str(tmp_path / "job.yaml"), run_folder=tmp_path / "run", threads=2)


def test_the_plan_as_a_document_has_every_stage_once_with_its_defaults(request_: RunRequest) -> None:
    job = load_one(request_.manifest, stdin=io.BytesIO(), stderr=io.StringIO())
    document = outline(planned_for(request_, job))
    assert [(segment["kind"], len(segment["stages"])) for segment in document["segments"]] == [("prepare", 2), ("train", 2)]
    task = document["segments"][1]["stages"][1]
    assert (task["training"]["learningRate"], task["training"]["numTrainEpochs"], task["method"]["lora"]["r"]) == (1e-4, 1.0, 16)
    assert document["evaluation"]["points"] == ["base", "after domain", "after task"]


@pytest.mark.parametrize(("output", "load"), [("json", "json"), ("yaml", "yaml")])
def test_both_forms_of_the_plan_say_the_same(request_: RunRequest, output: str, load: str) -> None:
    import yaml

    out = io.StringIO()
    show(request_, output, stdin=io.BytesIO(), stdout=out, stderr=io.StringIO())
    job = load_one(request_.manifest, stdin=io.BytesIO(), stderr=io.StringIO())
    assert (json.loads if load == "json" else yaml.safe_load)(out.getvalue()) == outline(planned_for(request_, job))
    assert not (request_.run_folder or Path()).exists()


def made(folder: Path) -> Path:
    (folder / "artifacts").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "artifacts" / "report.html").write_text("<html>")
    return folder


def test_report_prints_the_path_and_opens_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    writes = [sys.executable, "-c", "import sys; print('writing'); print(sys.argv[1] + '/artifacts/report.html')"]
    opened: list[str] = []
    out = io.StringIO()
    assert report(folder, open_it=True, command=writes, open_url=lambda url: not opened.append(url), stdout=out) == 0
    path = folder / "artifacts" / "report.html"
    assert (out.getvalue(), opened) == (f"{path}\n", [path.as_uri()])


def test_a_report_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    err = io.StringIO()
    report(made(tmp_path), open_it=True, command=[sys.executable, "-c", ""], open_url=lambda url: False, stdout=io.StringIO(), stderr=err)
    assert err.getvalue() == "No browser could be started here: open the file above in one.\n"


@pytest.mark.parametrize(
    ("run", "on_cluster", "here"),
    [
        ("made", False, True),
        ("made", True, False),
        ("nested", False, True),
        ("lamp", False, False),
        ("./lamp", False, True),
        ("a/b", False, True),
        ("Lamp", False, True),
    ],
)
def test_a_report_is_of_a_run_here_or_of_a_job_there(
    run: str, on_cluster: bool, here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "runs" / "nested").mkdir(parents=True)
    assert is_here(run, on_cluster=on_cluster) is here


@pytest.mark.parametrize(
    ("on_cluster", "says"), [(True, "no connection"), (False, "there is no run folder lamp, and no job: no connection")]
)
def test_where_no_cluster_answers_both_are_said(on_cluster: bool, says: str) -> None:
    with pytest.raises(CommandError) as caught, there("lamp", on_cluster=on_cluster):
        raise CommandError("no connection", hint="Is it up?", exit_code=ClusterExit.UNREACHABLE)
    assert (caught.value.message, caught.value.exit_code, "Is it up?" in caught.value.hint) == (says, 7, True)


def test_a_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        report(made(tmp_path), command=[sys.executable, "-c", "import sys; print('the curve is damaged', file=sys.stderr); sys.exit(11)"])
    assert (caught.value.exit_code, caught.value.message) == (11, "the report could not be written:\nthe curve is damaged")


def test_a_run_is_found_by_folder_or_by_name_and_else_the_runs_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "runs" / "birds")
    (tmp_path / "job.yaml").write_text(GOOD)
    with contextlib.chdir(tmp_path):
        assert find(folder) == folder
        assert find(Path("birds")) == folder
        for run, words in (("fish", "there is no run folder fish"), (".", "is no run folder"), ("job.yaml", "is a file, not a run folder")):
            with pytest.raises(CommandError, match=words):
                find(Path(run))
        with pytest.raises(CommandError) as caught:
            find(Path("fish"))
    assert caught.value.hint == "Runs here: runs/birds"
