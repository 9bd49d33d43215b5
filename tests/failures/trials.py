"""Plays a failure and follows its hint: one function a level, each returns what was told and says by raising whether the mended job passes."""

from __future__ import annotations

import io
import json

import yaml

from finetune_api.constants import ExitCode, Reason
from finetune_api.plan import Runtime, plan
from finetune_cli.manifests import check
from finetune_cli.validate import as_json, check_all, exit_code
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial
from tests.builders import Document, edited
from tests.failures.base import Told
from tests.failures.cluster_failures import ClusterFailure
from tests.failures.ground import Ground
from tests.failures.manifest_failures import ManifestFailure
from tests.failures.pod_failure import PodFailure, said_of
from tests.failures.run_failure import RunFailure
from tests.failures.site import Site
from tests.node.platform import PATIENCE


class NotMended(AssertionError):
    """The hint was followed, and the job still does not pass."""


def try_manifest(failure: ManifestFailure) -> Told:
    """Validate it as the command does; then the mended manifest, which must be valid and have a plan."""
    broken = edited(failure.base, failure.edits)
    checked = check_all(["-"], _file(broken))
    (document,) = json.loads(as_json(checked))
    at = next((each for each in document["problems"] if each["path"] == failure.place), None) or document["problems"][0]
    told = Told(Reason.INVALID_SPEC, f"{at['path']}: {at['message']}", at["hint"], code=exit_code(checked))
    mended = check("-", _file(edited(broken, failure.mends)))
    if mended.errors:
        raise NotMended(str(mended.findings))
    (job,) = mended.jobs
    mounts = {claim.name: "/claims" for claim in job.spec.references.claims}
    if not plan(job, runtime=Runtime(run_folder="/run", base_folder="/", mounts=mounts, secret_files={}, threads=1)).segments:
        raise NotMended("there is no plan")
    return told


def _file(document: Document) -> io.BytesIO:
    return io.BytesIO(yaml.safe_dump(document, sort_keys=False).encode())


def try_run(failure: RunFailure, ground: Ground) -> Told:
    """Run it, follow the hint, and run it again: until the same manifest's job has succeeded."""
    with ground.stack:
        failure.seed(ground)
        told = ground.run()
        if told.code == ExitCode.SUCCESS:
            raise AssertionError(f"{failure.name} was seeded, and the run succeeded")
        failure.mend(ground)
        after = ground.run()
        if after.code != ExitCode.SUCCESS:
            raise NotMended(str(after))
    return told


def try_cluster(failure: ClusterFailure, stage: Scene) -> Told:
    """Play it, follow the hint, and have the pod that comes then run to its end."""
    trial, told = failure.play(stage)
    mended = failure.mend(stage, trial)
    mended.succeed(mended.run(other=ended_pod(mended)))
    return told


def try_pod(failure: PodFailure, site: Site) -> Told:
    """Have it happen to real pods, follow the hint, and have the job of that end well."""
    job = failure.play(site)
    told = said_of(job, failure.reason)
    mended = failure.mend(site, job)
    try:
        status = mended.await_phase("Succeeded", 2 * PATIENCE)
        assert {"adapter", "merged"} & {artifact["kind"] for artifact in status.get("artifacts", [])}, "it succeeded without a model"
    except AssertionError as error:
        raise NotMended(f"it was told {told.message!r} → {told.hint!r}; {error}") from None
    return told


def ended_pod(trial: Trial) -> str:
    """The pod of this attempt that has ended before; empty where there was none."""
    attempts = trial.status.get("attempts") or []
    return next((str(each["pod"]) for each in attempts if each.get("finishedAt") and each.get("pod")), "")
