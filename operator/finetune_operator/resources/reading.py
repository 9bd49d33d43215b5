"""The batch/v1 Job that reads for a user what a job left: no right, no token, no address; one claim, mounted read-only, and its own log.

Its slices are init containers, all but the last: they run one after the other, so that the pod asks for the resources of one of them,
whatever their number, and none begins before the first has found that the files are what was published.
"""

from __future__ import annotations

from dataclasses import replace

from finetune_api import constants as c
from finetune_api.plan import plan
from finetune_api.reading import Reading, ReadRequest, What, asked_for, part_of
from finetune_api.v1alpha1.status import Artifact
from finetune_operator import names
from finetune_operator.resources import storage
from finetune_operator.resources.job import JobParts, Part, container_spec, job_manifest, plan_runtime, pod_config, pod_spec


def build_read_job(parts: JobParts, request: ReadRequest, artifacts: list[Artifact]) -> Part:
    """Return the Job for a request. artifacts: of the job, as its status has them."""
    parts, runtime = replace(parts, endpoint=None), parts.snapshot.spec  # it has no progress
    slices = part_of(request, artifacts)
    of_artifacts = request.what is not What.LOGS
    volumes, mounts = storage.to_read(parts.manifest, parts.job, runtime, artifacts=of_artifacts)
    containers = [
        container_spec(
            parts,
            f"slice-{number}",
            (names.READ, "--config", c.CONFIG_FILE, "--slice", str(number)),
            runtime.resources.report,
            mounts,
        )
        for number in slices
    ]
    # Nothing is known of a claim that is there: it is taken for one node's, that on which the job ran.
    elsewhere = of_artifacts and parts.job.spec.output.uri is not None
    pod = pod_spec(
        parts,
        {"initContainers": containers[:-1], "containers": containers[-1:]} if len(containers) > 1 else {"containers": containers},
        volumes,
        placed=elsewhere or not storage.is_shared(runtime),
    )
    last = plan(parts.job, runtime=plan_runtime(parts)).segments[-1]
    reading = Reading(what=request.what, artifacts=asked_for(request.what, artifacts), first=slices.start)
    told = last.model_copy(update={"pod": pod_config(parts, 1), "reading": reading, "secret_files": {}})
    metadata = parts.manifest["metadata"]
    return job_manifest(
        parts,
        names.read_job_name(metadata["name"], metadata["uid"], request.id),
        {c.SEGMENT_LABEL: names.READ, c.READ_LABEL: request.id},
        told,
        pod,
        activeDeadlineSeconds=c.READ_SECONDS,
        ttlSecondsAfterFinished=c.READ_SECONDS,
    )
