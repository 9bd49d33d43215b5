"""What `make demo` does, on a cluster of its own as there: a tiny model goes through the same steps, and a second run goes on from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.demo.__main__ import run
from scripts.demo.follow import NAME
from scripts.demo.place import Place
from scripts.demo_assets import ROOT
from tests.cluster import Cluster, Wanted
from tests.cluster.images import Images
from tests.examples.tiny_demo import cut, make_tiny_demo, read


def test_the_demo_ends_with_a_model_and_goes_on_where_it_was(
    images: Images, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    tmp_path = tmp_path_factory.mktemp("demo")  # short: sockets lie below it
    assets = make_tiny_demo(tmp_path / "assets")
    manifest = tmp_path / "job.json"
    manifest.write_text(json.dumps(cut(read(NAME))))
    wanted = Wanted(kwok_nodes=0, real_nodes=1, gpus=0, definitions=sorted((ROOT / "crds").glob("*.yaml")), seed=images.seed)
    with Cluster.up(tmp_path / "cluster", wanted) as cluster:
        place = Place(images.trainer.reference, images.operator.reference, cluster.kubeconfig, cluster)
        assert run(place, assets, str(manifest)) == 0, capfd.readouterr()
        told = capfd.readouterr().out
        for words in (f"finetunejob.finetune.dev/{NAME} created", "Succeeded", "loss", "merged:", "is a folder of this machine"):
            assert words in told, told
        folder = Path(told.split("is a folder of this machine: ")[1].splitlines()[0])
        assert (folder / "artifacts/merged/model.safetensors").exists()
        logs = "".join(log.read_text() for log in (folder / "logs").iterdir())
        assert "steps loss=" in logs and "progress is not reported" not in logs

        assert run(place, assets, str(manifest)) == 0, capfd.readouterr()
        again = capfd.readouterr().out
        assert f"finetunejob.finetune.dev/{NAME} unchanged" in again
        assert "the claim holds the data already" in again
