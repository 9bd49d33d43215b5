"""`finetune` against a real API server with an operator at work: what each command prints, and how it ends when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_cli.cluster.session import command_error
from finetune_client import OperatorMissing
from finetune_client.access import load
from finetune_client.transport import Transport
from tests.apiserver.proxy import Proxy
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, said
from tests.builders import Document
from tests.cluster import Cluster, binaries
from tests.cluster.pods import await_value

Ran = subprocess.CompletedProcess[str]
SECONDS = 400


class Shell:
    """A user's terminal, without a terminal: the command in a process of its own, in the namespace of a stage."""

    def __init__(self, stage: Scene, kubeconfig: Path | None = None) -> None:
        self.kubeconfig = kubeconfig or stage.cluster.kubeconfig
        self.namespace = stage.namespace

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINETUNE_", "KUBE"))}
        return {**kept, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "120"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "finetune_cli", *arguments, "-n", self.namespace]

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        done = subprocess.run(
            self.command(*arguments), env=self.environment(), input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """In the background."""
        return subprocess.Popen(
            self.command(*arguments), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )


@pytest.fixture
def finetune(stage: Scene) -> Shell:
    return Shell(stage)


def written(document: Document) -> str:
    return yaml.safe_dump(document)


def in_background(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def read(process: subprocess.Popen[str], lines: list[str]) -> None:
    """Its lines, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)  # noqa: PERF402  # each is looked at before the next one comes


def submitted(trial: Trial) -> bool:
    """Once somebody has created it."""
    return bool(await_value(lambda: trial.api.find(trial.path), what=f"{trial.name} is there", timeout=SECONDS))


def failed(trial: Trial) -> None:
    """Run it, and let its trainer run out of memory, with a message that tries to get at the terminal."""
    pod = trial.run()
    trial.puppet.finish(
        pod, 11, said("Failed", 11, reason="DataInvalid", stage="task", message="row 7 is \x1b[31mred\x1b[0m\x07 and \u202eodd")
    )
    trial.await_failed("DataInvalid")


def test_a_job_from_its_manifest_to_its_end(stage: Scene, finetune: Shell) -> None:
    trial = stage.trial("whole")
    tried = finetune("apply", "-f", "-", "--dry-run", stdin=written(trial.manifest))
    assert (tried.returncode, tried.stdout) == (0, "finetunejob.finetune.dev/whole created (dry run)\n"), tried.stderr
    assert finetune("get", "whole").returncode == 5
    running = in_background(lambda: submitted(trial) and trial.succeed(trial.run()))
    two = f"{written(trial.manifest)}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n"
    applied = finetune("apply", "-f", "-", "--wait", stdin=two)
    running.join(SECONDS)
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout == "finetunejob.finetune.dev/whole created\n"
    assert "skipped: ConfigMap" in applied.stderr
    assert "whole: Succeeded" in applied.stderr
    again = finetune("apply", "-", stdin=written(trial.manifest))
    assert again.stdout == "finetunejob.finetune.dev/whole unchanged\n"

    listed = finetune("get").stdout.splitlines()
    assert listed[0].split() == ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "ETA", "QUEUE", "AGE"]
    assert any(line.startswith("whole ") and "Succeeded" in line for line in listed)
    assert finetune("get", "-A", "-o", "wide").stdout.split()[0] == "NAMESPACE"
    assert json.loads(finetune("get", "whole", "-o", "json").stdout)["status"]["phase"] == "Succeeded"
    assert yaml.safe_load(finetune("get", "-o", "yaml").stdout)["kind"] == "List"
    assert finetune("get", "whole", "-o", "name").stdout == "finetunejob.finetune.dev/whole\n"

    told = finetune("describe", "whole").stdout
    for part in ("whole in ", "Succeeded", "✓ task: Succeeded", "pvc://runs/artifacts/adapter", "What happened"):
        assert part in told
    assert finetune("watch", "whole").stdout.count("whole: Succeeded") == 1
    assert finetune("wait", "whole", "--timeout", "1m").returncode == 0
    assert finetune("wait", "whole", "--for", "failed").returncode == 3
    assert finetune("cancel", "whole").stdout == "finetunejob.finetune.dev/whole has ended already: Succeeded\n"
    assert finetune("delete", "whole").stdout == "finetunejob.finetune.dev/whole deleted\n"
    trial.await_gone()


def test_what_is_wrong_with_a_manifest_is_said_with_its_line_and_nothing_is_sent(stage: Scene, finetune: Shell) -> None:
    good, bad = stage.trial("good"), stage.trial("bad", spec__seed=-1)
    refused = finetune("apply", "-f", "-", stdin=f"{written(good.manifest)}---\n{written(bad.manifest)}")
    assert refused.returncode == 10
    assert ": error: spec.seed: " in refused.stderr
    assert "error: 1 problem in standard input: nothing was applied" in refused.stderr
    assert finetune("get", "good").returncode == 5
    elsewhere = finetune("apply", "-", stdin=written({**good.manifest, "metadata": {"name": "good", "namespace": "elsewhere"}}))
    assert (elsewhere.returncode, "is for the namespace elsewhere, and -n says" in elsewhere.stderr) == (10, True)
    # What only the cluster knows: the spec of a job never changes. The others are applied all the same.
    assert finetune("apply", "-", stdin=written(good.manifest)).returncode == 0
    changed = finetune(
        "apply", "-", stdin=f"{written(stage.trial('good', spec__seed=8).manifest)}---\n{written(stage.trial('next').manifest)}"
    )
    assert (changed.returncode, changed.stdout) == (10, "finetunejob.finetune.dev/next created\n")
    assert "error: finetunejob.finetune.dev/good: the cluster refuses it: " in changed.stderr


def test_a_job_that_fails_says_why_and_its_words_do_nothing_to_the_terminal(stage: Scene, finetune: Shell) -> None:
    trial = stage.trial("broken")
    trial.submit()
    ending = in_background(lambda: failed(trial))
    waited = finetune("wait", "broken")
    ending.join(SECONDS)
    assert waited.returncode == 3
    assert "error: broken will not be Complete: it has ended, Failed" in waited.stderr
    assert "DataInvalid: row 7 is red and odd" in waited.stderr
    assert finetune("wait", "broken", "--for", "Finished", "-q").stderr == ""
    told = finetune("describe", "broken").stdout
    for part in ("DataInvalid in stage task (exit code 11)", "  row 7 is red and odd", "  → "):
        assert part in told
    assert finetune("watch", "broken").returncode == 3


def test_suspend_resume_and_cancel(stage: Scene, finetune: Shell) -> None:
    trial = stage.trial("paused")
    pod = trial.start()
    assert finetune("suspend", "paused").stdout == "finetunejob.finetune.dev/paused is being suspended: it saves, and gives its GPUs back\n"
    trial.stop(trial.await_stopping(pod))
    assert finetune("wait", "paused", "--for", "Suspended", "--timeout", "2m").returncode == 0
    assert finetune("resume", "paused", "-o", "name").stdout == "finetunejob.finetune.dev/paused\n"
    pod = trial.run(2)
    stopping = in_background(lambda: trial.stop(trial.await_stopping(pod)))
    cancelled = finetune("cancel", "paused", "--timeout", "2m")
    stopping.join(SECONDS)
    assert cancelled.stdout.startswith("finetunejob.finetune.dev/paused cancelled: saved, and nothing of it runs any more")


def test_a_watch_whose_connection_drops_goes_on(stage: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    trial = stage.trial("dropped")
    trial.submit()
    with Proxy(control_plane, tmp_path) as proxy:
        watching = Shell(stage, proxy.kubeconfig).begin("watch", "dropped")
        try:
            lines: list[str] = []
            reading = in_background(lambda: read(watching, lines))
            await_value(lambda: any("watch=true" in each.path for each in proxy.requests), what="a watch")
            proxy.down = True
            pod = trial.run()  # what is told of it meets a broken connection
            await_value(lambda: any("trying again" in line for line in lines), what="a watch that says that it was broken")
            proxy.down = False
            trial.succeed(pod)
            assert watching.wait(SECONDS) == 0, lines
            reading.join(SECONDS)
        finally:
            watching.kill()
            watching.communicate(timeout=60)
    said = [line.partition("] ")[2].strip() for line in lines]
    assert any(line.startswith("no connection to http://127.0.0.1") and line.endswith("; trying again") for line in said)
    assert said.index("the connection is back") < [line.startswith("dropped: Succeeded") for line in said].index(True)


# (arguments, exit code, words of the error, words of the hint); {name} is a job that is there
ERRORS = [
    pytest.param(
        ["get", "x", "--context", "tset"], 7, "the kubeconfig has no context tset", "Did you mean test?", id="a context that is not there"
    ),
    pytest.param(
        ["get", "x", "--kubeconfig", "/none"], 7, "there is no kubeconfig (/none)", "--kubeconfig", id="a kubeconfig that is not there"
    ),
    pytest.param(["get", "known-jo"], 5, "there is no FineTuneJob known-jo", "Did you mean known-job?", id="a name that is nearly right"),
    pytest.param(
        ["suspend", "known-jo"], 5, "there is no FineTuneJob known-jo", "Did you mean known-job?", id="to suspend what is not there"
    ),
    pytest.param(["watch", "known-jo"], 5, "there is no FineTuneJob known-jo", "Did you mean known-job?", id="to watch what is not there"),
    pytest.param(["wait", "zzz"], 5, "there is no FineTuneJob zzz", "finetune get -A", id="a name like none"),
    pytest.param(
        ["wait", "known-job", "--timeout", "0.2s"], 4, "known-job is not Complete after 0.2 s", "It goes on", id="a time that is over"
    ),
    pytest.param(["wait", "known-job", "--timeout", "soon"], 2, "--timeout soon: this is no duration", "10m", id="no duration"),
    pytest.param(["wait", "known-job", "--for", "Complet"], 2, "there is no such condition", "Did you mean Complete?", id="no condition"),
    pytest.param(["logs", "known-job"], 5, "no pod of known-job has a log now", "--follow", id="logs of what has not begun"),
    pytest.param(["get", "x", "-A"], 2, "names and -A or -l don't go together", "-n", id="a name in all namespaces"),
    pytest.param(["apply"], 2, "no manifest is named", "finetune apply -f job.yaml", id="nothing to apply"),
]


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), ERRORS)
def test_an_error_says_what_to_do(stage: Scene, finetune: Shell, arguments: list[str], code: int, message: str, hint: str) -> None:
    if stage.api.find(stage.trial("known-job").path) is None:
        stage.trial("known-job", spec__suspend=True).submit()
    done = finetune(*arguments)
    assert done.returncode == code, done.stderr
    assert f"error: {message}" in done.stderr or f": {message}" in done.stderr
    assert hint in done.stderr.partition("→")[2]


def test_kubectl_finds_it_as_its_plugin(finetune: Shell, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-finetune"
    plugin.write_text(f"#!{sys.executable}\nfrom finetune_cli.__main__ import main\nmain()\n")
    plugin.chmod(0o755)
    environment = {**finetune.environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def kubectl(*arguments: str) -> Ran:
        command = [str(binaries.resolve("kubectl")), "finetune", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)

    assert "There are no jobs in the namespace kube-public." in kubectl("get", "-n", "kube-public").stderr
    assert "Usage: kubectl finetune get" in kubectl("get", "--help").stdout


def test_who_may_not_is_told_what(stage: Scene, control_plane: Cluster) -> None:
    done = Shell(stage, control_plane.user("stranger"))("get")
    assert done.returncode == 6
    assert 'User "stranger" cannot list resource "finetunejobs"' in done.stderr


def test_a_cluster_without_the_operator_says_so(stage: Scene) -> None:
    """Its definitions can't be taken from a cluster that other tests use: another version of them is as unknown."""

    async def ask() -> None:
        transport = Transport(partial(load, stage.cluster.kubeconfig), user_agent="test")
        try:
            await transport.call("GET", "/apis/finetune.dev/v9/finetunejobs", what="FineTuneJobs")
        finally:
            await transport.close()

    with pytest.raises(OperatorMissing, match="does not know FineTuneJobs") as caught:
        asyncio.run(ask())
    assert command_error(caught.value).exit_code == 9


def test_a_cluster_that_is_away(stage: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    with Proxy(control_plane, tmp_path) as proxy:
        proxy.down = True
        away = Shell(stage, proxy.kubeconfig)("get")
    assert (away.returncode, "no connection to http://127.0.0.1" in away.stderr) == (7, True)
