"""What the dashboard shows: a row of pictures for each kind of objective, and their queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.slo.budget_rules import CELLS, FAILED, SLOW
from lockstep.slo.objectives import Objectives
from lockstep.slo.state_rules import AGE, AGE_LIMIT, FILL_LIMIT, HELD, PSI_LIMIT

_VIEW: Final = '{view=~"$view"}'
_FEATURE: Final = '{feature=~"$view:.+"}'
_RATE: Final = "[$__rate_interval]"
_FETCHES: Final = f"sum by (le) (rate(feature_fetch_seconds_bucket{_RATE}))"
_QUANTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Query:
    """A line per series.

    Attributes:
        legend: What a line is called; `{{label}}` stands for the label's value.
        limit: Whether it is what something else is held against: drawn thin and dashed.
    """

    expr: str
    legend: str
    limit: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        unit: Of the vertical axis, in Grafana's words: `s`, `percentunit`, `reqps`, `short`.
        most: Upper end of the vertical axis; None follows the data.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """Pictures beside each other, under a title."""

    title: str
    panels: Sequence[Panel]


def rows(objectives: Objectives) -> list[Row]:
    """Return the dashboard from top to bottom; `$view` stands for the views that are chosen."""
    return [
        Row("Error budgets", [_burn(), _held()]),
        Row("Freshness", [_age()]),
        Row("Fill rate", [_filled()]),
        Row("PSI", [_psi(), _windows(), _newcomers()]),
        Row("Fetch latency (all views)", [_latency(objectives), _slow()]),
        Row("Hit rate", [_hits(), _statuses()]),
        Row("Seal lag", [_seal_lag(), _ready()]),
        Row("Breaker (all views)", [_breaker(), _last_look()]),
        Row("Shed (all views)", [_shed(), _answers(), _load()]),
    ]


def _burn() -> Panel:
    return Panel(
        "Burn rate of the last hour",
        "1 spends exactly the budget of 30 days in 30 days; at 14.4 somebody is woken.",
        "short",
        [
            Query(
                f"{SLOW}:ratio_rate1h / on (bucket) {SLOW}:budget",
                "slower than {{bucket}} s",
            ),
            Query(f"{FAILED.name}:ratio_rate1h / {FAILED.name}:budget", "requests failed"),
            Query(
                f"{CELLS}:ratio_rate1h{_VIEW} / on (view) {CELLS}:budget",
                "{{view}}: cells in error",
            ),
        ],
    )


def _held() -> Panel:
    return Panel(
        "Share of 30 days in which the data was fresh",
        "Of the time in which its age was known; dashed is what the contracts promise.",
        "percentunit",
        [
            Query(f"avg_over_time({HELD}{_VIEW}[30d])", "{{view}}"),
            Query(f"1 - {CELLS}:budget{_VIEW}", "{{view}} promised", limit=True),
        ],
        most=1,
    )


def _age() -> Panel:
    return Panel(
        "Age of the served data",
        "By its own event time, so it rises while the pipeline is dead; dashed is the limit.",
        "s",
        [
            Query(f"{AGE}{_VIEW}", "{{view}}"),
            Query(f"{AGE_LIMIT}{_VIEW}", "{{view}} limit", limit=True),
        ],
    )


def _filled() -> Panel:
    return Panel(
        "Rows with a value",
        "Of the newest committed day; dashed is what the contracts promise.",
        "percentunit",
        [
            Query(f"min by (feature) (feature_fill_rate{_FEATURE})", "{{feature}}"),
            Query(f"{FILL_LIMIT}{_FEATURE}", "{{feature}} promised", limit=True),
        ],
        most=1,
    )


def _psi() -> Panel:
    return Panel(
        "PSI",
        "Of the newest committed day against its reference; dashed is the limit.",
        "short",
        [
            Query(f"max by (feature) (feature_psi{_FEATURE})", "{{feature}}"),
            Query(f"{PSI_LIMIT}{_FEATURE}", "{{feature}} limit", limit=True),
        ],
    )


def _windows() -> Panel:
    return Panel(
        "Days in a row over the limit",
        "Three of them alert.",
        "short",
        [Query(f"max by (feature) (feature_psi_windows_over{_FEATURE})", "{{feature}}")],
    )


def _newcomers() -> Panel:
    return Panel(
        "New entities",
        "Share of the newest day's entities that the day before did not have.",
        "percentunit",
        [Query(f"max by (view) (feature_new_entity_rate{_VIEW})", "{{view}}")],
    )


def _latency(objectives: Objectives) -> Panel:
    promised = sorted(
        {latency for fetches in objectives.fetches for latency in fetches.latencies.values()}
    )
    return Panel(
        "Fetches, from the complete request to the encoded answer",
        "Quantiles, as exact as the buckets of the histogram; dashed is what is promised.",
        "s",
        [
            *(
                Query(f"histogram_quantile({q:g}, {_FETCHES})", f"{q * 100:g} %")
                for q in _QUANTILES
            ),
            *(
                Query(f"vector({each.total_seconds():.15g})", "promised", limit=True)
                for each in promised
            ),
        ],
    )


def _slow() -> Panel:
    return Panel(
        "Fetches that are too slow",
        "Share over the last 5 minutes; dashed is what may be.",
        "percentunit",
        [
            Query(f"{SLOW}:ratio_rate5m", "slower than {{bucket}} s"),
            Query(f"{SLOW}:budget", "budget of {{bucket}} s", limit=True),
        ],
    )


def _hits() -> Panel:
    found = (
        f'sum by (view) (rate(feature_cells_total{{status=~"present|null",view=~"$view"}}{_RATE}))'
    )
    return Panel(
        "Hit rate",
        "Share of the served cells for which there was a stored value or null.",
        "percentunit",
        [Query(f"{found} / sum by (view) (rate(feature_cells_total{_VIEW}{_RATE}))", "{{view}}")],
        most=1,
    )


def _statuses() -> Panel:
    return Panel(
        "Cells by status",
        "Per second.",
        "short",
        [Query(f"sum by (status) (rate(feature_cells_total{_VIEW}{_RATE}))", "{{status}}")],
    )


def _seal_lag() -> Panel:
    return Panel(
        "Seal lag",
        "Since the end of the last day that is complete online.",
        "s",
        [Query(f"max by (view) (feature_seal_lag_seconds{_VIEW})", "{{view}}")],
    )


def _ready() -> Panel:
    return Panel(
        "Views that are ready",
        "1 if the view is complete online, else 0.",
        "short",
        [Query(f"min by (view) (lockstep_view_ready{_VIEW})", "{{view}}")],
        most=1,
    )


def _breaker() -> Panel:
    return Panel(
        "Breaker",
        "How many services have theirs in each state. Open: Redis is left alone.",
        "short",
        [
            Query("sum by (state) (lockstep_breaker_state)", "{{state}}"),
            Query("count(lockstep_ready)", "services", limit=True),
        ],
    )


def _last_look() -> Panel:
    return Panel(
        "Since seals and facts were last read",
        "Of the service that read them least recently.",
        "s",
        [Query("max(lockstep_last_look_seconds)", "last look")],
    )


def _shed() -> Panel:
    return Panel(
        "Shed requests",
        "Per second, by reason.",
        "reqps",
        [Query(f"sum by (reason) (rate(lockstep_shed_requests_total{_RATE}))", "{{reason}}")],
    )


def _answers() -> Panel:
    return Panel(
        "Answers",
        "Per second, by status.",
        "reqps",
        [Query(f"sum by (status) (rate(lockstep_requests_total{_RATE}))", "{{status}}")],
    )


def _load() -> Panel:
    return Panel(
        "Requests at this moment",
        "Those that are being answered, and those that wait.",
        "short",
        [
            Query("sum(lockstep_in_flight_requests)", "in flight"),
            Query("sum(lockstep_queued_requests)", "queued"),
        ],
    )
