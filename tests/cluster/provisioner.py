"""`python -m tests.cluster.provisioner FOLDER`: gives each claim of the cluster in this folder its volume, and removes what is released."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from tests.cluster import storage
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.cluster import Cluster

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PAUSE_SECONDS = 1.0


def provision(api: Api, claim: Object, folder: Path, *, real: bool) -> None:
    """Make the folder (with real nodes only: kwok's pods write nothing), then the volume that points at it."""
    if not storage.waits(claim):
        return
    found = api.find(f"/apis/storage.k8s.io/v1/storageclasses/{claim['spec']['storageClassName']}")
    manifest = storage.volume(claim, found, api.items("/api/v1/nodes"), folder) if found else None
    if not found or not manifest or api.find(f"{VOLUMES}/{manifest['metadata']['name']}"):
        return
    if real:
        place = Path(manifest["spec"]["local"]["path"])
        # Root's alone, as a new disk is: a pod writes to it through its fsGroup.
        place.mkdir(mode=0o755, exist_ok=True)
        if found.get("parameters", {}).get("medium") == "tmpfs":
            size = storage.bytes_of(manifest["spec"]["capacity"]["storage"])
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    api.post(VOLUMES, manifest)


def remove(api: Api, volume: Object) -> None:
    """The folder, then the volume."""
    if storage.released(volume):
        place = Path(volume["spec"]["local"]["path"])
        if place.is_mount():
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)
        api.delete(f"{VOLUMES}/{volume['metadata']['name']}")


def follow(api: Api, path: str, act: Callable[[Object], None]) -> None:
    """Act on each object that is there or changes, for ever. The API server may be away, and a conflict is met again at the next change."""
    while True:
        try:
            for kind, found in api.watch(path):
                if kind in ("ADDED", "MODIFIED"):
                    act(found)
        except (ApiError, urllib3.exceptions.HTTPError) as error:
            print(f"{path}: {error}", flush=True)
        time.sleep(PAUSE_SECONDS)


def main(folder: Path) -> None:
    cluster = Cluster.at(folder)
    api, layout = cluster.api, cluster.layout
    for each in storage.classes():
        try:
            api.post("/apis/storage.k8s.io/v1/storageclasses", each)
        except ApiError as error:
            if error.code != 409:  # there since it was started last
                raise
    removing = threading.Thread(target=follow, args=(api, VOLUMES, lambda volume: remove(api, volume)), daemon=True)
    removing.start()
    follow(api, CLAIMS, lambda claim: provision(api, claim, layout.volumes, real=layout.routed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
