"""A declaration → Dagster assets: bronze for a source, offline and online for a view.

The assets only translate: what happens to a day is decided in `lockstep`, what is shown of it in
`_metadata`, how it is told and how a step ends in `_outcomes`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from feature_assets._checked import ViewDays
from feature_assets._edges import dependencies
from feature_assets._events import DayEvents, record_days
from feature_assets._landed import asked_days, for_landed_files
from feature_assets._metadata import (
    code_reference,
    column_schema,
    lineage,
    pictured,
    promise,
    pushed_days,
    readable_tags,
    receipt_metadata,
    source_day,
)
from feature_assets._outcomes import (
    NAMES_DAYS,
    end,
    end_last,
    failed_days,
    failure,
    report_day,
    tell,
)
from lockstep.compute import left_days, require_complete
from lockstep.errors import IncompleteWindowError, LockstepError, PushFailedError
from lockstep.ingest import days_to_ingest, ingest, ingest_snapshot
from lockstep.layout import Receipt
from lockstep.materialize import materialize
from lockstep.progress import report
from lockstep.quality import Verdict
from lockstep.sources import Snapshot, Source
from lockstep.store import Store
from lockstep.time import span
from lockstep.view import FeatureView
from resources.store import StoreResource


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

    @dg.asset(partitions_def=partitions, **_bronze(source))
    def bronze(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
        store = lockstep.open()
        asked = asked_days(context, source.name, readers)
        days = sorted({*asked, *_window_days(context, store, source, readers, asked)})
        report("plan", name=source.name, days=len(days))
        outcomes = ingest(store.lake, source, days, now=store.now, run_id=context.run.run_id)
        zone = store.project.zone
        failed = tell(context, outcomes, lambda outcome: source_day(outcome, zone))
        yield from end(context, source.name, days, failed)

    return bronze


def _window_days(
    context: dg.AssetExecutionContext,
    store: Store,
    source: Source,
    readers: Sequence[FeatureView],
    asked: Sequence[date],
) -> set[date]:
    """Return the days that the run's views need of the source and that are not committed.

    With the days that just left a window, if they have landed: they give closing rows. None in a
    run for landed files: a day of a window for which nothing has landed is no fault of theirs.
    """
    if for_landed_files(context):
        return set()
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


def _bronze(of: Source | Snapshot) -> dict[str, Any]:
    """Return what the assets of sources and snapshots have in common."""
    return {
        "name": of.name,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "group_name": "bronze",
        "description": of.description,
        "owners": [of.owner] if of.owner else None,
        "tags": readable_tags(of),
        "kinds": {"deltalake", "parquet"},
        "metadata": {"dagster/column_schema": column_schema(of)},
        "pool": of.name,
    }


def build_snapshot(snapshot: Snapshot) -> dg.AssetsDefinition:
    """Return the asset that ingests a slowly changing table as a whole."""

    @dg.asset(**_bronze(snapshot))
    def bronze(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> dg.MaterializeResult[None]:
        store = lockstep.open()
        report("plan", name=snapshot.name, days=1)
        run_id = context.run.run_id
        try:
            outcome = ingest_snapshot(store.lake, snapshot, now=store.now, run_id=run_id)
        except LockstepError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        report_day(outcome)
        if not outcome.certified:
            raise failure(snapshot.name, {outcome.day: outcome.message})
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
        deps=dependencies(view),
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
            **promise(view),
        },
        pool=view.name,
    )
    def offline(
        context: dg.AssetExecutionContext, lockstep: StoreResource
    ) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
        store = lockstep.open()
        days = asked_days(context, view.name, views)
        shown = ViewDays(view, store, pictured(days))
        report("plan", name=view.name, days=len(days))
        outcomes = materialize(
            store.lake, view, days, store.reader(), now=store.now, run_id=context.run.run_id
        )
        failed = tell(context, outcomes, shown.day, shown.check)
        yield from end(context, view.name, days, failed)

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
        description=f"`{view.name}` in Redis, the latest valid row per "
        f"{view.contract.entity.name}. {view.description}",
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
        committed, failed = store.committed(view), failed_days(context, view.name)
        # The gate: what is not certified in Delta is refused, whatever Dagster believes.
        good = [day for day in days if day in committed and day not in failed]
        report("plan", name=view.name, days=len(good))
        if good:
            _push(context, store, view, good, committed)
        refused = failed if for_landed_files(context) else {*failed, *days} - {*good}
        if named := sorted(refused & {*days}):
            raise _refusal(store, view, named, kept=failed & committed.keys(), some=bool(good))
        yield from end_last(context)

    return online


def _push(
    context: dg.AssetExecutionContext,
    store: Store,
    view: FeatureView,
    days: Sequence[date],
    committed: Mapping[date, Any],
) -> None:
    try:
        pushed = store.push(view, days)
    except LockstepError as error:
        done = error.receipt if isinstance(error, PushFailedError) else None
        numbers = receipt_metadata(done) if isinstance(done, Receipt) else None
        raise dg.Failure(str(error), metadata=numbers, allow_retries=False) from error
    shown = pushed_days(pushed, {day: committed[day].revision for day in days})
    record_days(
        context,
        [
            DayEvents(day=str(day), data_version=committed[day].content_hash, metadata=shown[day])
            for day in days
        ],
    )
    report("push", name=view.name, days=len(days), rows=pushed.receipt.written)
    context.log.info(pushed.sentence)


def _refusal(
    store: Store, view: FeatureView, days: Sequence[date], *, kept: Collection[date], some: bool
) -> dg.Failure:
    """Return the failure that names the days and why the first of them was not pushed.

    Args:
        kept: Days that failed this time and have an older revision that stays.
        some: Whether other days were pushed.
    """
    more = f" (and {len(days) - 1} more)" if len(days) > 1 else ""
    stays = f" What was certified before stays for {span(kept)}." if kept else ""
    others = "The other days were pushed." if some else "Nothing was pushed."
    return dg.Failure(
        f"{view.name} of {span(days)} is not certified, so it was not pushed. "
        f"{days[0]}: {_why(store, view, days[0])}{more}{stays} {others} "
        f"Look: lockstep quarantine list {view.name}",
        metadata={NAMES_DAYS: span(days)},
        allow_retries=False,
    )


def _why(store: Store, view: FeatureView, day: date) -> str:
    """Return why the day is not certified, as far as the lake tells."""
    attempt = store.lake.latest_attempts(view.name, [day]).get(day)
    verdicts = [Verdict.from_json(verdict) for verdict in attempt.verdicts] if attempt else []
    if blocking := [verdict.message for verdict in verdicts if verdict.blocks]:
        return " ".join(blocking)
    try:
        require_complete(view, day, store.reader())
    except IncompleteWindowError as error:
        return str(error)
    return "It was not computed yet."
