"""Views with objectives of their own, the rules they make, and promtool to judge those.

paid     80 ms, 99.9 %, 30 h; amount must be filled in 95 % of rows and keep to PSI 0.2
plain    what a contract promises that says nothing: 100 ms, 99 %, 29 h
lenient  100 ms, 90 %
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pytest
import yaml

from lockstep import Entity, Feature, Features, FeatureView, Source, feature_view
from lockstep.alerts.settings import AlertSettings
from lockstep.slo.export import RULES, exported

USER = Entity("user", {"user_id": pl.Int64}, "Somebody.", buckets=2)
VISITS = Source(
    "visits",
    {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
    event_time="at",
    unique_by=["user_id", "at"],
    start=date(2026, 1, 1),
)
SETTINGS = AlertSettings(owner="team:serving")


def program(name: str) -> str:
    """The path of one of Debian's Prometheus programs; skips the test where it is absent."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt install prometheus)")
    return found


def view(name: str, contract: type[Features]) -> FeatureView:
    def function(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits

    function.__name__ = name
    return feature_view(contract, inputs=[VISITS.trailing(days=1)])(function)


def promising(name: str, *, owner: str = "team:tests", **promises: Any) -> FeatureView:
    """A view with one feature and such promises."""

    class Promise(Features, entity=USER, owner=owner, ttl=None, **promises):
        """Something."""

        number = Feature(pl.Int64, "A number.")

    return view(name, Promise)


def views() -> list[FeatureView]:
    class Paid(
        Features,
        entity=USER,
        owner="team:pay",
        ttl=None,
        latency=timedelta(milliseconds=80),
        objective=0.999,
        freshness=timedelta(hours=30),
    ):
        """What somebody paid."""

        amount = Feature(pl.Float64, "Amount.", fill_rate=0.95, max_psi=0.2)
        tips = Feature(pl.Float64, "Tips.")

    return [
        view("paid", Paid),
        promising("plain"),
        promising("lenient", owner="team:other", objective=0.9),
    ]


def rules_of(folder: Path, declared: Sequence[FeatureView]) -> Path:
    """Write the rules of some views."""
    file = folder / RULES
    file.write_text(exported(declared, SETTINGS)[RULES], encoding="utf-8")
    return file


def only(rules: Path, *groups: str) -> Path:
    """Write some groups of a file of rules to one of their own: promtool is slow with many."""
    found = yaml.safe_load(rules.read_text("utf-8"))["groups"]
    kept = [group for group in found if group["name"] in groups]
    assert len(groups) == len(kept)
    file = rules.with_name(f"{'-'.join(groups)}.yml")
    file.write_text(json.dumps({"groups": kept}), encoding="utf-8")  # JSON is YAML
    return file


def loaded(text: str) -> list[dict[str, Any]]:
    """The rules of a file, as Prometheus reads them."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )


FIRING = "count by (alertname, severity, view, feature) (ALERTS{{alertstate='firing',{which}}})"
Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Story:
    """Series that are played to the rules, and the alerts that must then fire.

    Attributes:
        series: Series → its values, one per interval, in promtool's notation.
        at: Time → exactly the alerts that then fire, as the labels that tell them apart.
        alerts: Tests of whole alerts, in promtool's words.
    """

    series: Labels
    at: Mapping[str, Sequence[Labels]]
    alerts: Sequence[Mapping[str, Any]] = ()


def told(
    rules: Path,
    which: str,
    series: Labels,
    at: Mapping[str, Sequence[Labels]],
    *,
    interval: str = "1m",
    alerts: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Hold the alerts that fire in a story against those expected; `which` as in `hold`."""
    hold(rules, which, [Story(series, at, alerts)], interval)


def hold(rules: Path, which: str, stories: Sequence[Story], interval: str) -> None:
    """Hold the alerts that fire in each story against those expected.

    Args:
        which: The names of the alerts that are asked about, `|` between them.
    """
    written = rules.read_text("utf-8")
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": interval,
        # Else in any order; a server is at most one interval behind, which here may be long.
        "group_eval_order": [group["name"] for group in yaml.safe_load(written)["groups"]],
        "tests": [_test(story, which, interval) for story in stories],
    }
    file = rules.parent / "test.json"  # JSON is YAML
    file.write_text(json.dumps(test), encoding="utf-8")
    done = promtool("test", "rules", file)
    assert 0 == done.returncode, done.stdout + done.stderr


def _test(story: Story, which: str, interval: str) -> dict[str, Any]:
    expression = FIRING.format(which=f"alertname=~'{which}'")
    return {
        "interval": interval,
        "input_series": [{"series": k, "values": v} for k, v in story.series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": time, "exp_samples": _samples(expected)}
            for time, expected in story.at.items()
        ],
        "alert_rule_test": list(story.alerts),
    }


def _samples(expected: Sequence[Labels]) -> list[dict[str, Any]]:
    return [
        {"labels": f"{{{','.join(f'{k}={json.dumps(v)}' for k, v in each.items())}}}", "value": 1}
        for each in expected
    ]
