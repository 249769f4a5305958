"""Rules by error budget: slow fetches, failed requests, and cells in error of each view."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from lockstep.alerts.problem import Severity
from lockstep.slo.alerting import Alerting
from lockstep.slo.burn import BURNS, LEAST_PER_WINDOW, Ratio, burning, reachable
from lockstep.slo.objectives import FetchObjective, Objectives, ServiceObjective, ViewObjective
from lockstep.slo.rule_file import Alert, Group, Recording

_ROUTES: Final = 'route=~"/v1/.+|/get-online-features"'
"""Those that fetch; probes fail by design while the service is not ready."""

FAILED: Final = Ratio(
    "service:lockstep_requests_failed",
    share="(\n"
    f'  sum(rate(lockstep_requests_total{{{_ROUTES},status=~"5.."}}[{{window}}])) or vector(0)\n'
    ")\n"
    f"/ sum(rate(lockstep_requests_total{{{_ROUTES}}}[{{window}}]))",
    count=f"sum(increase(lockstep_requests_total{{{_ROUTES}}}[{{window}}]))",
    comment="Share of the requests for features that were shed or failed.",
)
SLOW: Final = "service:feature_fetch_slow"
CELLS: Final = "view:feature_cells_error"


def slow(objective: FetchObjective) -> Ratio:
    """Return the share of fetches that took longer than a bucket of the histogram."""
    bucket = repr(float(objective.bucket))
    return Ratio(
        SLOW,
        share=f'1 - sum(rate(feature_fetch_seconds_bucket{{le="{bucket}"}}[{{window}}]))\n'
        "/ sum(rate(feature_fetch_seconds_count[{window}]))",
        count="sum(increase(feature_fetch_seconds_count[{window}]))",
        labels={"bucket": bucket},
        selector=f'{{bucket="{bucket}"}}',
        comment=_which_bucket(objective),
    )


def in_error(view: str | None = None) -> Ratio:
    """Return the share of cells that were answered with the status error, per view or of one."""
    of_view = f'{{view="{view}"}}' if view else ""
    return Ratio(
        CELLS,
        share='sum by (view) (rate(feature_cells_total{status="error"}[{window}]))\n'
        "/ sum by (view) (rate(feature_cells_total[{window}]))",
        count=f"sum(increase(feature_cells_total{of_view}[{{window}}]))",
        selector=of_view,
        comment="Share of the served cells that were errors.",
    )


def _which_bucket(objective: FetchObjective) -> str:
    bound = timedelta(seconds=objective.bucket)
    exact = [view for view, latency in objective.latencies.items() if latency == bound]
    lines = [f"Share of the answered fetches that took longer than {_ms(bound)}."]
    if exact:
        lines.append(f"That is what is promised of {', '.join(exact)}.")
    lines += [
        f"{view} promises {_ms(latency)}. The histogram has no such bucket: this is the nearest "
        "one at or below it."
        for view, latency in objective.latencies.items()
        if latency != bound
    ]
    return "\n".join(lines)


def _ms(length: timedelta) -> str:
    return f"{length / timedelta(milliseconds=1):g} ms"


def recorded_windows(objectives: Objectives) -> Group:
    """Return the shares over every window, and the budgets that they are held against."""
    rules: list[Recording] = []
    for fetches in objectives.fetches:
        ratio = slow(fetches)
        rules += [*ratio.recordings(), _budget(ratio.name, fetches.share, ratio.labels)]
    rules += [*FAILED.recordings(), _budget(FAILED.name, objectives.service.share, {})]
    rules += in_error().recordings()
    rules += [_budget(CELLS, each.share, {"view": each.view}) for each in objectives.views]
    return Group(
        "lockstep_windows",
        rules,
        "Shares of what should not have been, over the windows of the alerts below, and the budget "
        "for each: the share that the contracts tolerate.",
    )


def _budget(name: str, share: float, labels: Mapping[str, str]) -> Recording:
    return Recording(f"{name}:budget", f"vector(1 - {share:.15g})", labels)


def budgets(objectives: Objectives, alerting: Alerting) -> Group:
    """Return the alerts by burn rate."""
    rules: list[Alert] = []
    for fetches in objectives.fetches:
        rules += _slow_fetches(fetches, alerting)
    rules += _failed_requests(objectives.service, alerting)
    for view in objectives.views:
        rules += _cells_in_error(view, alerting)
    return Group(
        "lockstep_budgets",
        rules,
        "Several windows and burn rates at once: The Site Reliability Workbook, chapter 5, table "
        "5-8. A page: 2 % of the budget of 30 days are gone within 1 h (14.4 times as fast as "
        "planned, still so in the last 5 min), or 5 % within 6 h (6 times, still so in the last "
        "30 min). A ticket: 10 % within 3 d (as fast as planned, still so in the last 6 h).\n"
        f"Nobody is woken over fewer than {LEAST_PER_WINDOW} requests or cells in the long window.",
    )


def _slow_fetches(fetches: FetchObjective, alerting: Alerting) -> Iterator[Alert]:
    ratio, limit = slow(fetches), _ms(timedelta(seconds=fetches.bucket))
    for severity, expr, comment in _severities(ratio, fetches.share):
        yield alerting.alert(
            "FetchesSlow",
            expr,
            severity=severity,
            owner=fetches.owner,
            summary=f"{{{{ $value | humanizePercentage }}}} of the fetches take longer than "
            f"{limit}; {_percent(1 - fetches.share)} may.",
            fix="lockstep doctor",
            lasting=timedelta(0),
            labels=ratio.labels,
            comment=comment,
        )


def _failed_requests(service: ServiceObjective, alerting: Alerting) -> Iterator[Alert]:
    for severity, expr, comment in _severities(FAILED, service.share):
        yield alerting.alert(
            "RequestsFail",
            expr,
            severity=severity,
            owner=service.owner,
            summary="{{ $value | humanizePercentage }} of the requests for features are shed or "
            f"fail; {_percent(1 - service.share)} may.",
            fix="lockstep doctor",
            lasting=timedelta(0),
            comment=comment,
        )


def _cells_in_error(view: ViewObjective, alerting: Alerting) -> Iterator[Alert]:
    for severity, expr, comment in _severities(in_error(view.view), view.share):
        yield alerting.alert(
            "CellsInError",
            expr,
            severity=severity,
            owner=view.owner,
            summary=f"{{{{ $value | humanizePercentage }}}} of the cells of {view.view} are "
            f"errors; {_percent(1 - view.share)} may be.",
            fix=f"lockstep reconcile {view.view} --dry-run",
            lasting=timedelta(0),
            labels={"view": view.view},
            comment=comment,
        )


def _severities(ratio: Ratio, share: float) -> Iterator[tuple[Severity, str, str]]:
    """Yield severity, expression and comment of each alert that can fire."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    for severity in severities:
        expr = burning(ratio, share, severity)
        if expr is not None:
            yield severity, expr, _left_out(share, severity)


def _left_out(share: float, severity: Severity) -> str:
    missing = [
        f"{burn.factor:g}"
        for burn in BURNS
        if burn.severity == severity and burn not in reachable(share, severity)
    ]
    if not missing:
        return ""
    return (
        f"A burn of {' and '.join(missing)} is left out: with an objective of {_percent(share)} "
        f"even an outage burns {1 / (1 - share):.3g} times as fast as planned."
    )


def _percent(share: float) -> str:
    return f"{share * 100:.10g} %"
