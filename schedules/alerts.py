"""The sensor that tells owners what is wrong, once, and again when it has healed.

Dagster's log adds what the lake and Redis cannot show: runs that failed, and what the checks that
are too costly for every tick found last. The log is only read; what was told is in the lake.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from lockstep.alerts.look import guarded, look, settings_of, told
from lockstep.alerts.problem import Look, Problem, problem
from lockstep.alerts.state import State, States
from lockstep.catalog import Catalog
from lockstep.store import Store
from resources.store import StoreResource
from schedules.failed_runs import failed_runs, owner_of

EVERY: Final = 60
"""Seconds between two ticks."""

CHECKS: Final = {"parity": "parity", "served_drift": "served_drift"}
"""Name of a check on the state of the world → the kind of problem that its failure is.

Freshness, shifted hours and late rows are not among them: the lake shows them at every tick.
"""

_CAUSE: Final = "likely_cause"  # metadata of the parity check; out of a list, so it names nobody


def alerts_sensor(world: Sequence[dg.AssetCheckKey]) -> dg.SensorDefinition:
    """Return the sensor that looks every minute and tells what is new, over, or to be reminded of.

    It requests no run. A cursor is not needed: what was told is one document in the lake.

    Args:
        world: The checks on the state of the world.
    """
    checks = [key for key in world if key.name in CHECKS]

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells owners what is wrong, grouped and once, and when it has healed.",
    )
    def sensor(context: dg.SensorEvaluationContext, lockstep: StoreResource) -> dg.SkipReason:
        store = lockstep.open()
        now = store.now()
        state = States(store.lake.place).newest()
        found = look(store) + guarded(
            seen_of(checks), lambda: look_at_dagster(context.instance, store, state, checks)
        )
        for beginning, why in found.unknown.items():
            context.log.warning("%s could not be looked at: %s", beginning, why)
        ticked = told(store, found, now)
        for receiver, why in ticked.failed.items():
            context.log.warning("%s: %s", receiver, why)
        for receiver, message in ticked.sent:
            context.log.info("%s was told: %s", receiver, message.title)
        live = sum(episode.healed is None for episode in ticked.state.episodes.values())
        sent, failed = len(ticked.sent), len(ticked.failed)
        return dg.SkipReason(f"{live} problems are open; {sent} messages sent, {failed} failed.")

    return sensor


def look_at_dagster(
    instance: dg.DagsterInstance,
    store: Store,
    state: State,
    checks: Sequence[dg.AssetCheckKey],
) -> Look:
    """Return the problems that Dagster's log shows: failed runs that no later one has mended.

    Args:
        state: What was told: its failed runs are looked at however old they are.
        checks: The checks whose last result counts.
    """
    failed = failed_runs(instance, state, store.catalog, settings_of(store).owner)
    evaluated, unknown = _check_problems(instance, checks, store.catalog)
    return Look([*failed, *evaluated], seen_of(checks), unknown)


def seen_of(checks: Sequence[dg.AssetCheckKey]) -> frozenset[str]:
    """Return the beginnings of the keys that Dagster's log is looked through for."""
    return frozenset({"run_failed", *(f"{CHECKS[key.name]}:check" for key in checks)})


# What checks found last


def _check_problems(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], catalog: Catalog
) -> tuple[list[Problem], dict[str, str]]:
    latest: Any = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    found: list[Problem] = []
    unknown: dict[str, str] = {}
    for key in checks:
        asset, kind = key.asset_key.to_user_string(), CHECKS[key.name]
        name = asset.removesuffix("_online")
        record = latest.get(key)
        if record is None:
            continue
        if record.status == AssetCheckExecutionRecordStatus.FAILED:
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            numbers = _numbers(evaluation)
            if not numbers:  # a view that was never built has none, and is no problem
                continue
            cause = evaluation.metadata.get(_CAUSE)
            likely = f" Likely cause: {cause.value}." if cause else ""
            found.append(_check_problem(kind, name, numbers, likely, record, catalog))
        elif record.status != AssetCheckExecutionRecordStatus.SUCCEEDED:
            unknown[f"{kind}:check:{name}"] = f"the check {key.name} is running, or did not finish"
    return found, unknown


def _numbers(evaluation: Any) -> dict[str, str]:
    return {
        label: f"{entry.value:g}"
        for label, entry in evaluation.metadata.items()
        if isinstance(entry.value, (int, float)) and not isinstance(entry.value, bool)
    }


def _check_problem(
    kind: str, name: str, numbers: Mapping[str, str], likely: str, record: Any, catalog: Catalog
) -> Problem:
    """Return the problem of a failed check by its numbers: its words may name an entity."""
    shown = ", ".join(f"{label} {value}" for label, value in numbers.items())
    what, fix = _CHECK_WORDS[kind]
    return problem(
        f"{kind}:check:{name}",
        name,
        f"{name}: {what} ({shown}).{likely}",
        owner=owner_of(catalog, name),
        since=datetime.fromtimestamp(record.create_timestamp, UTC),
        fix=fix.format(name=name),
        details={**numbers, "run_id": record.run_id},
    )


_CHECK_WORDS: Final = {
    "parity": (
        "what is served is not what is committed, of some entities",
        "lockstep parity {name}",
    ),
    "served_drift": (
        "what was served is distributed otherwise than what the models learned from",
        "lockstep training-sets list",
    ),
}
