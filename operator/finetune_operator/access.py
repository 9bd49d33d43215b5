"""How the API server is reached: by the pod's service account, or by a kubeconfig. Read anew when the server says 401."""

from __future__ import annotations

from pathlib import Path

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from finetune_operator.errors import SettingsError

BEARER = "BearerToken"


async def load(kubeconfig: Path | None, context: str | None) -> Configuration:
    """Where the API server is, and who we are there. Without a kubeconfig, the pod's service account, whose token is read again each minute.

    Raises:
        SettingsError: The kubeconfig or the service account can't be read.
    """
    found = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig), context=context, client_configuration=found, persist_config=False
            )
    except (config.ConfigException, OSError) as error:
        source = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
        raise SettingsError([f"{source}: {error}: give a readable --kubeconfig, or run in a pod with a mounted service account"]) from error
    return found


async def authorization(configuration: Configuration) -> str | None:
    """The header of that name, None where a client certificate does it. Refreshes a token whose time has come."""
    header: str | None = await configuration.get_api_key_with_prefix(BEARER, alias="authorization")
    return header.strip() if header else None


async def for_kopf(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same access for Kopf's watches, so that there is one source of credentials."""
    header = await authorization(configuration)
    scheme, _, token = header.partition(" ") if header else ("", "", "")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        scheme=scheme or None,
        token=token or None,
    )
