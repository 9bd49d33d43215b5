"""What a trainer's pod does about progress, done by a test: a token as the kubelet asks for it, and a report with what the pod was given."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from finetune_api import constants as c
from finetune_operator.progress.contract import PATH
from scripts.render_chart import NAMESPACE
from tests.cluster.api import Api, Object
from tests.cluster.pods import await_value

SECRET: Final = "finetune-operator-progress"
FLAGS: Final = ("--progress-url", f"https://127.0.0.1:8443{PATH}", "--progress-secret", f"{NAMESPACE}/{SECRET}")
"""Of an operator beside the cluster: the chart's Secret, and a certificate for this machine. The port is the test's."""
SECONDS: Final = 120


def secret_path() -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}"


def token(api: Api, pod: Object, audience: str = c.PROGRESS_AUDIENCE, *, bound: bool = True) -> str:
    """A token of the pod's service account, bound to the pod."""
    metadata = pod["metadata"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"audiences": [audience], "expirationSeconds": c.PROGRESS_TOKEN_SECONDS, **({"boundObjectRef": reference} if bound else {})}
    path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/default/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str(api.post(path, asked)["status"]["token"])


def signed_anew(text: str, key: Path, **claims: Any) -> str:
    """The same token with other claims, signed by this key."""
    head, payload, _ = text.split(".")
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    changed = {**json.loads(_decoded(payload)), **claims}
    signed = f"{head}.{_encoded(json.dumps(changed).encode())}"
    r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def expired(text: str, key: Path) -> str:
    """A token that was good an hour ago, signed by the API server's own key."""
    now = int(time.time())
    return signed_anew(text, key, iat=now - 7200, nbf=now - 7200, exp=now - 3600)


def port_of(log: Path) -> int:
    """The port on which the newest operator of this log takes reports."""
    pattern = re.compile(r"progress on .*0\.0\.0\.0:(\d+)")
    found = await_value(lambda: pattern.findall(log.read_text(errors="replace")), what="an operator that takes reports", timeout=SECONDS)
    return int(found[-1])


def authority_of(pod: Object) -> str:
    """What the pod trusts, as it was given."""
    return str(pod["metadata"]["annotations"][c.PROGRESS_CA_ANNOTATION])


def report(port: int, authority: str, token: str, body: Mapping[str, Any] | bytes) -> tuple[int, str]:
    """Status, and what is said. Raises ssl.SSLError where the endpoint is not the one that the authority vouches for."""
    context = ssl.create_default_context(cadata=authority)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", PATH, body=data, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
