"""A termination message is whole JSON of at most 4,096 bytes, whatever there is to say; the pages of a report say all of it."""

from __future__ import annotations

import random
import string

import pytest

from finetune_api.constants import REPORT_PAGES, ExitCode, Reason
from finetune_api.v1alpha1.status import Artifact, CheckpointStatus, EvaluationStatus, Phase, Provenance, StageScore, StageStatus
from finetune_api.wire import ResultPage, RunResult, StageResult, read_pages
from finetune_trainer import message
from finetune_trainer.logs import Masking, last_lines

HASH = "0123456789abcdef" * 4


def result(*, stages: int = 2, suites: int = 6, uri: str = "pvc://runs/team-a/job", text: str = "", log: int = 0) -> RunResult:
    names = [f"stage-{index}" for index in range(stages)]
    checkpoint = CheckpointStatus(step=400, uri=f"{uri}/epochs/0001/stages/0-a/checkpoint-00000400", sha256=HASH, verified=True)
    return RunResult(
        outcome="Failed" if text else "Succeeded",
        exit_code=ExitCode.GATE_FAILED if text else ExitCode.SUCCESS,
        reason=Reason.GATE_FAILED if text else None,
        stage=names[-1] if text else None,
        message=text,
        hint=text,
        stages=[
            StageResult(
                status=StageStatus(name=name, phase=Phase.SUCCEEDED, attempts=1, metrics={"eval_loss": 1.25}, checkpoint=checkpoint),
                steps=400,
            )
            for name in names
        ],
        evaluation=[
            EvaluationStatus(
                suite=f"suite-{number}",
                metric="perplexity",
                baseline=10.12345678901234 + number,
                stages=[
                    StageScore(stage=name, value=5.12345678901234 + number, low=5.01234567890123, high=5.23456789012345) for name in names
                ],
                gate="Passed",
            )
            for number in range(suites)
        ],
        artifacts=[
            Artifact.model_validate({"kind": kind, "uri": f"{uri}/artifacts/{name}", "sha256": HASH, "bytes": size, **more})
            for kind, name, size, more in (
                ("adapter", "adapter", 10**9, {"weightsSha256": HASH}),
                ("merged", "merged", 10**9, {"weightsSha256": HASH}),
                ("modelCard", "README.md", 3000, {}),
                ("report", "report.html", 300_000, {}),
            )
        ],
        provenance=Provenance.model_validate(
            {"modelRevision": HASH, "datasetHashes": {f"pvc://data/{n}.jsonl": HASH for n in range(4)}, "seed": 7}
        ),
        log_tail=["x" * 99 for _ in range(log)],
    )


FITTING = {
    # what there is to say: whether all of it fits, whether the artifacts do
    "one stage, one suite": (result(stages=1, suites=1), True, True),
    "two stages, six suites": (result(), True, True),
    "two stages, twelve suites": (result(suites=12), False, True),
    "sixteen stages, 32 suites": (result(stages=16, suites=32), False, True),
    "a failure with a full log": (result(suites=0, text="a gate was missed", log=10), True, True),
    "a message of 30,000 bytes": (result(suites=1, text="ö" * 15_000, log=10), False, True),
    "folders with long names": (result(uri="pvc://runs/" + "a" * 900), False, False),
    "everything at once": (result(stages=16, suites=32, uri="pvc://runs/" + "ä" * 450, text='\\"' * 9000, log=10), False, False),
}


@pytest.mark.parametrize("case", FITTING)
def test_it_fits_and_is_whole(case: str) -> None:
    whole, complete, artifacts = FITTING[case]
    told = message.fitted(whole)
    data = message.encoded(told)
    assert len(data) <= message.LIMIT
    read = RunResult.model_validate_json(data)
    assert (read.outcome, read.exit_code, read.reason, read.stage) == (whole.outcome, whole.exit_code, whole.reason, whole.stage)
    assert read.truncated is not complete
    assert bool(read.artifacts) is artifacts
    if complete:
        assert read.model_copy(update={"evaluation": []}) == whole.model_copy(update={"evaluation": []})
        assert [round(one.stages[-1].value or 0, 4) for one in read.evaluation] == [
            round(one.stages[-1].value or 0, 4) for one in whole.evaluation
        ]


