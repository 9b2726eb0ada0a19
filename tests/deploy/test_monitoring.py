"""The shipped rules, dashboard and configuration: valid, and about metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring.dashboard import FILE, ROWS, dashboard
from service.telemetry import prometheus
from tests.support.monitoring.prometheus import (
    MONITORING,
    RULES,
    needs_alertmanager,
    needs_prometheus,
    panels,
    shortened,
)
from tests.support.servers.served import ROOT

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
_NAME = re.compile(r"(?<![:\w])(?:resnet|process)_[a-z0-9_]+\b(?!\.)")
_RECORDED = re.compile(r"\bresnet:[a-z0-9_:]+\b")
_PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "performance-log.md")
TESTS_OF_RULES = (MONITORING / "rules_test.yml", MONITORING / "rules_drift_test.yml")
_NO_METRICS = {"resnet_service", "resnet_mcp"}  # names of packages


def series() -> set[str]:
    """Return the names of all series that a server may have."""
    text = prometheus.render(prometheus.Snapshot(counters={}, gauges={}, models=[])).decode()
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        found |= {name.removesuffix("_total") + suffix for suffix in _SUFFIXES[kind]}
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def unknown_names(text: str) -> set[str]:
    """Return the metrics and recorded series that a text names and that do not exist."""
    known = series()
    families = {name.removesuffix("_bucket") for name in known} | _NO_METRICS
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return (set(_NAME.findall(text)) - known - families) | (set(_RECORDED.findall(text)) - recorded)


def test_each_metric_of_the_rules_exists() -> None:
    assert unknown_names("\n".join(rule["expr"] for rule in rules())) == set()


def test_each_metric_of_the_dashboard_exists() -> None:
    assert unknown_names(FILE.read_text()) == set()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_each_metric_of_a_page_exists(page: Path) -> None:
    assert unknown_names(page.read_text()) == set()


def test_a_metric_that_does_not_exist_is_found() -> None:
    text = "resnet_queue_depth resnet_queue_deepness_total rate(resnet:loads:rate1m[5m]) resnet_decode_seconds"
    assert unknown_names(text) == {"resnet_queue_deepness_total", "resnet:loads:rate1m"}


def test_each_metric_has_a_panel_or_an_alert() -> None:
    text = FILE.read_text() + RULES.read_text()
    families = {re.sub("_(?:bucket|sum|count)$", "", name) for name in series()}
    unused = {name for name in families if name not in text}
    assert unused == {"process_start_time_seconds"}  # Prometheus' own convention; the uptime says the same


def test_the_dashboard_is_what_its_panels_say() -> None:
    assert json.loads(FILE.read_text()) == dashboard(), "run python -m deploy.monitoring.dashboard"


def test_the_dashboard_has_four_rows_without_overlaps() -> None:
    document = dashboard()
    assert [panel["title"] for panel in document["panels"] if panel["type"] == "row"] == list(ROWS)
    assert len(ROWS) == 4
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in document["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_each_panel_says_what_it_shows() -> None:
    for row in ROWS.values():
        for panel in row:
            assert panel.description.endswith("."), panel.title
            assert panel.unit, panel.title
            assert panel.queries, panel.title


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_section_in_the_page_for_operators(alert: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
    assert f"\n### {alert['alert']}\n" in page
    assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_the_page_for_operators_has_no_section_without_an_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Resnet\w+)$", page, re.MULTILINE)) == {alert["alert"] for alert in ALERTS}


@needs_prometheus
def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    for command in (("check", "rules", RULES), ("check", "config", MONITORING / "prometheus.yml")):
        subprocess.run(["promtool", *command], check=True, capture_output=True)


@needs_alertmanager
def test_amtool_accepts_the_configuration() -> None:
    subprocess.run(["amtool", "check-config", MONITORING / "alertmanager.yml"], check=True, capture_output=True)


@needs_prometheus
def test_the_shipped_rules_fire_and_resolve_as_their_tests_say() -> None:
    done = subprocess.run(["promtool", "test", "rules", *TESTS_OF_RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_rules_cover_each_alert() -> None:
    tests = [test for file in TESTS_OF_RULES for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fired == silent == {alert["alert"] for alert in ALERTS}


@needs_prometheus
def test_a_wrong_threshold_fails_the_tests_of_the_rules(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "rules_test.yml", tmp_path)
    (tmp_path / "rules.yml").write_text(RULES.read_text().replace("resnet:load:rate1m > 0.9", "resnet:load:rate1m > 9"))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "rules_test.yml"], capture_output=True, check=False)
    assert done.returncode == 1


def test_shortening_divides_each_window_delay_and_interval_and_nothing_else() -> None:
    text = "record: a:rate5m\nexpr: rate(b[5m]) > 60\nfor: 10m\nscrape_interval: 15s\n"
    expected = "record: a:rate5m\nexpr: rate(b[5000ms]) > 60\nfor: 10000ms\nscrape_interval: 250ms\n"
    assert shortened(text, 60) == expected


def test_compose_mounts_the_files_of_the_folder() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    kit = {name: service for name, service in services.items() if "monitoring" in service.get("profiles", ())}
    assert set(kit) == {"prometheus", "alertmanager", "grafana"}
    for service in kit.values():
        for volume in service["volumes"]:
            source = volume if isinstance(volume, str) else volume["source"]
            assert not source.startswith(".") or (ROOT / source.split(":")[0]).exists(), source
    (scraped,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["service:8001"]}]
    assert "service" in services


def test_the_dashboard_asks_only_for_variables_that_it_has() -> None:
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = {name for _, query in panels({}) for name in re.findall(r"\$(\w+)", query)}
    assert used - {"__rate_interval"} <= names
