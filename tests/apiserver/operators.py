"""The operator as a process beside the cluster: started, asked, stopped and killed by tests."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.cluster.pods import await_value
from tests.procfs import memory

TINY = "tests.apiserver.tiny_operator"
WHOLE = "finetune_operator"


class Operator:
    """One operator process. Its log is `log`."""

    def __init__(self, kubeconfig: Path, log: Path, *flags: str, program: str = TINY) -> None:
        self.log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINETUNE_", "KUBE"))}
        command = [sys.executable, "-m", program, "--kubeconfig", str(kubeconfig), *flags]
        if "--probes-port" not in flags:
            command += ["--probes-port", "0"]
        if "--metrics-port" not in flags:
            command += ["--metrics-port", "0"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env={**kept, "MALLOC_ARENA_MAX": "1"})

    @classmethod
    @contextlib.contextmanager
    def running(cls, kubeconfig: Path, log: Path, *flags: str, program: str = TINY) -> Iterator[Self]:
        """Started, ready, and killed at the end if the test has not stopped it."""
        operator = cls(kubeconfig, log, *flags, program=program)
        try:
            operator.await_ready()
            yield operator
        finally:
            operator.kill()

    def await_ready(self) -> None:
        """Until /readyz says so. Raises AssertionError with the log where the process ended instead."""
        await_value(lambda: self._gone() or self.asked("readyz") == 200, what=f"a ready operator:\n{self.text()}", every=0.1)

    def asked(self, question: str) -> int:
        """The HTTP status of /healthz or /readyz; 0 where nothing answers."""
        port = self.port()
        if port is None:
            return 0
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{question}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def port(self) -> str | None:
        """Of the probes; None as long as nobody listens."""
        found = re.findall(r"probes on .*0\.0\.0\.0:(\d+)", self.text())
        return found[-1] if found else None

    def metrics_port(self) -> str:
        """Of /metrics, once somebody listens there."""

        def found() -> str | None:
            ports = re.findall(r"metrics on .*0\.0\.0\.0:(\d+)", self.text())
            return ports[-1] if ports else None

        return await_value(found, what="the port of the metrics")

    def metrics(self) -> str:
        """What a scrape shows."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port()}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def stop(self) -> int:
        """SIGTERM, as a kubelet does it. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def resident(self) -> float:
        """Resident memory in MB."""
        return memory("VmRSS", self.process.pid) / 1000

    def open_files(self) -> int:
        """Files, pipes and connections."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _gone(self) -> bool:
        assert self.process.poll() is None, f"the operator ended with {self.process.returncode}:\n{self.text()[-3000:]}"
        return False
