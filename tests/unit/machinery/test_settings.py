"""How the operator is started: what each setting means, and everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.errors import SettingsError
from finetune_operator.model import Key
from finetune_operator.settings import FLAGS, PREFIX, USAGE, ProgressSettings, Settings, parse

IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "finetune-operator-0"}


def test_a_pod_needs_no_setting() -> None:
    assert parse([], IN_A_POD) == Settings(identity="finetune-operator-0")


def test_a_flag_goes_before_the_environment() -> None:
    environment = {**IN_A_POD, f"{PREFIX}WORKERS": "3", f"{PREFIX}LOG_LEVEL": "DEBUG"}
    settings = parse(["--workers", "5", "--relist-seconds=30"], environment)
    assert (settings.workers, settings.relist_seconds, settings.log_level) == (5, 30, "debug")


def test_namespaces_are_a_list() -> None:
    assert parse(["--namespaces", "team-a, team-b,"], IN_A_POD).namespaces == ("team-a", "team-b")


def test_a_kubeconfig_goes_before_the_service_account(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.touch()
    assert parse([], {**IN_A_POD, "KUBECONFIG": str(file)}).kubeconfig == file
    assert parse(["--kubeconfig", str(file), "--context", "here"], IN_A_POD).context == "here"


URL = "https://finetune-operator.finetune-system.svc:8443/v1/progress"


def test_pods_report_where_the_settings_say_and_to_nobody_by_default() -> None:
    assert parse([], IN_A_POD).progress is None
    environment = {**IN_A_POD, f"{PREFIX}PROGRESS_URL": URL, f"{PREFIX}PROGRESS_SECRET": "finetune-system/progress"}
    assert parse(["--progress-port", "0"], environment).progress == ProgressSettings(URL, 0, Key("finetune-system", "progress"))


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        pytest.param(["--progress-url", URL], IN_A_POD, "progress-secret: '': write NAMESPACE/NAME", id="an address without a Secret"),
        pytest.param(["--progress-secret", "a/b"], IN_A_POD, "progress-url: '': write https://HOST:PORT/v1/progress", id="a Secret alone"),
        pytest.param(["--progress-url", "http://h:1/v1/progress"], IN_A_POD, "write https://HOST:PORT", id="an address without TLS"),
        pytest.param(["--progress-url", "https://h:x/v1/progress"], IN_A_POD, "write https://HOST:PORT", id="an address without a port"),
        pytest.param(["--progress-url", "https://h:1/"], IN_A_POD, "write https://HOST:PORT", id="an address of something else"),
        pytest.param(["--progress-port", "-1"], IN_A_POD, "progress-port: '-1'", id="a port that is none"),
        pytest.param(["--workers", "0"], IN_A_POD, "workers: '0': write a whole number from 1 to 64", id="too few workers"),
        pytest.param(["--workers", "x"], IN_A_POD, "workers: 'x'", id="no number"),
        pytest.param(["--workers", "²"], IN_A_POD, "workers: '²'", id="a digit of another kind"),
        pytest.param(["--probes-port", "65536"], IN_A_POD, "from 0 to 65535", id="no port"),
        pytest.param(["--namespaces", "Team_A"], IN_A_POD, "'Team_A' is no namespace's name", id="no namespace"),
        pytest.param(["--namespaces", "a,a"], IN_A_POD, "a name stands twice", id="a namespace twice"),
        pytest.param(["--log-level", "loud"], IN_A_POD, "write one of debug, info", id="no level"),
        pytest.param(["--worker", "1"], IN_A_POD, "--worker: there is no such flag", id="a typo in a flag"),
        pytest.param(["workers", "1"], IN_A_POD, "workers: there is no such flag", id="a flag without hyphens"),
        pytest.param(["--workers"], IN_A_POD, "--workers: its value is missing", id="a flag without its value"),
        pytest.param([], {**IN_A_POD, f"{PREFIX}WORKER": "1"}, f"{PREFIX}WORKER: there is no such setting", id="a typo in the environment"),
        pytest.param([], {}, "this is no pod, and no kubeconfig is given", id="nowhere"),
        pytest.param(["--kubeconfig", "/none"], IN_A_POD, "/none is no file", id="no kubeconfig"),
        pytest.param(["--context", "x"], IN_A_POD, "there is no kubeconfig to take it from", id="a context of nothing"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(arguments: list[str], environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(arguments, environment)
    assert said in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(["--workers", "x", "--probes-port", "y", "--nothing", "z"], {})
    assert len(caught.value.problems) == 4


def test_the_usage_tells_of_every_flag() -> None:
    assert [flag for flag in FLAGS if f"--{flag} " not in USAGE] == []
