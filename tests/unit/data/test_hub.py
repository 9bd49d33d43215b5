"""The hub's real client against a stand-in of three routes, and against the client's own cache.

The client reads HF_ENDPOINT when it is imported, so it runs in processes of its own, each with many cases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.stand_in import COMMIT, Repository, StandIn, serve

FIND = """
import json, sys
from finetune_api.wire import TrainerConfig
from finetune_trainer.data.models import locate_model
from finetune_trainer.data.sources import locate
from finetune_trainer.errors import TrainerError

config, cases = TrainerConfig.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])

def find(uri, options):
    try:
        if uri.startswith("hf://datasets/"):
            found = locate(uri, config=config, where="spec.x", **options)
            return {"names": found.names, "text": found.files[0].read_text(), "revision": found.revision}
        spec = config.spec.model_copy(update={"model": config.spec.model.model_copy(update={"uri": uri})})
        model = locate_model(config.model_copy(update={"spec": spec}))
        return {"files": sorted(file.name for file in model.path.iterdir()), "revision": model.revision}
    except TrainerError as error:
        return {"reason": error.reason, "message": str(error)}

print(json.dumps([find(*case) for case in cases]))
"""

PREPARE = """
import json, sys
from finetune_api.wire import TrainerConfig
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import load_prepared
from finetune_trainer.progress import NullReporter

config = TrainerConfig.model_validate_json(sys.argv[1])
prepare(config, NullReporter())
stage = load_prepared(config).report.stages[0]
print(json.dumps({"revision": stage.sources[0].revision, "rows": stage.train.rows}))
"""

FILES = {"data/a.jsonl": b'{"text": "a"}\n', "data/b.jsonl": b'{"text": "b"}\n', "README.md": b"# Read me\n"}
URI = "hf://datasets/OWNER/open/data"
NOWHERE = "http://127.0.0.1:9"


class Client:
    """Runs the client in a process, with a cache of its own."""

    def __init__(self, job: Any, cache: Path) -> None:
        self.job = job
        self.cache = cache

    def find(self, *cases: tuple[str, dict[str, Any]], endpoint: str, offline: bool = False) -> list[dict[str, Any]]:
        """What becomes of each URI with its options."""
        config = self.job.config("file://x").model_dump_json(exclude_none=True)
        found: list[dict[str, Any]] = self.run(FIND, config, json.dumps(cases), endpoint=endpoint, offline=offline)
        return found

    def run(self, code: str, *arguments: str, endpoint: str, offline: bool = False) -> Any:
        """Run code that prints JSON; the token must never be in what it prints or logs."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(self.cache),
            "HF_HUB_ETAG_TIMEOUT": "30",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
        }
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True, text=True)
        assert "s3cret" not in done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def client(job: Any, tmp_path: Path) -> Client:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    job.secret_files["hf"] = str(secret)
    return Client(job, tmp_path / "hub")


def test_a_folder_is_fetched_at_the_commit_and_then_taken_from_the_cache(client: Client) -> None:
    hub = StandIn(open=Repository(FILES))
    with serve(hub) as endpoint:
        (found,) = client.find((URI, {}), endpoint=endpoint)
        assert found["names"] == [f"{URI}/a.jsonl", f"{URI}/b.jsonl"]
        assert (found["text"], found["revision"]) == (FILES["data/a.jsonl"].decode(), COMMIT)
        assert not any("README" in asked for asked in hub.asked)
    # The commit is known: nothing is asked, with or without a hub.
    pinned = (URI, {"revision": COMMIT})
    assert client.find(pinned, endpoint=NOWHERE) == client.find(pinned, endpoint=NOWHERE, offline=True) == [found]


FETCH = """
import json
from finetune_trainer.data import hub
from finetune_trainer.pulse import PULSE

before = PULSE.at
hub.fetch(hub.Repository("OWNER/large", "dataset", None, None, "spec.x"), allow=["*"])
print(json.dumps(PULSE.at > before))
"""


def test_what_comes_is_an_advance(client: Client) -> None:
    """Otherwise a download of hours would be taken for a hang. Nothing else beats the pulse here."""
    with serve(StandIn(large=Repository({"large.bin": bytes(4_000_000)}))) as endpoint:
        assert client.run(FETCH, endpoint=endpoint) is True


