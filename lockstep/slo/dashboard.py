"""The Grafana dashboard: what the objectives are about, as one document of JSON."""

import json
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any, Final, TypeAlias

from lockstep.slo.panels import Panel, Query, Row

UID: Final = "lockstep-objectives"
SCHEMA_VERSION: Final = 38
"""Of Grafana 10; later ones convert it when they read it."""
WIDTH: Final = 24
HEIGHT: Final = 8

Json: TypeAlias = dict[str, Any]
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_DASHED: Final = [
    {"id": "custom.lineStyle", "value": {"dash": [10, 10], "fill": "dash"}},
    {"id": "custom.lineWidth", "value": 1},
    {"id": "custom.fillOpacity", "value": 0},
]


def dashboard(rows: Sequence[Row]) -> str:
    """Return the dashboard as JSON that Grafana imports; equal rows give equal bytes."""
    document = {
        "uid": UID,
        "title": "Feature objectives",
        "description": "Written by `lockstep slo export` from the contracts of the feature views.",
        "tags": ["lockstep"],
        "editable": True,
        "schemaVersion": SCHEMA_VERSION,
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_datasource(), _views()]},
        "annotations": {"list": [_alerts()]},
        "panels": list(_panels(rows)),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
    }


def _views() -> Json:
    query = "label_values(lockstep_view_ready, view)"
    return {
        "name": "view",
        "label": "View",
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "views"},
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def _alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "expr": 'ALERTS{alertstate="firing",runbook!=""}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{view}} {{owner}}",
        "iconColor": "red",
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    number, top = 1, 0
    for row in rows:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        number, top = number + 1, top + 1
        width = WIDTH // len(row.panels)
        for at, panel in enumerate(row.panels):
            place = {"x": at * width, "y": top, "w": width, "h": HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            number += 1
        top += HEIGHT


def _panel(panel: Panel) -> Json:
    named = list(zip(ascii_uppercase, panel.queries, strict=False))
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                **({} if panel.most is None else {"max": panel.most}),
                "custom": {"fillOpacity": 5, "lineWidth": 2, "showPoints": "never"},
            },
            "overrides": [
                {"matcher": {"id": "byFrameRefID", "options": name}, "properties": _DASHED}
                for name, query in named
                if query.limit
            ],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [_target(name, query) for name, query in named],
    }


def _target(name: str, query: Query) -> Json:
    return {
        "refId": name,
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": True,
    }
