"""Rules, runbooks and boards: taken by Prometheus' own tool, and in step with each other and with what the operator tells."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from finetune_api import constants
from finetune_operator.metrics import catalogue
from finetune_operator.resources.job import METRICS
from finetune_trainer import pod_metrics
from scripts.render_chart import CHART, FULL, ROOT, objects, rendered
from tests.cluster import debian
from tests.monitoring import BOARDS, RULES, expressions, recorded

HERE: Final = Path(__file__).parent
RUNBOOKS: Final = "docs/how-to/alerts.md"
SUFFIXES: Final = re.compile(r"_(bucket|sum|count)$")


def promtool(*arguments: str | Path) -> str:
    command = [str(debian.resolve("promtool")), *map(str, arguments)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_each_alert_fires_where_it_should_and_only_there() -> None:
    promtool("test", "rules", HERE / "rules_test.yaml")
    tested = {
        case["alertname"]
        for test in yaml.safe_load((HERE / "rules_test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert tested == {rule["alert"] for rule in alerts()}


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / RUNBOOKS).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def known() -> set[str]:
    told = (*catalogue.OPERATOR, *catalogue.FLEET, *catalogue.JOB)
    return {metric.name for metric in told} | set(recorded())


def names(expression: str) -> Iterator[str]:
    """Names of ours in a query."""
    for name in re.findall(r"(?:namespace:)?\bfinetune[:_][a-z0-9_:]+", re.sub(r'"[^"]*"', '""', expression)):
        yield name if name in known() else SUFFIXES.sub("", name)


def queries() -> list[tuple[str, str]]:
    rules = yaml.safe_load(RULES.read_text())["groups"]
    of_rules = [(str(rule.get("alert") or rule.get("record")), str(rule["expr"])) for group in rules for rule in group["rules"]]
    return of_rules + [(f"{board.stem}: {title}", query) for board in BOARDS for title, query in expressions(board)]


def test_every_query_asks_for_what_is_told() -> None:
    asked = {(where, name) for where, query in queries() for name in names(query)}
    assert not [(where, name) for where, name in asked if name not in known()]


def test_whatever_is_told_of_jobs_and_of_the_operator_is_asked_for() -> None:
    asked = {name for _, query in queries() for name in names(query)}
    assert known() - asked == set()


@pytest.mark.parametrize("board", BOARDS, ids=[path.stem for path in BOARDS])
def test_a_board_is_what_grafana_takes(board: Path) -> None:
    document = json.loads(board.read_text())
    panels = document["panels"]
    assert document["uid"] == board.stem
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in document["templating"]["list"]}
    for _, query in expressions(board):
        assert set(re.findall(r"\$(\w+)", query)) <= variables | {"__rate_interval"}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        others = [other["gridPos"] for other in panels if other["id"] != panel["id"]]
        assert not [other for other in others if _overlap(place, other)], panel["title"]


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]


def test_the_chart_ships_rules_and_boards_as_they_are() -> None:
    documents = objects(rendered(FULL))
    (rule,) = [each for each in documents if each["kind"] == "PrometheusRule"]
    assert json.dumps(rule["spec"]).replace("https://docs.example.com/alerts", RUNBOOKS) == json.dumps(yaml.safe_load(RULES.read_text()))
    shipped = {name: text for each in documents if each["kind"] == "ConfigMap" for name, text in each["data"].items()}
    assert {name: json.loads(text) for name, text in shipped.items()} == {path.name: json.loads(path.read_text()) for path in BOARDS}
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in documents if each["kind"] == "ConfigMap")


def test_the_monitor_finds_the_service_and_leaves_the_labels_of_jobs_alone() -> None:
    documents = objects(rendered(FULL))
    (monitor,) = [each for each in documents if each["kind"] == "ServiceMonitor"]
    (service,) = [each for each in documents if each["kind"] == "Service"]
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = [port for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
    ports = {each["name"]: each["containerPort"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports[port["targetPort"]] == 8081


@pytest.mark.parametrize(
    ("watched", "namespaces"),
    [([], {"any": True}), (["team-a", "team-b"], {"matchNames": ["team-a", "team-b"]})],
    ids=["every namespace", "some"],
)
def test_the_monitor_of_pods_finds_those_that_have_a_port(watched: list[str], namespaces: dict[str, Any]) -> None:
    asked = {"watchNamespaces": watched, "metrics": {"podMonitor": {"enabled": True}}}
    (monitor,) = [each for each in objects(rendered(asked)) if each["kind"] == "PodMonitor"]
    assert monitor["spec"]["namespaceSelector"] == namespaces
    assert monitor["spec"]["selector"]["matchLabels"] == {constants.MANAGED_LABEL: "true"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == (METRICS, pod_metrics.PATH)
    named = {label for each in endpoint["relabelings"] for label in each["sourceLabels"]}
    told = (constants.JOB_LABEL, constants.SEGMENT_LABEL, constants.ATTEMPT_LABEL)
    assert named == {"__meta_kubernetes_pod_label_" + re.sub(r"[./-]", "_", label) for label in told}


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    kinds = {each["kind"] for each in objects(rendered({}))}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"}
    assert (CHART / "monitoring").is_dir()
