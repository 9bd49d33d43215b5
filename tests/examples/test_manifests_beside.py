"""The manifests that stand beside the runnable examples: the runtimes, and what the tutorial on a cluster applies."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime
from finetune_cli.manifests import check_text
from scripts.demo_assets import ROOT

RUNTIMES = sorted((ROOT / "examples/runtimes").glob("*.yaml"))
TUTORIAL = ROOT / "examples/tutorial"


def runtime(name: str) -> ClusterFineTuneRuntime:
    text = (ROOT / f"examples/runtimes/{name}.yaml").read_text()
    checked = check_text(name, text)
    assert [str(finding) for finding in checked.findings] == []
    (found,) = checked.runtimes
    return found


@pytest.mark.parametrize("name", [path.stem for path in RUNTIMES])
def test_a_runtime_is_valid_and_named_as_its_file(name: str) -> None:
    assert runtime(name).metadata.name == name
    assert f"kubectl apply -f examples/runtimes/{name}.yaml" in (ROOT / f"examples/runtimes/{name}.yaml").read_text()


def test_there_is_one_with_and_one_without_gpus() -> None:
    assert (runtime("cpu").spec.gpus, runtime("gpu").spec.gpus) == (0, 1)


def test_the_tutorials_job_reads_what_its_claim_is_given() -> None:
    (job,) = check_text("job.yaml", (TUTORIAL / "job.yaml").read_text()).jobs
    claim, pod = (yaml.safe_load((TUTORIAL / f"{name}.yaml").read_text()) for name in ("claim", "pod"))
    assert [reference.claim_name for reference in job.spec.references.claims] == [claim["metadata"]["name"]]
    assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
    read = [job.spec.stages[0].data.train[0].uri, job.spec.evaluation.suites[0].data.uri]
    assert read == ["pvc://data/train.jsonl", "pvc://data/test.jsonl"]


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_tutorials_rows_are_those_of_the_first_tutorial(name: str) -> None:
    rows = (TUTORIAL / f"{name}.jsonl").read_text()
    page = (ROOT / "docs/tutorial/first-run.md").read_text()
    written = re.search(rf"cat > {name}\.jsonl <<'END'\n(.*?)^END$", page, re.DOTALL | re.MULTILINE)
    assert written is not None
    assert written[1] == rows
    assert all(set(json.loads(row)) == {"prompt", "completion"} for row in rows.splitlines())
