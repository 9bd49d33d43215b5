"""A person at a shell, with the rights of the chart's roles in the team's namespace, who may use its claims: each command is a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.apiserver.installation import apply
from tests.cluster import binaries
from tests.cluster.api import Object
from tests.cluster.pods import await_value
from tests.node.platform import PATIENCE, TEAM, Platform

NAME: Final = "anna"
Done = subprocess.CompletedProcess[str]


class Person:
    """Her `finetune` and her `kubectl`, in the team's namespace."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        for each in rights():
            apply(platform.cluster.api, each)
        self.kubeconfig = platform.cluster.user(NAME)
        self._folder = folder
        self._environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "120"}
        self._begun = 0
        await_value(lambda: self("get").returncode == 0, what="the person's rights", timeout=PATIENCE)

    def __call__(self, *arguments: str, given: str = "") -> Done:
        """What `finetune` came to."""
        command = [sys.executable, "-m", "finetune_cli", *arguments, "-n", TEAM]
        return subprocess.run(
            command, env=self._environment, input=given, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )

    def does(self, *arguments: str, given: str = "") -> str:
        """What `finetune` printed; it has to end well."""
        done = self(*arguments, given=given)
        assert done.returncode == 0, f"finetune {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def beside(self, *arguments: str) -> Iterator[Beside]:
        """`finetune` goes on beside what is done in this block."""
        with self._beside([sys.executable, "-m", "finetune_cli", *arguments, "-n", TEAM]) as process:
            yield process

    @contextlib.contextmanager
    def kubectl_beside(self, *arguments: str) -> Iterator[Beside]:
        with self._beside([str(binaries.resolve("kubectl")), *arguments, "-n", TEAM]) as process:
            yield process

    @contextlib.contextmanager
    def _beside(self, command: list[str]) -> Iterator[Beside]:
        self._begun += 1
        out, err = (self._folder / f"{self._begun}.{name}" for name in ("out", "err"))
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(command, env=self._environment, stdout=stdout, stderr=stderr)
            try:
                yield Beside(process, out, err)
            finally:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Beside:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def end(self) -> Done:
        """Wait for its end."""
        code = self.process.wait(PATIENCE)
        return Done(self.process.args, code, self.out.read_text(), self.err.read_text())


def rights() -> Iterator[Object]:
    """The chart's two roles, and what admission asks of whoever names a claim: to `get` it. No right to make a pod."""
    rbac = "rbac.authorization.k8s.io"
    claims = {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]}
    yield {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "claims", "namespace": TEAM}, "rules": [claims]}
    for kind, role in (("ClusterRole", "finetune-operator-view"), ("ClusterRole", "finetune-operator-edit"), ("Role", "claims")):
        yield {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{NAME}-{role}", "namespace": TEAM},
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": role},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": NAME}],
        }


def cells(table: str) -> Mapping[str, str]:
    """The one line of a table, by the column that it stands under."""
    header, line = table.splitlines()
    starts = [(found.start(), found[0]) for found in re.finditer(r"\S+", header)]
    return {name: line[start:end].strip() for (start, name), (end, _) in pairwise([*starts, (len(line) + 1, "")])}
