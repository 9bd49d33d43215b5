"""A namespace a test, as a platform team would make it: Pod Security `restricted`."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from tests.cluster.cluster import Cluster
from tests.cluster.pods import await_value


@contextlib.contextmanager
def fresh_namespace(cluster: Cluster, *, security: str = "restricted") -> Iterator[str]:
    """A new namespace with its default service account; when the block ends its deletion is asked for, and not awaited."""
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": security}
    api = cluster.api
    api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    # Made by a controller; a pod that comes earlier is refused.
    await_value(lambda: api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"), what=f"the default service account of {name}")
    try:
        yield name
    finally:
        api.delete(f"/api/v1/namespaces/{name}")
