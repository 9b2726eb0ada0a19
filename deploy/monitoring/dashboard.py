"""Writer of the Grafana dashboard, from the panels of the folder `panels`.

python -m deploy.monitoring.dashboard

A test holds grafana/dashboards/resnet-service.json equal to what this module returns. Another one runs every query of
it on a Prometheus that scrapes a loaded server.
"""

import json
from pathlib import Path
from typing import Any

from deploy.monitoring.panels import changes, headroom, health, time
from deploy.monitoring.panels.panel import TARGETS, Panel

FILE = Path(__file__).parent / "grafana" / "dashboards" / "resnet-service.json"
ROWS = {row.TITLE: row.ROW for row in (health, time, headroom, changes)}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_INSTANCES = 'label_values(resnet_ready{job=~"$job"}, instance)'
_COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON model."""
    return {
        "uid": "resnet-service",
        "title": "ResNet service",
        "tags": ["resnet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": [_reloads("loaded", "blue"), _reloads("refused", "red")]},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    ]
    for name, query in (("job", "label_values(resnet_ready, job)"), ("instance", _INSTANCES)):
        variables.append(
            {
                "name": name,
                "type": "query",
                "datasource": _SOURCE,
                "query": {"query": query, "refId": name},
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            }
        )
    return variables


def _reloads(outcome: str, colour: str) -> dict[str, Any]:
    return {
        "name": f"Models {outcome}",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": f'increase(resnet_reloads_total{{{TARGETS},outcome="{outcome}"}}[1m]) > 0',
        "titleFormat": f"model {outcome}",
        "textFormat": "{{instance}}",
        "step": "60s",
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_placed({"type": "row", "title": title, "collapsed": False, "panels": []}, 0, top, _COLUMNS, 1))
        top, left, height = top + 1, 0, 0
        for panel in row:
            if left + panel.width > _COLUMNS:
                top, left, height = top + height, 0, 0
            panels.append(_placed(_panel(panel), left, top, panel.width, panel.height))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return [{"id": number, **panel} for number, panel in enumerate(panels, start=1)]


def _placed(panel: dict[str, Any], left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {**panel, "gridPos": {"x": left, "y": top, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    is_heatmap, is_table = panel.kind == "heatmap", panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": legend,
            "format": "heatmap" if is_heatmap else "table" if is_table else "time_series",
            "instant": is_table or panel.kind == "stat",
        }
        for number, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "noValue": "no traffic"}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        lines = {"fillOpacity": 25 if panel.stacked else 5, "stacking": stacking, "showPoints": "never"}
        limit = {"thresholdsStyle": {"mode": "line"}} if panel.red_above is not None else {}
        defaults["custom"] = {**lines, **limit}
    if panel.red_above is not None:
        defaults["thresholds"] = _thresholds("green", panel.red_above, "red")
    if panel.red_below is not None:
        defaults["thresholds"] = _thresholds("red", panel.red_below, "green")
    return defaults


def _thresholds(first: str, limit: float, second: str) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, {"color": second, "value": limit}]}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "none"}
    return {}


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