def test_figures_get_six_digits_before_any_is_left_out() -> None:
    assert len(message.encoded(result(suites=8))) > message.LIMIT
    told = message.fitted(result(suites=8))
    assert (told.truncated, told.evaluation[7].baseline, told.evaluation[7].stages[0].value) == (False, 17.1235, 12.1235)
    assert message.fitted(result(suites=1)).evaluation[0].baseline == 10.12345678901234


def test_the_log_goes_last() -> None:
    told = message.fitted(result(suites=12, text="a gate was missed", log=10))
    assert (len(told.log_tail), told.evaluation, told.provenance) == (10, [], None)


def test_a_log_that_does_not_fit_keeps_its_last_lines() -> None:
    told = message.fitted(result(suites=2, stages=16, text="w" * 2000, log=20))
    assert told.log_tail == ["x" * 99] * 10
    assert len(message.encoded(told)) <= message.LIMIT


def test_a_cut_message_keeps_its_beginning_and_its_end() -> None:
    cut = message.shortened("first " + "ö" * 3000 + " last")
    assert cut.startswith("first ö") and cut.endswith("ö last") and len(cut.encode()) <= 900


@pytest.mark.parametrize("case", FITTING)
def test_pages_tell_everything(case: str) -> None:
    whole = FITTING[case][0]
    told = [message.page(whole, number).model_dump_json() for number in range(REPORT_PAGES)]
    assert all(len(page.encode()) <= message.LIMIT for page in told)
    assert read_pages([ResultPage.model_validate_json(page) for page in reversed(told)]) == whole


def test_a_result_beyond_all_pages_keeps_what_it_can() -> None:
    dice = random.Random(1)
    noise = {"".join(dice.choices(string.ascii_letters, k=250)): dice.random() for _ in range(32)}
    huge = result(stages=16, suites=512)
    stages = [stage.model_copy(update={"status": stage.status.model_copy(update={"metrics": noise})}) for stage in huge.stages[:1]]
    told = read_pages(message.pages(huge.model_copy(update={"stages": stages})))
    assert told.truncated and 0 <= len(told.evaluation) < 512 and told.artifacts == huge.artifacts


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ([], "not the whole"),
        ([ResultPage(page=1, pages=2, data="")], "not the whole"),
        ([ResultPage(page=0, pages=2, data="eJw=")], "not the whole"),
        ([ResultPage(page=0, pages=1, data="AAAA")], "damaged"),
        ([ResultPage(page=0, pages=1, data="?")], "base64"),
    ],
)
def test_pages_that_are_missing_or_damaged(pages: list[ResultPage], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_pages(pages)


@pytest.mark.parametrize(
    ("lines", "limit", "kept"),
    [
        (["a", "b"], 100, ["a", "b"]),
        (["a", "b"], 2, ["b"]),
        (["a\nb", "c"], 4, ["b", "c"]),
        (["xxxxxxxxxx"], 5, ["xxxx"]),
        (["ö" * 10], 6, ["öö"]),
        ([], 10, []),
    ],
)
def test_the_end_of_a_log(lines: list[str], limit: int, kept: list[str]) -> None:
    assert last_lines(lines, limit) == kept


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the token is s3cret-value, no?", "the token is ***, no?"),
        ("hf_AbCdEfGhIjKlMnOpQrStUv was refused", "*** was refused"),
        ("GET https://user:pass@example.com/a", "GET https://***@example.com/a"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
        ("a word", "a word"),
    ],
)
def test_secrets_are_masked(text: str, shown: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text("s3cret-value\n")
    mask = Masking()
    mask.learn({"hub": str(token), "gone": "/nowhere"})
    assert mask(text) == shown
