"""Checks on the state of the world: one value, now, re-runnable alone and on a schedule."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, timedelta
from typing import Any, Final, TypeAlias

import dagster as dg

from lockstep.alerts import Kind, runbook
from lockstep.catalog import Catalog
from lockstep.errors import LockstepError
from lockstep.freshness import Freshness, freshness, unasked
from lockstep.late import LateAndDuplicate, late_and_duplicate
from lockstep.parity import UNPUSHED, Parity
from lockstep.picture import data_uri
from lockstep.sources import Source
from lockstep.store import Store
from lockstep.traffic import Traffic, log_of, served_drift
from lockstep.view import FeatureView
from lockstep.zone_shift import ZoneShift, zone_shift
from lockstep.zone_shift_picture import shift_svg
from resources.store import StoreResource

Found: TypeAlias = tuple[bool, str, Mapping[str, Any]]
"""Whether a check passed, what it found in a sentence, and its numbers."""

FRESHNESS: Final = "freshness"
PARITY: Final = "parity"
SERVED_DRIFT: Final = "served_drift"
ZONE_SHIFT: Final = "zone_shift"
LATE: Final = "late_and_duplicate"
RUNBOOKS: Final[Mapping[str, Kind]] = {
    FRESHNESS: "stale",
    PARITY: "parity",
    SERVED_DRIFT: "served_drift",
    ZONE_SHIFT: "zone_shift",
    LATE: "late_data",
}
_HOUR: Final = timedelta(hours=1)
_MINUTES: Final = 60


def world_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Return every check on the state of the world, those of the views first."""
    log = log_of(catalog)
    views = list(catalog.views.values())
    return [
        *(_freshness_check(view) for view in views),
        *(_parity_check(view) for view in views),
        *(_served_drift_check(view, log) for view in views if log is not None),
        *(_source_checks(source, catalog) for source in catalog.sources.values()),
    ]


def watched_closely(keys: Iterable[dg.AssetCheckKey]) -> list[dg.AssetCheckKey]:
    """Return those of the checks whose answer changes within minutes; days show the others."""
    return [key for key in keys if key.name in (FRESHNESS, PARITY)]


def _freshness_check(view: FeatureView) -> dg.AssetChecksDefinition:
    limit = view.contract.freshness

    @dg.asset_check(
        asset=dg.AssetKey(view.name),
        name=FRESHNESS,
        description=f"The data's own event time lags at most {limit}; {_reset_by(view)}",
        metadata={"owner": view.contract.owner},
    )
    def freshness_check(lockstep: StoreResource) -> dg.AssetCheckResult:
        store = lockstep.open()
        found = freshness(store.lake, view, store.now())
        return dg.AssetCheckResult(
            passed=found.holds,
            severity=dg.AssetCheckSeverity.ERROR,
            description=found.sentence,
            metadata={"limit_hours": _hours(limit), **_lag(found), **_runbook(store, FRESHNESS)},
        )

    return freshness_check


def _reset_by(view: FeatureView) -> str:
    names = unasked(view)
    if not names:
        return "an empty run can't reset it."
    whose = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return (
        f"an empty run can't reset it, unless what is empty is {whose}: a day may bring no rows "
        "of it, so its age is not asked."
    )


def _parity_check(view: FeatureView) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(f"{view.name}_online"),
        name=PARITY,
        description=f"Online equals offline, byte for byte, for {_compared(view)}. Days that a run "
        f"is committing wait for its push, {UNPUSHED // timedelta(minutes=1)} minutes at most.",
        metadata={"owner": view.contract.owner},
    )
    def parity_check(
        context: dg.AssetCheckExecutionContext, lockstep: StoreResource
    ) -> dg.AssetCheckResult:
        store = lockstep.open()
        if not store.committed(view):
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"{view.name} was never computed. "
                f"Run: lockstep materialize {view.name} --days …",
            )
        (found,) = store.parity(view.name)
        sampled = {} if found.sampled is None else {"sampled": found.sampled}
        waits = _waits(found, context.instance)
        return dg.AssetCheckResult(
            passed=found.holds or waits,
            severity=dg.AssetCheckSeverity.ERROR,
            description=found.waiting if waits else found.sentence,
            metadata={
                "entities": found.entities,
                "equal": found.equal,
                "mismatch": found.mismatch,
                "stale": found.stale,
                "missing": found.missing,
                "extra": found.extra,
                "unsealed_days": len(found.unsealed),
                **sampled,
                **({"likely_cause": found.cause} if found.cause else {}),
                **_runbook(store, PARITY),
            },
        )

    return parity_check


def _waits(found: Parity, instance: dg.DagsterInstance) -> bool:
    """Whether nothing is wrong but that a push is still to come.

    Redis cannot tell a view that was never pushed from one that it lost; Dagster knows the pushes.
    """
    if not found.waits or found.pushed:
        return found.waits
    return instance.get_latest_materialization_event(dg.AssetKey(f"{found.view}_online")) is None


def _compared(view: FeatureView) -> str:
    if view.contract.parity == "all":
        return "every entity"
    return f"every entity, or a sample if there are more than {view.contract.parity:,}"


