"""How the operator is started: flags, or the environment that the chart sets; a flag goes before. Every problem is told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from finetune_operator.errors import SettingsError
from finetune_operator.model import Key
from finetune_operator.progress.contract import PATH as PROGRESS_PATH

PREFIX = "FINETUNE_OPERATOR_"
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LEVELS = ("debug", "info", "warning", "error")
USAGE = f"""python -m finetune_operator [--NAME VALUE]...

Each flag may stand in the environment as {PREFIX}NAME, hyphens as underscores.

--namespaces a,b        the namespaces to serve (default: all of the cluster)
--workers N             how many jobs are worked on at once, 1 to 64 (default: 16)
--relist-seconds N      how often what exists is compared with what the watches delivered, 5 to 3600 (default: 60)
--deaf-seconds N        how long a watch may lack what that list showed before the liveness probe fails, 2 to 600 (default: 45)
--probes-port N         port of /healthz and /readyz; 0 takes any free one (default: 8080)
--metrics-port N        port of /metrics; 0 takes any free one (default: 8081)
--progress-url URL      where pods report their progress: https://HOST:PORT/v1/progress (default: they report to nobody)
--progress-port N       port on which these reports are taken; 0 takes any free one (default: 8443)
--progress-secret NAMESPACE/NAME
                        the Secret that holds that endpoint's certificates: it must be there, and may be empty (given with --progress-url)
--log-level LEVEL       {", ".join(LEVELS)} (default: info)
--kubeconfig PATH       out of a cluster: how to reach it (default: KUBECONFIG, else the pod's service account)
--context NAME          a context of the kubeconfig (default: its current one)
"""


@dataclass(frozen=True)
class ProgressSettings:
    """Where pods report, and where the endpoint's certificates are kept."""

    url: str
    port: int
    secret: Key


@dataclass(frozen=True)
class Settings:
    namespaces: tuple[str, ...] = ()
    """None: the whole cluster."""
    workers: int = 16
    relist_seconds: float = 60.0
    deaf_seconds: float = 45.0
    probes_port: int = 8080
    metrics_port: int = 8081
    log_level: str = "info"
    kubeconfig: Path | None = None
    """None: the pod's service account."""
    context: str | None = None
    progress: ProgressSettings | None = None
    """None: pods report to nobody."""
    identity: str = "finetune-operator"
    """What Events are reported by: the pod's name."""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read flags and environment.

    Raises:
        SettingsError: With every problem, each naming the setting and what to write.
    """
    problems: list[str] = []
    given = _given(arguments, environment, problems)
    namespaces = tuple(part.strip() for part in given.get("namespaces", "").split(",") if part.strip())
    problems += [
        f"namespaces: {name!r} is no namespace's name: write names with commas" for name in namespaces if not NAMESPACE.fullmatch(name)
    ]
    if len(set(namespaces)) != len(namespaces):
        problems.append("namespaces: a name stands twice: write each once")
    level = given.get("log-level", "info").lower()
    if level not in LEVELS:
        problems.append(f"log-level: {level!r}: write one of {', '.join(LEVELS)}")
    kubeconfig = given.get("kubeconfig") or environment.get("KUBECONFIG")
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" not in environment:
        problems.append("kubeconfig: this is no pod, and no kubeconfig is given: set --kubeconfig or KUBECONFIG")
    if kubeconfig is not None and not Path(kubeconfig).is_file():
        problems.append(f"kubeconfig: {kubeconfig} is no file: name one kubeconfig")
    if "context" in given and kubeconfig is None:
        problems.append("context: there is no kubeconfig to take it from: set --kubeconfig")
    settings = Settings(
        namespaces=namespaces,
        workers=_number(given, "workers", 16, range(1, 65), problems),
        relist_seconds=_number(given, "relist-seconds", 60, range(5, 3601), problems),
        deaf_seconds=_number(given, "deaf-seconds", 45, range(2, 601), problems),
        probes_port=_number(given, "probes-port", 8080, range(65536), problems),
        metrics_port=_number(given, "metrics-port", 8081, range(65536), problems),
        log_level=level,
        kubeconfig=Path(kubeconfig) if kubeconfig is not None else None,
        context=given.get("context"),
        progress=_progress(given, problems),
        identity=environment.get("HOSTNAME") or "finetune-operator",
    )
    if problems:
        raise SettingsError(problems)
    return settings


FLAGS = (
    "namespaces",
    "workers",
    "relist-seconds",
    "deaf-seconds",
    "probes-port",
    "metrics-port",
    "log-level",
    "progress-url",
    "progress-port",
    "progress-secret",
    "kubeconfig",
    "context",
)


def _given(arguments: Sequence[str], environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """What was set, by flag's name. An unknown name is a problem, a typo must not go unheard."""
    named = {f"{PREFIX}{flag.upper().replace('-', '_')}": flag for flag in FLAGS}
    given = {}
    for name, value in environment.items():
        if name in named:
            given[named[name]] = value
        elif name.startswith(PREFIX):
            problems.append(f"{name}: there is no such setting: {', '.join(sorted(named))}")
    rest = list(arguments)
    while rest:
        flag, separator, value = rest.pop(0).partition("=")
        if flag.removeprefix("--") not in FLAGS or not flag.startswith("--"):
            problems.append(f"{flag}: there is no such flag: {', '.join('--' + flag for flag in FLAGS)}")
            if not separator and rest and not rest[0].startswith("--"):
                rest.pop(0)  # its value, which is no problem of its own
        elif not separator and not rest:
            problems.append(f"{flag}: its value is missing")
        else:
            given[flag.removeprefix("--")] = value if separator else rest.pop(0)
    return given


def _progress(given: Mapping[str, str], problems: list[str]) -> ProgressSettings | None:
    """Both or none of URL and Secret."""
    url, secret = given.get("progress-url", ""), given.get("progress-secret", "")
    port = _number(given, "progress-port", 8443, range(65536), problems)
    if not url and not secret:
        return None
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.scheme == "https" and parts.hostname and parts.port != 0 and parts.path == PROGRESS_PATH)
    except ValueError:
        well_formed = False
    if not well_formed:
        problems.append(f"progress-url: {url!r}: write https://HOST:PORT{PROGRESS_PATH}, as pods reach this operator")
    namespace, _, name = secret.partition("/")
    if not NAMESPACE.fullmatch(namespace) or not OBJECT.fullmatch(name):
        problems.append(f"progress-secret: {secret!r}: write NAMESPACE/NAME of the Secret that holds the endpoint's certificates")
    return ProgressSettings(url, port, Key(namespace, name))


def _number(given: Mapping[str, str], name: str, default: int, allowed: range, problems: list[str]) -> int:
    text = given.get(name, str(default))
    if text.isascii() and text.isdigit() and int(text) in allowed:
        return int(text)
    problems.append(f"{name}: {text!r}: write a whole number from {allowed.start} to {allowed.stop - 1}")
    return default
