"""What the API server refuses when the operator writes: said on the job, tried again later, never in a loop."""

from __future__ import annotations

import pytest

from finetune_operator.model import Refusal
from tests.unit.operator.worlds import UID, World

QUOTA = 'jobs.batch "x" is forbidden: exceeded quota: few-jobs, requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: count/jobs.batch=1'
ENDING = 'jobs.batch "x" is forbidden: unable to create new content in namespace team-a because it is being terminated'
POLICY = (
    "jobs.batch \"x\" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: images come from elsewhere"
)
FOREIGN = {"metadata": {"name": "x", "uid": "another", "labels": {"finetune.dev/job-uid": UID}}}


@pytest.mark.parametrize(
    ("refusal", "accepted", "reason"),
    [
        (Refusal("Job", "x", 409, "AlreadyExists", "x already exists", found=FOREIGN), "False", "NameTaken"),
        (Refusal("Job", "x", 403, "Forbidden", QUOTA), "True", "QuotaExceeded"),
        (Refusal("Job", "x", 403, "Forbidden", ENDING), "True", "NamespaceTerminating"),
        (Refusal("Job", "x", 404, "NotFound", 'namespaces "team-a" not found'), "True", "NamespaceTerminating"),
        (Refusal("Job", "x", 422, "Invalid", "spec.template.spec.affinity: Invalid value"), "False", "RuntimeInvalid"),
        (Refusal("Job", "x", 403, "Forbidden", "admission webhook says no"), "False", "AdmissionRefused"),
        (Refusal("Job", "x", 422, "Invalid", POLICY), "False", "AdmissionRefused"),
        (
            Refusal("Job", "x", 400, "BadRequest", 'admission webhook "images.example.com" denied the request: no'),
            "False",
            "AdmissionRefused",
        ),
    ],
)
def test_a_refused_write_is_told(refusal: Refusal, accepted: str, reason: str) -> None:
    world = World()
    world.refuse = refusal
    world.step(1)
    assert world.condition("Accepted")[0] == accepted
    assert world.condition("Running") == ("False", reason)
    assert world.condition("Stalled")[0] == ("True" if accepted == "False" else "False")
    assert len(world.statuses) == 1
    world.step(30)
    assert len(world.statuses) == 1, "the same refusal is told once"
    world.refuse = None
    world.settle(30)
    assert len(world.created) == 1
    world.run()
    world.settle(1)
    assert world.condition("Accepted")[0] == "True"


def test_what_a_rule_refuses_says_who_can_mend_it() -> None:
    world = World()
    world.refuse = Refusal("Job", "x", 403, "Forbidden", "admission webhook says no")
    world.step(1)
    (accepted,) = [each for each in world.status["conditions"] if each["type"] == "Accepted"]
    assert "whoever made the rule must admit it, or the platform team change the runtime): admission webhook says no" in accepted["message"]
