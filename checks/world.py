"""Checks on the state of the world: one value, now, re-runnable alone and on a schedule."""

from datetime import UTC, timedelta
from typing import Any

import dagster as dg

from lockstep.freshness import Freshness, freshness
from lockstep.view import FeatureView
from resources.store import StoreResource


def world_checks(view: FeatureView) -> list[dg.AssetChecksDefinition]:
    """Return the view's freshness and parity checks."""
    return [_freshness_check(view), _parity_check(view)]


def _freshness_check(view: FeatureView) -> dg.AssetChecksDefinition:
    limit = view.contract.freshness

    @dg.asset_check(
        asset=dg.AssetKey(view.name),
        name="freshness",
        description=f"The data's own event time lags at most {limit}; an empty run can't reset it.",
        metadata={"owner": view.contract.owner},
    )
    def freshness_check(lockstep: StoreResource) -> dg.AssetCheckResult:
        store = lockstep.open()
        found = freshness(store.lake, view, store.now())
        return dg.AssetCheckResult(
            passed=found.holds,
            severity=dg.AssetCheckSeverity.ERROR,
            description=found.sentence,
            metadata={"limit_hours": _hours(limit), **_lag(found)},
        )

    return freshness_check


def _parity_check(view: FeatureView) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(f"{view.name}_online"),
        name="parity",
        description="Online equals offline, byte for byte, for every entity.",
        metadata={"owner": view.contract.owner},
    )
    def parity_check(lockstep: StoreResource) -> dg.AssetCheckResult:
        store = lockstep.open()
        if not store.committed(view):
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"{view.name} was never computed. "
                f"Run: lockstep materialize {view.name} --days …",
            )
        (found,) = store.parity(view.name)
        return dg.AssetCheckResult(
            passed=found.holds,
            severity=dg.AssetCheckSeverity.ERROR,
            description=found.sentence,
            metadata={
                "entities": found.entities,
                "equal": found.equal,
                "mismatch": found.mismatch,
                "missing": found.missing,
                "extra": found.extra,
                "unsealed_days": len(found.unsealed),
            },
        )

    return parity_check


def _lag(found: Freshness) -> dict[str, Any]:
    """Return what is known of the data's age; nothing of a view that was never computed."""
    if found.data_through is None or found.lag is None:
        return {}
    through = dg.MetadataValue.timestamp(found.data_through.astimezone(UTC))
    return {"lag_hours": _hours(found.lag), "data_through": through}


def _hours(length: timedelta) -> float:
    return round(length.total_seconds() / 3600, 2)
