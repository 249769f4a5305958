"""Rules by state: how old, full and drifted the served data is, and whether anybody can tell."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from lockstep.episodes import WINDOWS
from lockstep.slo.alerting import Alerting
from lockstep.slo.objectives import Objectives, ServiceObjective, ViewObjective
from lockstep.slo.rule_file import Alert, Group, Recording, duration, seconds

AGE: Final = "view:feature_freshness_seconds:max"
AGE_LIMIT: Final = "view:feature_freshness_seconds:limit"
HELD: Final = "view:feature_freshness_held:bool"
FILL_LIMIT: Final = "feature:feature_fill_rate:limit"
PSI_LIMIT: Final = "feature:feature_psi:limit"

_DATA: Final = timedelta(minutes=10)
_SERVICE: Final = timedelta(minutes=2)
_UNKNOWN: Final = timedelta(minutes=30)


def recorded_state(objectives: Objectives) -> Group:
    """Return the age of each view's data, and the limits of the contracts as series."""
    rules = [
        Recording(
            AGE,
            "max by (view) (\n"
            '  label_replace(feature_freshness_seconds, "view", "$1", "feature", "(.+?):.+")\n'
            ")",
            comment="Of all services that tell: the oldest.",
        )
    ]
    for view in objectives.views:
        rules.append(_constant(AGE_LIMIT, seconds(view.freshness), view=view.view))
        rules += [
            _constant(FILL_LIMIT, f"{share:.15g}", feature=f"{view.view}:{name}")
            for name, share in view.fill_rates.items()
        ]
        rules += [
            _constant(PSI_LIMIT, f"{limit:.15g}", feature=f"{view.view}:{name}")
            for name, limit in view.max_psi.items()
        ]
    rules.append(
        Recording(
            HELD,
            f"{AGE} <= bool on (view) {AGE_LIMIT}",
            comment="1 while the data of a view is as fresh as its contract promises, else 0.",
        )
    )
    return Group(
        "lockstep_state",
        rules,
        "The age of the data by its own event time, and what the contracts promise, as series.",
    )


def _constant(name: str, number: str, **labels: str) -> Recording:
    return Recording(name, f"vector({number})", labels)


def data_state(objectives: Objectives, alerting: Alerting) -> Group:
    """Return the alerts about each view's data."""
    rules = [alert for view in objectives.views for alert in _of_view(view, alerting)]
    return Group(
        "lockstep_data",
        rules,
        "Plain limits. The age rises while the pipeline is dead, and a run without new data does "
        "not reset it.",
    )


def _of_view(view: ViewObjective, alerting: Alerting) -> Iterator[Alert]:
    yield from _freshness(view, alerting)
    for name, share in view.fill_rates.items():
        feature = f"{view.view}:{name}"
        yield alerting.alert(
            "FillRateLow",
            f'min by (feature) (feature_fill_rate{{feature="{feature}"}}) < {share:.15g}',
            severity="ticket",
            owner=view.owner,
            summary=f"{feature} has values in {{{{ $value | humanizePercentage }}}} of the rows; "
            f"{share * 100:.10g} % are promised.",
            fix=f"lockstep views {view.view}",
            lasting=_DATA,
            labels={"view": view.view, "feature": feature},
        )
    if view.drift:
        yield _drift(view, alerting)
    yield alerting.alert(
        "ViewNotReady",
        f'min by (view) (lockstep_view_ready{{view="{view.view}"}}) == 0',
        severity="page",
        owner=view.owner,
        summary=f"{view.view} has been incomplete online for {duration(_DATA)}.",
        fix=f"lockstep reconcile {view.view}",
        lasting=_DATA,
        labels={"view": view.view},
    )


def _freshness(view: ViewObjective, alerting: Alerting) -> Iterator[Alert]:
    yield alerting.alert(
        "FeaturesStale",
        f'{AGE}{{view="{view.view}"}} > {seconds(view.freshness)}',
        severity="page",
        owner=view.owner,
        summary=f"{view.view} has no data of the last {{{{ $value | humanizeDuration }}}}; "
        f"{duration(view.freshness)} are tolerated.",
        fix=f"lockstep views {view.view}",
        lasting=_DATA,
        labels={"view": view.view},
    )
    yield alerting.alert(
        "FreshnessUnknown",
        f'absent({AGE}{{view="{view.view}"}}) unless on () absent(lockstep_ready)',
        severity="ticket",
        owner=view.owner,
        summary=f"Nothing says how old the data of {view.view} is.",
        fix=f"lockstep push {view.view}",
        lasting=_UNKNOWN,
        labels={"view": view.view},
    )


def _drift(view: ViewObjective, alerting: Alerting) -> Alert:
    return alerting.alert(
        "FeaturesDrift",
        f'max by (feature) (feature_psi_windows_over{{feature=~"{view.view}:.+"}}) >= {WINDOWS}',
        severity="ticket",
        owner=view.owner,
        summary="{{ $labels.feature }} drifts: {{ $value }} days in a row were over its limit.",
        fix=f"lockstep views {view.view}",
        lasting=timedelta(0),
        labels={"view": view.view},
        comment="A window is a day. The lake counts them: scrapes and reruns do not.",
    )


def service_state(service: ServiceObjective, alerting: Alerting) -> Group:
    """Return the alerts about the feature services and their metrics; these need no traffic."""
    rules = [
        alerting.alert(
            "MetricsAbsent",
            "absent(lockstep_ready)",
            severity="page",
            owner=service.owner,
            summary="No feature service is scraped.",
            fix="lockstep serve",
            lasting=_SERVICE,
        ),
        alerting.alert(
            "ServiceDown",
            "up == 0 and on (job, instance) last_over_time(lockstep_ready[1d])",
            severity="ticket",
            owner=service.owner,
            summary="The feature service {{ $labels.instance }} does not answer.",
            fix="lockstep serve",
            lasting=_DATA,
            comment="A target that was a feature service within a day; the job may have any name.",
        ),
        alerting.alert(
            "StoreUnreachable",
            "min(lockstep_ready) == 0",
            severity="page",
            owner=service.owner,
            summary=f"A feature service has been without Redis for {duration(_SERVICE)}.",
            fix="lockstep doctor",
            lasting=_SERVICE,
        ),
        alerting.alert(
            "WatchStopped",
            "max(lockstep_last_look_seconds) > 60",
            severity="page",
            owner=service.owner,
            summary="A feature service last saw seals and facts {{ $value | humanizeDuration }} "
            "ago.",
            fix="lockstep doctor",
            lasting=_SERVICE,
        ),
        alerting.alert(
            "ServedLogDrops",
            "sum(rate(lockstep_served_log_dropped_total[5m])) > 0",
            severity="ticket",
            owner=service.owner,
            summary="The served-feature log loses {{ $value | humanize }} cells a second.",
            fix="lockstep doctor",
            lasting=timedelta(minutes=15),
        ),
    ]
    return Group("lockstep_service", rules, "What needs no traffic to be noticed.")
