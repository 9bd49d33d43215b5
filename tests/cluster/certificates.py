"""The cluster's certificates, by openssl: one authority, and a key with a certificate for each program and each user."""

from __future__ import annotations

import ipaddress
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import MissingPart

DAYS = 365
AUTHORITY_EXTENSIONS = (
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\nsubjectKeyIdentifier=hash\n"
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs the certificates of one cluster."""

    folder: Path

    @property
    def pair(self) -> Pair:
        return self._pair("ca")

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """A new authority in this folder, and the key that service account tokens are signed with."""
        if shutil.which("openssl") is None:
            raise MissingPart("openssl is missing: it makes the cluster's certificates. On Debian: apt-get install openssl")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        authority = cls(folder)
        authority._key("ca")
        authority._key("service-accounts")
        request = authority._request("ca", "/CN=test-cluster")
        authority._sign("ca", request, AUTHORITY_EXTENSIONS, ["-signkey", authority.pair.key])
        return authority

    @property
    def service_account_key(self) -> Path:
        return self.folder / "service-accounts.key"

    def issue(self, name: str, *, user: str, groups: Sequence[str] = (), addresses: Sequence[str] = ()) -> Pair:
        """A certificate for a user of these groups; with addresses (IPs and names), one that also serves under them."""
        pair = self._pair(name)
        self._key(name)
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        request = self._request(name, subject)
        signer: list[str | Path] = ["-CA", self.pair.certificate, "-CAkey", self.pair.key, "-set_serial", f"0x{secrets.token_hex(16)}"]
        self._sign(name, request, extensions(addresses), signer)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def _key(self, name: str) -> None:
        key = self._pair(name).key
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        key.chmod(0o600)

    def _request(self, name: str, subject: str) -> bytes:
        # An empty configuration: the machine's own would add extensions of its taste.
        return _openssl("req", "-new", "-config", "/dev/null", "-key", self._pair(name).key, "-subj", subject)

    def _sign(self, name: str, request: bytes, text: str, signer: Sequence[str | Path]) -> None:
        file = self.folder / f"{name}.ext"
        file.write_text(text)
        out: list[str | Path] = ["-sha256", "-extfile", file, "-out", self._pair(name).certificate]
        _openssl("x509", "-req", "-days", str(DAYS), *signer, *out, given=request)
        file.unlink()


def extensions(addresses: Sequence[str]) -> str:
    """What an issued certificate is good for: a client, and with addresses a server of that name."""
    usage = "clientAuth,serverAuth" if addresses else "clientAuth"
    text = f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n"
    return text + (f"subjectAltName={','.join(map(alternative, addresses))}\n" if addresses else "")


def alternative(address: str) -> str:
    """`IP:…` or `DNS:…`."""
    try:
        return f"IP:{ipaddress.ip_address(address)}"
    except ValueError:
        return f"DNS:{address}"


def _openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, check=True).stdout
