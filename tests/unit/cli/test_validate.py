"""`finetune validate`: every problem of every file at once, each with its place and what to write instead."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from finetune_cli.manifests import check_text
from finetune_cli.terminal import coloured, paint_for, plain
from finetune_cli.validate import as_json, as_text, check_all, exit_code
from tests.unit.cli.manifests import BAD, CONFIG_MAP, GOOD, RUNTIME, renamed

# (path, line, words of the message, words of the hint)
PROBLEMS = [
    ("spec.model.revision", 5, "a text is needed", 'write "123" in quotes'),
    ("spec.seed", 6, "-1", "at least 0"),
    ("spec.seed", 7, "twice (first on line 6)", "Keep one"),
    ("spec.stages[0].objective", 10, "causalLanguageModelling", "causalLanguageModeling"),
    ("spec.stages[0].trianing", 13, "no such field", "training"),
    ("spec.stages[1].data.labels[0]", 17, "a text is needed", 'write "yes" in quotes'),
    ("spec.stages[1].data.labels[1]", 17, "a text is needed", 'write "no" in quotes'),
    ("spec.stages[1].handOver", 19, "", ""),
]


def test_every_problem_of_a_manifest_is_told_at_once_with_its_line() -> None:
    checked = check_text("job.yaml", BAD)
    assert checked.jobs == []
    found = [(finding.path, finding.line) for finding in checked.findings if finding.severity == "error"]
    assert found == [(path, line) for path, line, _, _ in PROBLEMS]
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    for finding, (_, _, message, hint) in zip(errors, PROBLEMS, strict=True):
        assert message in finding.message
        assert hint in finding.hint


def test_the_text_reads_as_compilers_write_it() -> None:
    text = as_text([check_text("job.yaml", BAD)], plain).splitlines()
    assert text[0].startswith("job.yaml:5: error: spec.model.revision: ")
    assert text[1] == '    → YAML does not read 123 as text: write "123" in quotes.'
    assert text[-1] == "job.yaml: not valid (8 errors)"


GOOD_SOURCES = [
    ("yaml", GOOD, ["birds"]),
    ("two jobs", f"{GOOD}---\n{renamed('fish')}", ["birds", "fish"]),
    ("beside other kinds", f"{CONFIG_MAP}---\n{GOOD}---\n# nothing\n", ["birds"]),
]


@pytest.mark.parametrize(("text", "names"), [case[1:] for case in GOOD_SOURCES], ids=[case[0] for case in GOOD_SOURCES])
def test_valid_files(text: str, names: list[str]) -> None:
    checked = check_text("job.yaml", text)
    assert [job.metadata.name for job in checked.jobs] == names
    assert checked.errors == 0
    assert exit_code([checked]) == 0
    assert as_text([checked], plain).splitlines()[-1].startswith("job.yaml: valid (birds: 2 stages")


RUNTIMES = [
    # a change to a good one, the last line, what is found
    ("", "", "runtime.yaml: valid (torch-cuda: runtime)", None),
    ("@sha256:" + "0" * 64, ":latest", "runtime.yaml: not valid (1 error)", ("spec.image", 6)),
    ("claimTemplate", "claimTemplat", "runtime.yaml: not valid (1 error)", ("spec.storage.claimTemplat", 7)),
    ("kind: ClusterFineTuneRuntime", "kind: ClusterFinetuneRuntime", "runtime.yaml: not valid (1 error)", ("kind", 2)),
]


@pytest.mark.parametrize(("old", "new", "verdict", "found"), RUNTIMES)
def test_a_runtime_is_checked_too(old: str, new: str, verdict: str, found: tuple[str, int] | None) -> None:
    checked = check_text("runtime.yaml", RUNTIME.replace(old, new))
    assert [(finding.path, finding.line) for finding in checked.findings] == ([found] if found else [])
    assert as_text([checked], plain).splitlines()[-1] == verdict
    assert json.loads(as_json([checked]))[0]["runtimes"] == ([] if found else ["torch-cuda"])


def test_a_job_beside_its_runtime() -> None:
    checked = check_text("both.yaml", f"{RUNTIME}---\n{GOOD}")
    assert as_text([checked], plain) == "both.yaml: valid (birds: 2 stages, torch-cuda: runtime)"


def test_json_is_read_too() -> None:
    from finetune_cli.yaml_reader import read

    (document,) = read(GOOD)
    checked = check_text("job.json", json.dumps(document.value, indent="\t"))
    assert [job.metadata.name for job in checked.jobs] == ["birds"]


# (name, content of the file or None for none, words of the one error)
FILES: list[tuple[str, bytes | None, str]] = [
    ("there is none", None, "there is no such file"),
    ("empty", b"", "nothing in it"),
    ("only a comment", b"# later\n", "nothing in it"),
    ("of other kinds", CONFIG_MAP.encode(), "no FineTuneJob in it (found: ConfigMap)"),
    ("a list", b"- 1\n- 2\n", "a manifest is a mapping, and this is a list"),
    ("a sentence", b"fine tune my model please\n", "a manifest is a mapping, and this is the text"),
    ("a tab", b"a:\n\tb: 1\n", "a tab stands in the indentation"),
    ("UTF-16", GOOD.encode("utf-16"), "is UTF-16"),
    ("Latin-1", b"a: 1\n# \xe4\xf6\n", "is not UTF-8 text"),
    ("NUL", b"a: \0", "a NUL byte"),
    ("huge", b"a: 1\n" * 250_000, "is larger than 1 MiB"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_what_is_no_manifest_is_one_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    checked = check_all([str(path)], io.BytesIO())
    errors = [finding for finding in checked[0].findings if finding.severity == "error"]
    assert len(errors) == 1
    assert message in errors[0].message
    assert exit_code(checked) == 10


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert exit_code(check_all([str(path)], io.BytesIO())) == 0


def test_a_folder_and_a_near_name_are_explained(tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text(GOOD)
    folder, near = check_all([str(tmp_path), str(tmp_path / "job.yaml")], io.BytesIO())
    assert (folder.findings[0].message, folder.findings[0].hint) == (
        "is a folder",
        f"Name the files in it, for instance {tmp_path}/*.yaml.",
    )
    assert near.findings[0].hint == f"Did you mean {tmp_path}/job.yml?"


def test_an_unreadable_file_is_explained(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    (checked,) = check_all([str(loop)], io.BytesIO())
    assert checked.findings[0].message.startswith("can't be read: ")


def test_many_files_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(BAD)
    checked = check_all([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"), "-"], io.BytesIO(renamed("fish").encode()))
    assert [one.errors > 0 for one in checked] == [False, True, False]
    assert exit_code(checked) == 10
    assert as_text(checked, plain).splitlines()[-1] == "standard input: valid (fish: 2 stages)"


def test_two_jobs_of_one_name_are_a_warning(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    first, second = check_all([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], io.BytesIO())
    assert first.findings == []
    assert [(finding.severity, finding.path) for finding in second.findings] == [("warning", "metadata.name")]
    assert exit_code([first, second]) == 0


def test_json_output_is_for_programs() -> None:
    (document,) = json.loads(as_json([check_text("job.yaml", BAD)]))
    assert document["valid"] is False
    assert document["problems"][1]["line"] == 6
    assert set(document["problems"][0]) == {"source", "line", "severity", "path", "message", "hint"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "paint"),
    [
        (Terminal(), {}, coloured),
        (Terminal(), {"NO_COLOR": "1"}, plain),
        (Terminal(), {"NO_COLOR": ""}, coloured),
        (Terminal(), {"TERM": "dumb"}, plain),
        (io.StringIO(), {}, plain),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream: io.StringIO, environment: dict[str, str], paint: object) -> None:
    assert paint_for(stream, environment) is paint
