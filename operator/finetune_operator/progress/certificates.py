"""Certificates of the progress endpoint: an authority of ten years, and a leaf of thirty days that it signs.

`renewed` is pure but for the keys that it draws. It runs in a process of its own (`python -m finetune_operator.progress.certificates`, JSON
in, JSON out): cryptography would cost the operator 15 MB for what happens once in weeks.

A pod trusts the authorities that stood in its annotation when it was made, so the authority changes slowly: a year before its end the next
one is made, and every new pod trusts both; the served leaf moves to it when thirty days of the old one are left.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, NEXT, LEAF = "ca", "next-ca", "tls"
"""Names in the Secret: each with `.crt` and `.key`."""
AUTHORITY_LIFE: Final = timedelta(days=3650)
NEXT_BEFORE: Final = timedelta(days=365)
LEAF_LIFE: Final = timedelta(days=30)
LEAF_BEFORE: Final = timedelta(days=10)
SKEW: Final = timedelta(hours=1)
"""Clocks of nodes differ: what begins now began an hour ago."""

Data = dict[str, str]


class Pair(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def renewed(data: Mapping[str, str], hosts: Sequence[str], now: datetime) -> Data:
    """Return what the Secret should hold: the same where nothing is due. hosts: names or IPs under which the leaf serves.

    What can't be read, or does not belong together, is made anew.
    """
    current = read(data, AUTHORITY)
    if current is None or _left(current, now) <= timedelta():
        current, following = authority(now), None
    else:
        following = read(data, NEXT)
    if following is not None and _left(current, now) <= LEAF_LIFE:
        current, following = following, None
    if following is None and _left(current, now) <= NEXT_BEFORE:
        following = authority(now)
    leaf = read(data, LEAF)
    if leaf is None or not _serves(leaf, current, hosts) or _left(leaf, now) <= LEAF_BEFORE:
        leaf = issued(current, hosts, now)
    pairs = {AUTHORITY: current, LEAF: leaf, **({NEXT: following} if following is not None else {})}
    return {name: text for prefix, pair in pairs.items() for name, text in zip(_names(prefix), written(pair), strict=True)}


def authorities(data: Mapping[str, str]) -> str:
    """Return the PEM of what a new pod trusts: the authority, and the next one where there is one."""
    return data[f"{AUTHORITY}.crt"] + data.get(f"{NEXT}.crt", "")


def authority(now: datetime) -> Pair:
    """Make an authority that can sign leaves and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"finetune-operator progress {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def issued(signer: Pair, hosts: Sequence[str], now: datetime) -> Pair:
    """Make a leaf that serves under these names, no longer than its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator progress")])
    life = min(LEAF_LIFE, _left(signer, now))
    certificate = (
        _builder(name, signer.certificate.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def read(data: Mapping[str, str], prefix: str) -> Pair | None:
    """Return a pair of the Secret; None where it is missing, damaged, or key and certificate differ."""
    certificate, key = (data.get(name, "") for name in _names(prefix))
    try:
        pair = Pair(x509.load_pem_x509_certificate(certificate.encode()), _private(key))
    except ValueError:
        return None
    return pair if pair.certificate.public_key() == pair.key.public_key() else None


def written(pair: Pair) -> tuple[str, str]:
    """Return certificate and key as PEM."""
    key = pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pair.certificate.public_bytes(serialization.Encoding.PEM).decode(), key.decode()


def _names(prefix: str) -> tuple[str, str]:
    return f"{prefix}.crt", f"{prefix}.key"


def _private(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not of an elliptic curve")
    return key


def _left(pair: Pair, now: datetime) -> timedelta:
    return pair.certificate.not_valid_after_utc - now


def _serves(leaf: Pair, signer: Pair, hosts: Sequence[str]) -> bool:
    """Whether the leaf is the signer's and serves under exactly these names."""
    try:
        leaf.certificate.verify_directly_issued_by(signer.certificate)
        names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return set(names) == {_general_name(host) for host in hosts}


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def main() -> None:
    """Read {data, hosts} from standard input; write what the Secret should hold, and what pods trust."""
    asked = json.load(sys.stdin)
    data = renewed(asked["data"], asked["hosts"], datetime.now(UTC))
    json.dump({"data": data, "authorities": authorities(data)}, sys.stdout)


if __name__ == "__main__":
    main()
