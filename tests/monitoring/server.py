"""A real Prometheus that scrapes one operator every two seconds, with the chart's rules."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster import debian
from tests.cluster.pods import await_value
from tests.monitoring import RULES

Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels, and values by their time."""
STEP: Final = 2
"""Seconds between two scrapes, and between two values of a query."""


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.began = time.time()

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, target: str) -> Iterator[Prometheus]:
        """Started and ready, scraping `target` (host:port); killed at the end."""
        folder.mkdir()
        job = {"job_name": "finetune-operator", "honor_labels": True, "static_configs": [{"targets": [target]}]}
        times = {"scrape_interval": f"{STEP}s", "evaluation_interval": f"{STEP}s", "scrape_timeout": f"{STEP}s"}
        configuration = {"global": times, "rule_files": [str(RULES)], "scrape_configs": [job]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        port = _free_port()
        command = [str(debian.resolve("prometheus")), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log) as process,
        ):
            server = cls(port)
            try:
                await_value(lambda: _gone(process, folder / "log") or server._ready(), what="Prometheus being ready")
                yield server
            finally:
                process.kill()

    def asked(self, query: str, **variables: str) -> list[Series]:
        """The series of a query, as a board shows them since this server began; values that are no numbers are left out."""
        text = substituted(query, variables)
        answer = self._get("query_range", query=text, start=str(self.began), end=str(time.time()), step=str(STEP))
        assert answer["status"] == "success", f"{text}: {answer}"
        found = [
            (each["metric"], [(at, float(value)) for at, value in each["values"] if value != "NaN"]) for each in answer["data"]["result"]
        ]
        return [(labels, values) for labels, values in found if values]

    def now(self, query: str, **variables: str) -> list[Series]:
        """The series of a query, with their values at this moment."""
        answer = self._get("query", query=substituted(query, variables))
        return [(each["metric"], [(each["value"][0], float(each["value"][1]))]) for each in answer["data"]["result"]]

    def health(self) -> str:
        """`up`, or what was wrong with the last scrape: also a series that stood in it twice, or a label that can't be read."""
        (target,) = self._get("targets")["data"]["activeTargets"]
        return str(target["lastError"] or target["health"])

    def _get(self, what: str, **query: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{what} {query}: {error.read().decode()[:500]}") from error

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def substituted(query: str, variables: dict[str, str]) -> str:
    """A board's query with its variables' values, as Grafana would send it."""
    given = {"__rate_interval": "30s", **variables}
    return re.sub(r"\$(\w+)", lambda found: given[found[1]], query)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _gone(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"Prometheus ended with {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}"
    return False
