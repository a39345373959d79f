"""The dashboard and the alert rules ask for metrics there are, with the labels they have."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from promql_parser import AggregateExpr, MatchOp, VectorSelector

from claude_batch_tasks.metrics import METRICS, Metric

pytestmark = pytest.mark.latest

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
(GROUP,) = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())["groups"]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}

#: What Prometheus gives every series.
OF_THE_SCRAPE = {"job"}

SERIES: dict[str, tuple[Metric, set[str]]] = {
    name: (metric, {*metric.labels, *OF_THE_SCRAPE, *more})
    for metric in METRICS.values()
    for name, more in (
        [(f"{metric.exposed_name}_{end}", {"le"} if end == "bucket" else ()) for end in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [(metric.exposed_name, ())]
    )
}

#: Every danger that is to wake somebody, and the rule that does.
DANGERS = {
    "many 404s": "ClaudeBatchManyNotFound",
    "a batch is not seen": "ClaudeBatchNotSeen",
    "a batch does not end": "ClaudeBatchTooOld",
    "results are soon deleted": "ClaudeBatchResultsSoonDeleted",
    "no worker runs": "ClaudeBatchNoWorkerSeen",
    "no worker takes what is due": "ClaudeBatchNobodyTakesWhatIsDue",
    "no worker makes a job of a pool": "ClaudeBatchNobodySeals",
    "messages get lost": "ClaudeBatchMessagesLost",
    "the fallback costs money": "ClaudeBatchFallbackCosts",
    "a create is not answered": "ClaudeBatchCreateNotResolved",
    "a create may be paid twice": "ClaudeBatchCreateGivenUp",
    "a job failed": "ClaudeBatchJobFailed",
    "requests fail": "ClaudeBatchRequestsFail",
    "answers are not complete": "ClaudeBatchAnswersIncomplete",
    "results are incomplete": "ClaudeBatchResultsIncomplete",
    "the API fails": "ClaudeBatchApiFails",
    "the API refuses the key": "ClaudeBatchRefused",
}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Any]:
    for panel in panels():
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"panel-{panel['id']}{target['refId']}")
    for name, rule in RULES.items():
        yield pytest.param(rule["expr"], id=name)


def parts(query: str) -> list[Any]:
    """The query's parts, from the outside inwards."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), found.append)
    return found


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_asks_for_what_there_is(query: str) -> None:
    selectors = [part for part in parts(query) if isinstance(part, VectorSelector)]
    assert selectors
    for selector in selectors:
        metric, labels = SERIES[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels
            known = metric.labels.get(matcher.name)
            if known and matcher.op == MatchOp.Equal:
                assert matcher.value in known
            elif known:
                assert all(value in known for value in matcher.value.split("|"))
    for part in parts(query):
        if isinstance(part, AggregateExpr):
            inside = [SERIES[s.name][1] for s in parts(str(part.expr)) if isinstance(s, VectorSelector)]
            assert all(set(part.modifier.labels) <= labels for labels in inside), part


@pytest.mark.parametrize("query", list(queries()))
def test_gauges_that_each_worker_tells_are_not_added_up(query: str) -> None:
    for part in parts(query):
        if isinstance(part, AggregateExpr):
            kinds = {SERIES[s.name][0].kind for s in parts(str(part.expr)) if isinstance(s, VectorSelector)}
            assert str(part.op) in (("max", "min") if kinds == {"gauge"} else ("sum",)), part


def test_the_dashboard_shows_every_metric_and_has_what_grafana_needs() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    for metric in METRICS.values():
        assert metric.exposed_name in shown, metric.name
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert {"x", "y", "w", "h"} == panel["gridPos"].keys()
        assert all('job=~"$job"' in target["expr"] for target in panel["targets"]), panel["title"]


def test_there_is_a_rule_for_each_danger_that_says_what_it_means_and_what_to_do() -> None:
    assert set(DANGERS.values()) == RULES.keys()
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"].keys() == {"summary", "description", "action"}, name
        assert all(text.strip() for text in rule["annotations"].values()), name


def test_the_rules_fire_where_they_should() -> None:
    """Checked where Prometheus' own tool is installed; the tests that it runs name each rule all the same."""
    tests = ROOT / "tests" / "metrics" / "alerts.yml"
    assert set(re.findall(r'alertname="(\w+)"', tests.read_text())) == RULES.keys()
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    ran = subprocess.run([promtool, "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_page_on_monitoring_has_the_present_metrics_and_alerts() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "metrics_table.py"))
    page = (ROOT / "docs" / "howto" / "monitoring.md").read_text()
    assert script["updated"](page) == page, "run: python docs/metrics_table.py"
