"""Which cluster, as whom, in which namespace: as kubectl decides it, by a kubeconfig, or by the service account of a pod."""

from __future__ import annotations

import difflib
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from finetune_client.errors import ConfigError

BEARER = "BearerToken"
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# It warns of a file that is missing; we say so in an error of our own.
logging.getLogger("kubernetes.aio.config.kube_config").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Access:
    """An API server, credentials for it, and the namespace that is meant where none is named."""

    configuration: Configuration
    namespace: str

    @property
    def server(self) -> str:
        return str(self.configuration.host).rstrip("/")

    async def authorization(self) -> str | None:
        """The header of that name; None where a client certificate does it. Refreshes a token whose time has come."""
        header: str | None = await self.configuration.get_api_key_with_prefix(BEARER, alias="authorization")
        return header.strip() if header else None

    def tls(self) -> ssl.SSLContext:
        """Raises ConfigError where a certificate can't be read."""
        found = self.configuration
        try:
            context = ssl.create_default_context(cafile=found.ssl_ca_cert)
            if found.cert_file:
                context.load_cert_chain(found.cert_file, keyfile=found.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"a certificate of the kubeconfig can't be used: {error}", "Get a new kubeconfig for this cluster."
            ) from error
        # A cluster's own authority often lacks what Python's strict mode asks for; kubectl takes it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not found.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


async def load(
    kubeconfig: Path | None = None,
    context: str | None = None,
    namespace: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Access:
    """As kubectl: this file, else $KUBECONFIG (files with : between them), else ~/.kube/config, else the pod's service account.

    Raises:
        ConfigError: None of them is there, or what is there can't be used.
    """
    paths = _paths(kubeconfig, environment)
    files = [path for path in paths if path.is_file()]
    found = Configuration()
    if not files and kubeconfig is None and context is None and (IN_POD / "token").is_file():
        try:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]  # the library has no types
            return Access(found, namespace or (IN_POD / "namespace").read_text().strip())
        except (config.ConfigException, OSError) as error:
            raise ConfigError(f"the pod's service account can't be used: {error}") from error
    if not files:
        raise ConfigError(
            f"there is no kubeconfig ({', '.join(map(str, paths))})",
            "Name one with --kubeconfig or $KUBECONFIG; whoever runs the cluster has it.",
        )
    chosen = _context(files, context)
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.pathsep.join(map(str, files)), context=chosen["name"], client_configuration=found, persist_config=False
        )
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"context {chosen['name']} of the kubeconfig can't be used: {error}", "Correct it, or choose another context."
        ) from error
    return Access(found, namespace or str(chosen["context"].get("namespace") or "default"))


def _paths(kubeconfig: Path | None, environment: Mapping[str, str]) -> list[Path]:
    if kubeconfig is not None:
        return [kubeconfig.expanduser()]
    named = [Path(part).expanduser() for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path.home() / ".kube" / "config"]


def _context(files: list[Path], name: str | None) -> dict[str, Any]:
    """The context that is meant, as the kubeconfig has it."""
    contexts: dict[str, dict[str, Any]] = {}
    current = None
    for path in files:
        document = _read(path)
        current = current or document.get("current-context")
        for each in document.get("contexts") or []:
            if isinstance(each, dict) and isinstance(each.get("context"), dict):
                contexts.setdefault(str(each.get("name")), each)
    wanted = name or current
    if not wanted:
        raise ConfigError("the kubeconfig has no current context", f"Name one with --context: {_listed(contexts)}.")
    if wanted not in contexts:
        near = difflib.get_close_matches(wanted, contexts, n=1)
        raise ConfigError(
            f"the kubeconfig has no context {wanted}", f"Did you mean {near[0]}?" if near else f"The contexts are {_listed(contexts)}."
        )
    return contexts[wanted]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the kubeconfig {path} can't be read: {error}", "Check the file.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"the kubeconfig {path} is no mapping", "Check the file.")
    return document


def _listed(contexts: Mapping[str, object]) -> str:
    return ", ".join(sorted(contexts)) or "none"
