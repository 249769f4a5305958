"""A declaration → Dagster assets: bronze for a source, offline and online for a view.

The assets only translate: what happens to a day is decided in `lockstep`, what is shown of it in
`_metadata`, and how it is told per day in `_events`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from feature_assets._events import CheckOutcome, DayEvents, finish, record_days
from feature_assets._landed import asked_days, for_landed_files
from feature_assets._metadata import (
    code_reference,
    column_schema,
    lineage,
    pictured,
    pushed_day,
    readable_tags,
    source_day,
    view_day,
)
from lockstep.compute import left_days
from lockstep.errors import LockstepError
from lockstep.ingest import days_to_ingest, ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.progress import report
from lockstep.push import push
from lockstep.quality import Verdict
from lockstep.sources import Input, Snapshot, Source
from lockstep.store import Store
from lockstep.time import span
from lockstep.view import FeatureView
from resources.store import StoreResource

BATCH = 16
"""Days told to Dagster at once."""

NAMES_DAYS = "days"
"""Metadata of a failure that only names days, each of which was told with its own reason."""


def online_key(view: FeatureView) -> dg.AssetKey:
    """Return the key of the asset that pushes the view."""
    return dg.AssetKey(f"{view.name}_online")


def build_source(
    source: Source,
    partitions: dg.TimeWindowPartitionsDefinition,
    readers: Sequence[FeatureView],
) -> dg.AssetsDefinition:
    """Return the asset that ingests a source day by day.

    In a run that also computes views which read it (`readers`), it first ingests the days of their
    windows that are not committed yet, so that one run over new ground is complete.
    """

    @dg.asset(
        name=source.name,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="bronze",
        description=source.description,
        owners=[source.owner] if source.owner else None,
        tags=readable_tags(source),
        kinds={"deltalake", "parquet"},
        metadata={"dagster/column_schema": column_schema(source)},
        pool=source.name,
    )
    def bronze(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
        store = lockstep.open()
        asked = asked_days(context, source.name, readers)
        days = sorted({*asked, *_window_days(context, store, source, readers, asked)})
        report("plan", name=source.name, days=len(days))
        outcomes = ingest(store.lake, source, days, now=store.now, run_id=context.run.run_id)
        failed = _tell(context, outcomes, source_day)
        if failed and len(failed) == len(days):
            raise _failure(source.name, failed)
        yield from finish(context)

    return bronze


def _window_days(
    context: dg.AssetExecutionContext,
    store: Store,
    source: Source,
    readers: Sequence[FeatureView],
    asked: Sequence[date],
) -> set[date]:
    """Return the days that the run's views need of the source and that are not committed.

    With the days that just left a window, if they have landed: they give closing rows.
    """
    selected = context.job_def.asset_layer.selected_asset_keys
    reading = [view for view in readers if dg.AssetKey(view.name) in selected]
    needed = {
        read
        for view in reading
        for item in view.inputs
        if item.of is source
        for day in asked
        for read in item.days_read(day)
    }
    left = {
        day_left
        for view in reading
        for day in asked
        for item, day_left in left_days(view, day)
        if item.of is source
    }
    committed = store.committed(source).keys()
    if left - needed - committed:
        needed |= left & days_to_ingest(store.lake, source, store.now()).keys()
    return {day for day in needed - committed if day >= source.start}


def build_snapshot(snapshot: Snapshot) -> dg.AssetsDefinition:
    """Return the asset that ingests a slowly changing table as a whole."""

    @dg.asset(
        name=snapshot.name,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="bronze",
        description=snapshot.description,
        owners=[snapshot.owner] if snapshot.owner else None,
        tags=readable_tags(snapshot),
        kinds={"deltalake", "parquet"},
        metadata={"dagster/column_schema": column_schema(snapshot)},
        pool=snapshot.name,
    )
    def bronze(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> dg.MaterializeResult[None]:
        store = lockstep.open()
        report("plan", name=snapshot.name, days=1)
        outcome = ingest_snapshot(store.lake, snapshot, now=store.now, run_id=context.run.run_id)
        _report_day(outcome)
        if not outcome.certified:
            raise _failure(snapshot.name, {outcome.day: outcome.message})
        return dg.MaterializeResult(
            metadata=source_day(outcome), data_version=dg.DataVersion(outcome.content_hash)
        )

    return bronze


def build_view(
    view: FeatureView,
    partitions: dg.TimeWindowPartitionsDefinition,
    audits: Sequence[dg.AssetCheckSpec],
    views: Sequence[FeatureView],
) -> list[dg.AssetsDefinition]:
    """Return the asset that computes, audits and commits a view, and the one that pushes it.

    Args:
        views: Every view, each after those it reads.
    """
    return [
        _offline_asset(view, partitions, audits, views),
        _online_asset(view, partitions, views),
    ]


def _offline_asset(
    view: FeatureView,
    partitions: dg.TimeWindowPartitionsDefinition,
    audits: Sequence[dg.AssetCheckSpec],
    views: Sequence[FeatureView],
) -> dg.AssetsDefinition:
    @dg.asset(
        name=view.name,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[_dependency(item) for item in _one_per_table(view.inputs)],
        check_specs=audits,
        group_name=view.contract.entity.name,
        description=view.description,
        owners=[view.contract.owner],
        tags=readable_tags(view),
        kinds={"polars", "deltalake"},
        code_version=view.code_version,
        metadata={
            "dagster/column_schema": column_schema(view),
            "dagster/column_lineage": lineage(view),
            "dagster/code_references": code_reference(view),
            "ttl": str(view.contract.ttl or "for ever"),
            "when_absent": view.contract.when_absent,
            "freshness": str(view.contract.freshness),
        },
        pool=view.name,
    )
    def offline(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
        store = lockstep.open()
        days = asked_days(context, view.name, views)
        drawn = pictured(days)
        report("plan", name=view.name, days=len(days))
        outcomes = materialize(
            store.lake, view, days, store.reader(), now=store.now, run_id=context.run.run_id
        )
        failed = _tell(
            context, outcomes, lambda day: view_day(view, day, pictures=day.day in drawn)
        )
        pushed_too = online_key(view) in context.job_def.asset_layer.selected_asset_keys
        if failed and (len(failed) == len(days) or not pushed_too):
            raise _failure(view.name, failed)
        yield from finish(context)

    return offline


def _online_asset(
    view: FeatureView,
    partitions: dg.TimeWindowPartitionsDefinition,
    views: Sequence[FeatureView],
) -> dg.AssetsDefinition:
    @dg.asset(
        key=online_key(view),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[dg.AssetKey(view.name)],
        group_name=view.contract.entity.name,
        description=f"{view.name} online: {view.description}",
        owners=[view.contract.owner],
        tags=readable_tags(view),
        kinds={"redis"},
        metadata={"dagster/column_schema": column_schema(view)},
        pool=f"{view.name}_online",
    )
    def online(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
        store = lockstep.open()
        days = asked_days(context, view.name, views)
        committed = store.committed(view)
        # The gate: what is not certified in Delta is refused, whatever Dagster believes.
        certified = [day for day in days if day in committed]
        if certified:
            _push(context, store, view, certified, committed)
        if refused := _refused(store, view, context, days, certified):
            raise _refusal(store, view, refused)
        yield from finish(context)

    return online


def _refused(
    store: Store,
    view: FeatureView,
    context: dg.AssetExecutionContext,
    days: Sequence[date],
    certified: Sequence[date],
) -> list[date]:
    """Return the days to name: not certified, and in a run for landed files also attempted."""
    refused = sorted(set(days) - set(certified))
    if not for_landed_files(context):
        return refused
    attempts = store.lake.latest_attempts(view.name, refused) if refused else {}
    return [day for day in refused if day in attempts]


def _push(
    context: dg.AssetExecutionContext,
    store: Store,
    view: FeatureView,
    days: Sequence[date],
    committed: Mapping[date, Any],
) -> None:
    try:
        pushed = push(store.lake, store.online_store, view, days, now=store.now)
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    shown = pushed_day(pushed)
    events = [
        DayEvents(
            day=str(day),
            data_version=committed[day].content_hash,
            metadata={**shown, "revision": committed[day].revision},
        )
        for day in days
    ]
    record_days(context, events)
    report("push", name=view.name, days=len(days), rows=pushed.receipt.written)


def _refusal(store: Store, view: FeatureView, days: Sequence[date]) -> dg.Failure:
    attempts = store.lake.latest_attempts(view.name, days)
    why = {
        " ".join(
            Verdict.from_json(verdict).message
            for verdict in attempts[day].verdicts
            if not verdict["passed"] and verdict["severity"] == "block"
        )
        if day in attempts
        else "not computed yet, or a day of its window is missing"
        for day in days
    }
    return dg.Failure(
        f"{view.name} of {span(days)} is not certified in Delta, so it was not pushed: "
        f"{'; '.join(sorted(why))}. The other days were pushed. "
        f"Look: lockstep quarantine list {view.name}",
        metadata={NAMES_DAYS: span(days)},
        allow_retries=False,
    )


def _tell(
    context: dg.AssetExecutionContext, outcomes: Iterator[DayOutcome], metadata: Any
) -> dict[date, str]:
    """Record the days as they come, in batches; return day → message of those not certified."""
    failed: dict[date, str] = {}
    batch: list[DayEvents] = []
    try:
        for outcome in outcomes:
            batch.append(_events(outcome, metadata))
            _report_day(outcome)
            if not outcome.certified:
                context.log.warning(outcome.message)
                if outcome.status != "skipped" or not for_landed_files(context):
                    failed[outcome.day] = outcome.message
            if len(batch) >= BATCH:
                record_days(context, batch)
                batch = []
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    finally:
        record_days(context, batch)
    return failed


def _events(outcome: DayOutcome, metadata: Any) -> DayEvents:
    return DayEvents(
        day=str(outcome.day),
        data_version=outcome.content_hash if outcome.certified else None,
        metadata=metadata(outcome) if outcome.certified else {},
        checks=[
            CheckOutcome(
                name=verdict.check,
                passed=verdict.passed or verdict.released,
                blocking=verdict.severity == "block",
                description=verdict.message,
                metadata=dict(verdict.numbers),
            )
            for verdict in outcome.verdicts
        ],
    )


def _report_day(outcome: DayOutcome) -> None:
    report(
        "day",
        name=outcome.name,
        day=outcome.day,
        status=outcome.status,
        message=outcome.message,
        rows=outcome.rows,
    )


def _failure(name: str, failed: Mapping[date, str]) -> dg.Failure:
    first = failed[min(failed)]
    return dg.Failure(
        f"{name}: {len(failed)} days are not certified ({span(failed)}). {first}",
        metadata={NAMES_DAYS: span(failed)},
        allow_retries=False,
    )


def _one_per_table(inputs: Sequence[Input]) -> list[Input]:
    """Return the widest input per table: Dagster knows one edge per pair of assets."""
    widest: dict[str, Input] = {}
    for item in inputs:
        known = widest.get(item.of.name)
        if known is None or _reach_days(item) > _reach_days(known):
            widest[item.of.name] = item
    return list(widest.values())


def _reach_days(item: Input) -> int:
    if item.reach == "trailing":
        return item.days or 1
    if item.reach == "latest" and item.ttl is not None:
        return -(-item.ttl // timedelta(days=1)) + 1
    return 1


def _dependency(item: Input) -> dg.AssetDep:
    """Return the edge to what is read, with the partitions of its window."""
    key = dg.AssetKey(item.of.name)
    if isinstance(item.of, Snapshot):
        return dg.AssetDep(key)
    back = _reach_days(item) - 1
    if back == 0:
        return dg.AssetDep(key)
    return dg.AssetDep(
        key,
        partition_mapping=dg.TimeWindowPartitionMapping(
            start_offset=-back, allow_nonexistent_upstream_partitions=True
        ),
    )
