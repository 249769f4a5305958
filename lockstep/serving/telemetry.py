"""`/metrics`: what was asked and answered, and how old, full and drifted what is served is.

Labels are names that the project declares, statuses and routes; never anything of a request.
Numbers about data are worked out at each scrape, so that they rise while nothing is pushed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lockstep.serving.admission import Admission
from lockstep.serving.cells import STATUSES, Column
from lockstep.serving.shape import Shape
from lockstep.view import FeatureView

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
BREAKER_STATES: Final = ("closed", "open", "half-open")
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_NUMBERS: Final = frozenset({int, float})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Online(Protocol):
    """What metrics tell of the client."""

    @property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """View → what its last push knew of its data."""

    @property
    def not_ready(self) -> Mapping[str, str]:
        """View that is not ready → why."""

    @property
    def ready(self) -> bool:
        """What /readyz says."""

    @property
    def last_look(self) -> float:
        """Seconds since the store was last looked at; infinite if it never was."""

    @property
    def breaker(self) -> str:
        """State of the breaker."""


class Telemetry(Collector):
    """The numbers of one process.

    Args:
        views: Every served view.
        admission: Tells requests in flight, queued and shed.
        online: Tells about the client and the data.
        dropped: Returns how many cells the served-feature log wrote, and how many it dropped.
        now: Returns the present instant (UTC).
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        admission: Admission,
        online: Online,
        logged: Callable[[], tuple[int, int]],
        now: Callable[[], datetime],
    ) -> None:
        self._views: Final = views
        self._admission: Final = admission
        self._online: Final = online
        self._logged: Final = logged
        self._now: Final = now
        self._cells: Final = {view.name: [0] * len(STATUSES) for view in views}
        self._requests: dict[tuple[str, int], int] = {}
        self._registry: Final = CollectorRegistry()
        histogram = Histogram(
            "feature_fetch_seconds",
            "Seconds from a complete request to its encoded answer.",
            registry=self._registry,
            buckets=BUCKETS,
        )
        self.observe: Final = histogram.observe
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def answered(self, route: str, status: int) -> None:
        """Count an answer. Routes are those of the route table, or "other"."""
        key = route, status
        self._requests[key] = self._requests.get(key, 0) + 1

    def served(self, shape: Shape, cells: Sequence[Column]) -> None:
        """Count the cells of an answer."""
        for view, positions in shape.views.items():
            counts = self._cells[view]
            for position in positions:
                column = cells[position]
                counts[0] += column.counts[0]
                if not column.whole:
                    for at in (1, 2, 3, 4):
                        counts[at] += column.counts[at]

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format, as of now."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: names are checked by what collects them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric but the histogram."""
        yield from self._of_data()
        yield from self._of_cells()
        yield from self._of_service()

    def _of_data(self) -> Iterator[Metric]:
        now = (self._now() - _EPOCH) // timedelta(microseconds=1)
        fresh = GaugeMetricFamily(
            "feature_freshness_seconds",
            "Seconds since the event time up to which the pushed data reaches.",
            labels=["feature"],
        )
        filled = GaugeMetricFamily(
            "feature_fill_rate", "Share of rows of the sealed day with a value.", labels=["feature"]
        )
        drifted = GaugeMetricFamily(
            "feature_psi", "PSI of the sealed day against its reference.", labels=["feature"]
        )
        windows = GaugeMetricFamily(
            "feature_psi_windows_over",
            "Committed days in a row, up to the sealed one, on which it was over its limit.",
            labels=["feature"],
        )
        new = GaugeMetricFamily(
            "feature_new_entity_rate",
            "Share of the sealed day's entities that the day before did not have.",
            labels=["view"],
        )
        lag = GaugeMetricFamily(
            "feature_seal_lag_seconds",
            "Seconds since the end of the last day that is sealed online.",
            labels=["view"],
        )
        for view in self._views:
            facts = self._online.facts.get(view.name, {})
            fill_rate, psi = _mapping(facts.get("fill_rate")), _mapping(facts.get("psi"))
            over = _mapping(facts.get("psi_windows_over"))
            _put(new, view.name, facts.get("new_entity_rate"))
            _put_age(lag, view.name, now, facts.get("day_end_us"))
            for name in view.contract.features:
                label = f"{view.name}:{name}"
                _put_age(fresh, label, now, facts.get("data_through_us"))
                _put(filled, label, fill_rate.get(name))
                _put(drifted, label, psi.get(name))
                _put(windows, label, over.get(name))
        yield from (fresh, filled, drifted, windows, new, lag)

    def _of_cells(self) -> Iterator[Metric]:
        cells = CounterMetricFamily(
            "feature_cells", "Served cells by status.", labels=["view", "status"]
        )
        hits = GaugeMetricFamily(
            "feature_hit_rate",
            "Share of the served cells for which there was a stored value or null.",
            labels=["view"],
        )
        ready = GaugeMetricFamily(
            "lockstep_view_ready", "1 if the view is complete online, else 0.", labels=["view"]
        )
        not_ready = self._online.not_ready
        for view, counts in self._cells.items():
            for status, count in zip(STATUSES, counts, strict=True):
                cells.add_metric([view, status], count)
            if asked := sum(counts):
                present, null, *_ = counts
                hits.add_metric([view], (present + null) / asked)
            ready.add_metric([view], 0 if view in not_ready else 1)
        yield from (cells, hits, ready)

    def _of_service(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "lockstep_requests", "Answers by route and status.", labels=["route", "status"]
        )
        for (route, status), count in self._requests.items():
            requests.add_metric([route, str(status)], count)
        shed = CounterMetricFamily(
            "lockstep_shed_requests", "Requests refused to protect the others.", labels=["reason"]
        )
        for reason, count in self._admission.shed.items():
            shed.add_metric([reason], count)
        breaker = GaugeMetricFamily(
            "lockstep_breaker_state", "1 for the state the breaker is in.", labels=["state"]
        )
        for state in BREAKER_STATES:
            breaker.add_metric([state], 1 if state == self._online.breaker else 0)
        written, dropped = self._logged()
        yield from (requests, shed, breaker)
        yield _gauge("lockstep_ready", "1 if /readyz says ready, else 0.", int(self._online.ready))
        yield _gauge(
            "lockstep_last_look_seconds",
            "Seconds since seals and facts were last read from Redis; +Inf if they never were.",
            self._online.last_look,
        )
        yield _gauge(
            "lockstep_in_flight_requests", "Requests being answered.", self._admission.in_flight
        )
        yield _gauge(
            "lockstep_queued_requests", "Requests waiting for a place.", self._admission.queued
        )
        yield CounterMetricFamily(
            "lockstep_served_log_cells", "Cells written to the served-feature log.", value=written
        )
        yield CounterMetricFamily(
            "lockstep_served_log_dropped",
            "Cells the served-feature log had no room for, or could not write.",
            value=dropped,
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


# Facts come from Redis and may be anything: what is no number is left out, alone.


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _put(family: GaugeMetricFamily, label: str, value: Any) -> None:
    with suppress(OverflowError):
        if type(value) in _NUMBERS:
            family.add_metric([label], float(value))


def _put_age(family: GaugeMetricFamily, label: str, now_us: int, at_us: Any) -> None:
    with suppress(OverflowError):
        if type(at_us) in _NUMBERS:
            family.add_metric([label], (now_us - at_us) / 1e6)
