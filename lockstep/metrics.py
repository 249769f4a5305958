"""Freshness, fill rate and drift of every feature, in Prometheus' text format.

Computed from what is committed: a frame in quarantine moves nothing. A feature of a view without
committed days has no sample, so that `absent()` finds it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from lockstep.episodes import drift_numbers, fold
from lockstep.freshness import freshness
from lockstep.lake import Lake
from lockstep.stores.day_index import Head
from lockstep.view import FeatureView

MetricType: TypeAlias = Literal["gauge", "counter"]


@dataclass(frozen=True)
class Sample:
    """One value with its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metric:
    """One metric family; `name` ends with the unit."""

    name: str
    help: str
    samples: Sequence[Sample]
    type: MetricType = "gauge"


def feature_metrics(lake: Lake, views: Iterable[FeatureView], now: datetime) -> list[Metric]:
    """Return the metrics of all features of the views, as of an instant."""
    fresh: list[Sample] = []
    filled: list[Sample] = []
    drifted: list[Sample] = []
    windows: list[Sample] = []
    for view in views:
        lag = freshness(lake, view, now).lag
        head = lake.table(view).head_or_none()
        numbers = {} if head is None else audit_numbers(head)
        over = {} if head is None else windows_over(view, head)
        windows += [Sample({"feature": f"{view.name}:{name}"}, over[name]) for name in over]
        for name in view.contract.features:
            labels = {"feature": f"{view.name}:{name}"}
            if lag is not None:
                fresh.append(Sample(labels, lag.total_seconds()))
            for samples, number in ((filled, f"fill_rate:{name}"), (drifted, f"psi:{name}")):
                if number in numbers:
                    samples.append(Sample(labels, numbers[number]))
    return [
        Metric(
            "feature_freshness_seconds",
            "Seconds since the event time up to which the newest committed day has data.",
            fresh,
        ),
        Metric(
            "feature_fill_rate", "Share of rows of the newest committed day with a value.", filled
        ),
        Metric(
            "feature_psi",
            "Population stability index of the newest committed day against its reference.",
            drifted,
        ),
        Metric(
            "feature_psi_windows_over",
            "Committed days in a row, up to the newest, on which PSI or KL was over its limit.",
            windows,
        ),
    ]


def windows_over(view: FeatureView, head: Head) -> dict[str, int]:
    """Return feature → committed days in a row over its drift limit, up to the newest one.

    Only features with a limit; empty without a committed day.
    """
    if not head.days:
        return {}
    numbers = {day: drift_numbers(record.note) for day, record in head.days.items()}
    found = fold(view, numbers).values()
    return {streak.feature.partition(":")[2]: len(streak.days) for streak in found}


def audit_numbers(head: Head) -> dict[str, float]:
    """Return what the audit of the newest committed day measured, by name; empty without a day."""
    if not head.days:
        return {}
    verdicts = head.days[max(head.days)].note.get("verdicts", ())
    return {name: value for verdict in verdicts for name, value in verdict["numbers"].items()}


def render(metrics: Iterable[Metric]) -> str:
    """Return the metrics in Prometheus' text format 0.0.4, ending with a line feed."""
    return "".join(f"{line}\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}"
    yield f"# TYPE {metric.name} {metric.type}"
    for sample in metric.samples:
        labels = ",".join(
            f'{name}="{_escaped(value, quote=True)}"' for name, value in sample.labels.items()
        )
        yield f"{metric.name}{{{labels}}} {_number(sample.value)}"


def _escaped(value: str, *, quote: bool = False) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quote else escaped


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
