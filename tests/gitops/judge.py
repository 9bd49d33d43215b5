"""The Go program beside this file: kstatus itself, and Argo CD's way of running a Lua script."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scripts import go

Object = Mapping[str, Any]
SCRIPTS: Final = go.ROOT / "deploy/argocd/finetune.dev"


class ScriptError(Exception):
    """The script failed; the message is Lua's."""


class Judge:
    """One process, asked as often as one likes."""

    def __init__(self) -> None:
        command = [str(go.build(Path(__file__).parent))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def kstatus(self, manifest: Object) -> tuple[str, str]:
        """Status and message."""
        said = self._ask({"object": manifest})
        return said["status"], said.get("message", "")

    def health(self, manifest: Object) -> tuple[str, str]:
        """Argo CD's health status and message, by the script of the object's kind."""
        said = self.run(SCRIPTS / manifest["kind"] / "health.lua", manifest)
        return said["status"], said["message"]

    def actions(self, manifest: Object) -> dict[str, bool]:
        """The actions that Argo CD shows for a job, and whether they can be taken."""
        found = self.run(SCRIPTS / manifest["kind"] / "actions/discovery.lua", manifest)
        return {name: not action.get("disabled", False) for name, action in found.items()}

    def act(self, action: str, manifest: Object) -> Any:
        """What an action returns: the changed object, or a list of what to do."""
        return self.run(SCRIPTS / manifest["kind"] / "actions" / action / "action.lua", manifest)

    def run(self, script: Path, manifest: Object) -> Any:
        """What a script returns, as JSON has it. Raises ScriptError."""
        return self._ask({"object": manifest, "script": script.read_text(encoding="utf-8")})["value"]

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the program ended with {self._process.wait(30)}"
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ScriptError(answer["error"])
        return answer


def patched(returned: Any, live: Any) -> Any:
    """What an action's object is taken for: an empty table is a list to Lua's encoder, and Argo CD puts back what was an empty map."""
    if isinstance(returned, dict) and isinstance(live, dict):
        return {name: patched(value, live.get(name)) for name, value in returned.items()}
    if isinstance(returned, list) and isinstance(live, list):
        return [patched(value, live[index] if index < len(live) else None) for index, value in enumerate(returned)]
    return live if returned == [] and live == {} else returned