def _served_drift_check(view: FeatureView, log: Source) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(f"{view.name}_online"),
        name=SERVED_DRIFT,
        description="What was really served, by the log, is distributed as what the models "
        "learned from; few answers are missing or expired.",
        metadata={"owner": view.contract.owner},
    )
    def served_drift_check(lockstep: StoreResource) -> dg.AssetCheckResult:
        store = lockstep.open()
        found = served_drift(store.lake, log, view, store.now())
        return dg.AssetCheckResult(
            passed=found.holds,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.sentence,
            metadata={**_served(found), **_runbook(store, SERVED_DRIFT)},
        )

    return served_drift_check


def _served(found: Traffic) -> dict[str, Any]:
    """Return the numbers of what was served; of nothing only that."""
    if not found.days:
        return {"answers": 0}
    rates = {f"{status}_rate": found.share(status) for status in ("missing", "expired", "error")}
    drifts = [feature.drift for feature in found.features if feature.drift is not None]
    psi = {f"psi:{d.feature.partition(':')[2]}": d.psi for d in drifts if d.psi is not None}
    return {"answers": found.cells, **rates, **psi}


def _source_checks(source: Source, catalog: Catalog) -> dg.AssetChecksDefinition:
    """Return what is asked of a source, in one step: fewer events than a step for each."""
    asset = dg.AssetKey(source.name)
    specs = [
        dg.AssetCheckSpec(
            name=ZONE_SHIFT,
            asset=asset,
            description="Events lie at their usual hours, and arrive at their usual distance: no "
            "time zone conversion was dropped or made twice.",
            metadata={"owner": source.owner},
        ),
        dg.AssetCheckSpec(
            name=LATE,
            asset=asset,
            description="No more rows than usual come to days that are closed, or come twice.",
            metadata={"owner": source.owner},
        ),
    ]

    @dg.multi_asset_check(name=f"{source.name}_state", specs=specs, can_subset=True)
    def source_checks(
        context: dg.AssetCheckExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.AssetCheckResult]:
        store = lockstep.open()
        asked = {key.name for key in context.selected_asset_check_keys}
        ways: list[tuple[str, dg.AssetCheckSeverity, Callable[[], Found]]] = [
            (ZONE_SHIFT, dg.AssetCheckSeverity.ERROR, lambda: _shifted(store, source)),
            (LATE, dg.AssetCheckSeverity.WARN, lambda: _late(store, source, catalog)),
        ]
        for name, severity, ask in ways:
            if name in asked:
                passed, sentence, numbers = _answer(ask)
                yield dg.AssetCheckResult(
                    asset_key=asset,
                    check_name=name,
                    passed=passed,
                    severity=severity,
                    description=sentence,
                    metadata={**numbers, **_runbook(store, name)},
                )

    return source_checks


def _answer(ask: Callable[[], Found]) -> Found:
    """Return what was found; a source that can't be looked at must not hide the other answer."""
    try:
        return ask()
    except LockstepError as error:
        return False, str(error), {}


def _shifted(store: Store, source: Source) -> Found:
    found = zone_shift(store.lake, source, store.now())
    if found is None:
        return True, f"{source.name}: events lie at their usual hours.", {"offset_hours": 0.0}
    return False, found.sentence, _offset(found)


def _offset(found: ZoneShift) -> dict[str, Any]:
    svg = shift_svg(found.usual, found.shape)
    title = "usual (grey) and shifted (blue)"
    picture = {"hours": dg.MetadataValue.md(f"![{title}]({data_uri(svg)})")} if svg else {}
    return {
        "offset_hours": found.offset_minutes / _MINUTES,
        "first_day": str(found.first),
        "last_day": str(found.last),
        "days": found.days,
        "zones": ", ".join(found.names),
        "dst_only": found.dst_only,
        "confidence": found.confidence,
        **picture,
    }


def _late(store: Store, source: Source, catalog: Catalog) -> Found:
    views = list(catalog.views.values())
    found = late_and_duplicate(store.lake, source, store.now(), views, store.reader())
    if found is None:
        return True, f"{source.name}: no day is committed.", {}
    return found.holds, found.sentence, _counts(found)


def _counts(found: LateAndDuplicate) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "late": found.late,
        "usual_late": found.usual_late,
        "duplicates": found.duplicates,
        "usual_duplicates": found.usual_duplicates,
        "stale_days": sum(len(days) for days in found.stale.values()),
    }


def _runbook(store: Store, check: str) -> dict[str, Any]:
    """Return the address of the check's page; an address of the web is a link."""
    page = runbook(RUNBOOKS[check], str(store.project.alerts.get("runbooks", "docs/runbooks")))
    web = page.startswith(("http://", "https://"))
    return {"runbook": dg.MetadataValue.url(page) if web else page}


def _lag(found: Freshness) -> dict[str, Any]:
    """Return what is known of the data's age; nothing of a view that was never computed."""
    if found.data_through is None or found.lag is None:
        return {}
    through = dg.MetadataValue.timestamp(found.data_through.astimezone(UTC))
    return {"lag_hours": _hours(found.lag), "data_through": through}


def _hours(length: timedelta) -> float:
    return round(length / _HOUR, 2)
