"""Kubeconfigs that stand alone: certificates are inside, so that a copy works in any folder."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.certificates import Pair


def kubeconfig(server: str, authority: Path, user: Pair | str, namespace: str = "default") -> dict[str, Any]:
    """For this server, as the user of a certificate or of a bearer token."""
    credentials = (
        {"token": user}
        if isinstance(user, str)
        else {"client-certificate-data": _inside(user.certificate), "client-key-data": _inside(user.key)}
    )
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": _inside(authority)}}],
        "users": [{"name": "test", "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    """Readable by this user only: it holds a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _inside(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
