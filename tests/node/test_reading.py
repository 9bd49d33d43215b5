"""What a job left reaches a user through the logs of real pods: by a real kubelet, which rotates them, and with no right but the chart's roles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune_api import constants as c
from finetune_api.reading import SLICE_BYTES
from finetune_trainer.export.place import measured
from tests.cluster.api import Object
from tests.cluster.pods import await_value, pod_path
from tests.node.commands import Person
from tests.node.jobs import Job
from tests.node.life import NAME, Life
from tests.node.platform import PATIENCE

LARGE = 2 * SLICE_BYTES + 1_000_000
"""Bytes that make three slices: two of them as long as any."""


@pytest.fixture
def left(followed: Life) -> Job:
    """A job that has succeeded."""
    return followed.job


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_reading(job: Job) -> Object:
    return {name: value for name, value in job.status().items() if name != "lastRead"}


def test_the_report_and_the_model_arrive_as_they_lie_on_the_volume(left: Job, person: Person, tmp_path: Path) -> None:
    before, artifacts = without_reading(left), left.run_folder / "artifacts"
    person.does("report", NAME, "--dir", str(tmp_path / "report"), "--timeout", f"{PATIENCE}s")
    assert contents(tmp_path / "report") == {name: (artifacts / name).read_bytes() for name in ("report.html", "README.md")}
    kind = next(artifact["kind"] for artifact in before["artifacts"] if artifact["kind"] in ("adapter", "merged"))
    person.does("get-model", NAME, str(tmp_path / "model"), "--kind", kind, "--timeout", f"{PATIENCE}s")
    assert contents(tmp_path / "model") == contents(artifacts / kind)
    assert without_reading(left) == before, "reading costs no attempt and changes no phase"
    assert c.READ_ANNOTATION not in left.get()["metadata"].get("annotations", {})


def test_slices_as_long_as_any_are_not_rotated_away(left: Job, person: Person, tmp_path: Path) -> None:
    """The status is edited, as only its tests may: it names an artifact of three slices that the job did not make."""
    folder = left.run_folder / "artifacts/adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(LARGE))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    digest, size = measured(folder)
    artifact = {"kind": "adapter", "uri": f"pvc://x/{folder.name}", "sha256": digest, "bytes": size}
    status = {"artifacts": [*left.status()["artifacts"], artifact]}
    left.platform.cluster.api.patch(f"{left.path}/status", {"status": status})
    person.does("get-model", NAME, str(tmp_path / "large"), "--timeout", f"{PATIENCE}s")
    assert contents(tmp_path / "large") == contents(folder)


def test_logs_are_found_when_no_pod_is_left(left: Job, person: Person) -> None:
    for pod in left.pods():
        left.platform.cluster.api.delete(pod_path(pod), grace=0)
    await_value(lambda: not left.pods(), what="the pods' end", timeout=PATIENCE)
    done = person("logs", NAME)
    assert done.returncode == 0, done.stderr
    newest = max((left.run_folder / "logs").glob("*.log"))
    assert done.stdout.splitlines()[-1] == newest.read_text().splitlines()[-1]
    assert f"==> {newest.name}, from the run folder <==" in done.stderr
    assert left.status()["phase"] == "Succeeded"


def test_a_deleted_job_is_gone_and_its_model_stays(left: Job, person: Person) -> None:
    """The last of this module: output.retain is Always, so the claim stays when the job is deleted."""
    model, uid = left.run_folder / "artifacts/merged/model.safetensors", left.uid
    assert person.does("delete", NAME) == f"finetunejob.finetune.dev/{NAME} deleted\n"
    left.await_gone(uid)
    assert model.exists()
