"""Freshness, fill rate and drift of every feature, in Prometheus' text format.

Computed from what is committed: a frame in quarantine moves nothing. A feature of a view without
committed days has no sample, so that `absent()` finds it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

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
    for view in views:
        lag = freshness(lake, view, now).lag
        numbers = newest_numbers(lake, view)
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
            "Population stability index of the newest committed day against the 28 days before.",
            drifted,
        ),
    ]


def newest_numbers(lake: Lake, view: FeatureView) -> dict[str, float]:
    """Return what the audit of the newest committed day measured, by name; empty without a day."""
    head = lake.table(view).head_or_none()
    return {} if head is None else audit_numbers(head)


def audit_numbers(head: Head) -> dict[str, float]:
    """Return what `newest_numbers` does, of a table that was already looked at."""
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