def test_paths_tokens_and_what_the_hub_refuses(client: Client) -> None:
    token, other = {"credentials": "hf"}, f"{URI}/b.jsonl"
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (other, {"revision": "v1"}, {"names": [f"{URI}/b.jsonl"]}),
        ("hf://datasets/OWNER/open/**/[a]*.jsonl", {}, {"names": [f"{URI}/a.jsonl"]}),
        ("hf://datasets/OWNER/private/data", token, {"revision": COMMIT}),
        ("hf://datasets/OWNER/private/README.md", {"revision": "v1"}, {
            "reason": "SourceForbidden",
            "message": "spec.x: the hub refuses hf://datasets/OWNER/private at revision 'v1' (HTTP 401): no credentials are given for it, or it "
            "doesn't exist",
        }),
        ("hf://datasets/OWNER/gated/x", token, {
            "reason": "SourceForbidden",
            "message": "spec.x: the hub refuses hf://datasets/OWNER/gated (HTTP 403): the token was not accepted for it, or it doesn't exist",
        }),
        ("hf://datasets/OWNER/none/x", {}, {"reason": "SourceNotFound", "message": "spec.x: the hub has no hf://datasets/OWNER/none (HTTP 404)"}),
        ("hf://datasets/OWNER/broken/x", {}, {
            "reason": "SourceUnreachable", "message": "spec.x: the hub did not give hf://datasets/OWNER/broken (HTTP 503)"
        }),
        (URI, {"revision": "v2"}, {
            "reason": "SourceNotFound", "message": "spec.x: the hub has no hf://datasets/OWNER/open at revision 'v2' (HTTP 404)"
        }),
        (f"{URI}/no.jsonl", {}, {
            "reason": "SourceNotFound", "message": f"spec.x: the repository has no file 'data/no.jsonl' at commit {COMMIT}"
        }),
        ("hf://datasets/OWNER/open/*.csv", {}, {
            "reason": "DataEmpty", "message": "spec.x: hf://datasets/OWNER/open/*.csv has no data: the glob matches no file"
        }),
    ]  # fmt: skip
    hub = StandIn(
        open=Repository(FILES),
        private=Repository(FILES, token="s3cret"),
        gated=Repository({}, status=403),
        broken=Repository({}, status=503),
    )
    with serve(hub) as endpoint:
        found = client.find(*((uri, options) for uri, options, _ in cases), endpoint=endpoint)
    for (uri, _, expected), result in zip(cases, found, strict=True):
        assert {name: result.get(name) for name in expected} == expected, uri


@pytest.mark.parametrize(
    ("offline", "reason", "says"),
    [
        (False, "SourceUnreachable", "spec.x: the hub did not give hf://datasets/OWNER/open (ConnectError)"),
        (True, "SourceNotFound", "spec.x: hf://datasets/OWNER/open is not in the hub's cache on this machine, and HF_HUB_OFFLINE is set"),
    ],
)
def test_no_hub_and_nothing_in_the_cache(client: Client, offline: bool, reason: str, says: str) -> None:
    assert client.find((URI, {}), endpoint=NOWHERE, offline=offline) == [{"reason": reason, "message": says}]


def test_models_come_without_their_pickles_or_not_at_all(client: Client, tiny_llama: Path) -> None:
    files = {file.name: file.read_bytes() for file in tiny_llama.iterdir()}
    hub = StandIn(
        whole=Repository({**files, "pytorch_model.bin": b"x", "onnx/model.safetensors": b"x"}),
        pickled=Repository({"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"x"}),
    )
    with serve(hub) as endpoint:
        whole, pickled = client.find(("hf://OWNER/whole", {}), ("hf://OWNER/pickled", {}), endpoint=endpoint)
    assert whole == {"files": sorted(files), "revision": COMMIT}
    assert pickled["reason"] == "ModelUnsafe"
    assert "hf://OWNER/pickled has its weights as pickle only (pytorch_model.bin)" in pickled["message"]


def test_a_run_stays_at_the_commit_that_its_first_start_resolved(client: Client) -> None:
    hub = StandIn(open=Repository(FILES))
    config = client.job.config(URI).model_dump_json(exclude_none=True)
    with serve(hub) as endpoint:
        first = client.run(PREPARE, config, endpoint=endpoint)
        hub.asked.clear()
        second = client.run(PREPARE, config, endpoint=endpoint)
    assert first == second == {"revision": COMMIT, "rows": 2}
    assert not [asked for asked in hub.asked if "OWNER" in asked], "the branch is not looked up again"
