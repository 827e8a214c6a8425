"""The dashboard and the alert rules that ship with the library: they parse, and every metric they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saga.monitoring._families import FAMILIES

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
ALERTS = FOLDER / "alerts.yaml"
ALERTS_TEST = FOLDER / "alerts_test.yaml"
DASHBOARD = FOLDER / "dashboard.json"
PROMTOOL = shutil.which("promtool")
COLUMNS = 24


def exported() -> dict[str, set[str]]:
    """Return the names of all series with the labels that each has."""
    found: dict[str, set[str]] = {}
    for family in FAMILIES:
        ending = {"counter": "_total", "gauge": "", "duration": "_sum"}[family.kind]
        found[family.name + ending] = set(family.labels)
    return found


def expressions_of_alerts() -> list[str]:
    """Return the rules' expressions; each stands on one line."""
    return re.findall(r"^ +expr: (.+)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    parsed: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return parsed


def expressions_of_panels() -> list[str]:
    """Return the panels' expressions."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def complaints(expression: str) -> list[str]:
    """Return what an expression names that is not exported: metrics, and labels of those it has."""
    known = exported()
    named = set(re.findall(r"\bsaga_\w+", expression))
    wrong = sorted(named - known.keys())
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",")}
    there = set().union(*(known[name] for name in named & known.keys())) | {"instance"}
    return wrong + sorted(labels - there)


@pytest.mark.parametrize("expression", [*expressions_of_alerts(), *expressions_of_panels()])
def test_every_metric_and_label_that_is_named_is_exported(expression: str) -> None:
    """A panel without data, and an alert that never fires, look like good news."""
    assert re.search(r"\bsaga_\w+", expression)
    assert complaints(expression) == []


def test_a_metric_or_label_that_does_not_exist_is_noticed() -> None:
    """A check that finds nothing wrong in a wrong expression would be none."""
    assert complaints('sum by (sagaa) (rate(saga_startet_total{outcom="x"}[5m]))') == [
        "saga_startet_total",
        "outcom",
        "sagaa",
    ]


def test_the_rules_cover_what_must_not_go_unnoticed() -> None:
    """Attention, age, compensations that fail, takeovers; each rule says what to do."""
    text = ALERTS.read_text(encoding="utf-8")
    rules = re.findall(r"^      - alert: (\w+)$", text, re.MULTILINE)
    assert len(rules) == len(set(rules)) == len(expressions_of_alerts())
    assert text.count("summary:") == text.count("description:") == text.count("severity:") == len(rules)
    for name in (
        "saga_needs_attention",
        "saga_oldest_unfinished_seconds",
        'phase="compensation"',
        "saga_takeovers_total",
    ):
        assert any(name in expression for expression in expressions_of_alerts())


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)")
def test_prometheus_itself_accepts_the_rules_and_the_panels_expressions(tmp_path: Path) -> None:
    """Rules as they are; the panels' expressions as recording rules, with Grafana's variables filled in."""
    texts = [filled(expression) for expression in expressions_of_panels()]
    lines = [f"      - record: panel_{number}\n        expr: {json.dumps(text)}" for number, text in enumerate(texts)]
    panels = tmp_path / "panels.yaml"
    panels.write_text("groups:\n  - name: panels\n    rules:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    assert PROMTOOL is not None
    for file, rules in ((ALERTS, len(expressions_of_alerts())), (panels, len(texts))):
        done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{rules} rules found" in done.stdout


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)")
def test_each_rule_fires_where_it_should_and_is_silent_where_it_should() -> None:
    """Also for a counter's first value in a young process, which an increase alone does not see."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", str(ALERTS_TEST)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def filled(expression: str) -> str:
    """Return a panel's expression as Grafana asks it."""
    return expression.replace("$__rate_interval", "5m").replace("$saga", ".*")


STEP = 'saga="Order", step="pay", phase="action"'
PANELS: dict[str, tuple[dict[str, str], dict[str, dict[str, float]]]] = {
    # Two processes see the same ten stored sagas, and each shows another name as ``other``.
    "In flight": (
        {
            'saga_in_flight{saga="A", instance="x"}': "7x10",
            'saga_in_flight{saga="other", instance="x"}': "3x10",
            'saga_in_flight{saga="B", instance="y"}': "3x10",
            'saga_in_flight{saga="other", instance="y"}': "7x10",
        },
        {"10m": {"{}": 10}},
    ),
    # Attempts of one second; the first failures come late, after their seconds, and of another step the seconds alone.
    "Duration of attempts, mean": (
        {
            f"saga_step_duration_seconds_sum{{{STEP}}}": "0+2x10 22 22x20",
            f'saga_step_attempts_total{{{STEP}, outcome="succeeded"}}': "0+2x10 20 20x20",
            f'saga_step_attempts_total{{{STEP}, outcome="failed"}}': "0x10 0 2x20",
            'saga_step_duration_seconds_sum{saga="Order", step="ship", phase="action"}': "0x10 9x20",
            'saga_step_attempts_total{saga="Order", step="ship", phase="action", outcome="succeeded"}': "0x30",
        },
        {"10m": {f"{{{STEP}}}": 1}, "13m": {f"{{{STEP}}}": 1}, "25m": {}},
    ),
    # Born above 0, in a process that was not there before; seen once.
    "Attempts that did not succeed": (
        {f'saga_step_attempts_total{{{STEP}, outcome="failed", instance="x"}}': "_x3 1x30"},
        {"5m": {f'{{{STEP}, outcome="failed"}}': 1}, "20m": {f'{{{STEP}, outcome="failed"}}': 0}},
    ),
    "Takeovers and lost leases": (
        {'saga_takeovers_total{saga="Order", instance="x"}': "_x3 2x30"},
        {"5m": {'{saga="Order"}': 2}, "20m": {'{saga="Order"}': 0}},
    ),
    "Errors of observers": (
        {'saga_observer_errors_total{observer="Tracer", instance="x"}': "_x3 1x30"},
        {"5m": {'{observer="Tracer"}': 1}, "20m": {'{observer="Tracer"}': 0}},
    ),
}
"""By a panel's title: what there is, and what its first expression is at an instant."""


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)")
@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_what_happened(title: str, tmp_path: Path) -> None:
    """Also for the first time in a young process, and in a fleet whose processes give other names away."""
    series, shown = PANELS[title]
    [panel] = [panel for panel in dashboard()["panels"] if panel["title"] == title]
    asked = [
        {
            "expr": filled(panel["targets"][0]["expr"]),
            "eval_time": instant,
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for instant, samples in shown.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": given, "promql_expr_test": asked}
    # JSON is YAML, too.
    file = tmp_path / "panel.yaml"
    file.write_text(json.dumps({"tests": [case]}), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [wrong for name in series for wrong in complaints(name)] == []


def test_the_names_to_choose_from_are_those_of_all_sagas() -> None:
    """Also of those that are only stored, whose processes may all be gone."""
    [variable] = [each for each in dashboard()["templating"]["list"] if each["name"] == "saga"]
    assert variable["query"]["query"] == 'label_values({__name__=~"saga_started_total|saga_in_flight"}, saga)'


def test_each_rule_is_seen_to_fire_and_to_be_silent() -> None:
    """A rule that no case lets fire may be one that never does."""
    text = ALERTS_TEST.read_text(encoding="utf-8")
    silent = set(re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", text))
    fires = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n", text))
    rules = set(re.findall(r"^      - alert: (\w+)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE))
    assert fires == rules
    assert silent == rules


def test_the_series_that_the_cases_have_are_exported() -> None:
    """Cases about a metric that does not exist would prove nothing."""
    series = re.findall(r"\{series: '([^']+)'", ALERTS_TEST.read_text(encoding="utf-8"))
    assert series
    assert [wrong for each in series for wrong in complaints(each)] == []


def test_the_dashboard_is_one_that_grafana_can_draw() -> None:
    """Ids and places of panels are their own, and every panel asks the data source that is chosen."""
    board = dashboard()
    assert board["schemaVersion"] >= 36
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "saga"}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_exported_metric_is_on_the_dashboard() -> None:
    """What nobody can see might as well not be counted."""
    shown = " ".join(expressions_of_panels())
    assert [family.name for family in FAMILIES if family.name not in shown] == []
