"""What is kept about days besides their rows, after an erasure: ledger entries and profiles."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime

import polars as pl

from lockstep.catalog import Catalog
from lockstep.erasure.files import below, restate, survey
from lockstep.lake import Lake
from lockstep.profile import profile
from lockstep.stores.delta_log import LOG
from lockstep.stores.rewriting import Match, without_rows
from lockstep.view import FeatureView


def complete_records(
    lake: Lake, catalog: Catalog, days: Mapping[str, Mapping[date, int]], now: datetime
) -> None:
    """Record the days that an erasure committed, and drop the profiles of what they replaced.

    A profile keeps least, greatest and frequent values, which may be one entity's alone.

    Args:
        days: Table → day → the revision that the erasure committed, or a later one.
    """
    for name, revisions in days.items():
        _record(lake, name, revisions, catalog, now)
        if name in catalog.views:
            _profile(lake, catalog.views[name], revisions)
    _drop_profiles(lake, days)


def _record(
    lake: Lake, name: str, revisions: Mapping[date, int], catalog: Catalog, now: datetime
) -> None:
    of = catalog.views.get(name) or catalog.sources.get(name) or catalog.snapshots.get(name)
    if of is None:
        return
    head = lake.table(of).head()
    entries = lake.latest_entries(name, set(revisions))
    lake.record(
        replace(
            entry,
            revision=revisions[day],
            outcome="committed",
            recorded_at=now,
            run_id="erasure",
            content_hash=head.days[day].content_hash,
        )
        for day, entry in sorted(entries.items())
        if entry.revision < revisions[day] == head.days[day].revision
    )


def _profile(lake: Lake, view: FeatureView, revisions: Mapping[date, int]) -> None:
    known = lake.profiles(view.name, revisions)
    table = lake.table(view)
    for day in sorted(revisions.keys() - known.keys()):
        found = profile(table.read_day(day), view.contract)
        lake.record_profiles(view.name, {(day, revisions[day]): found})


def _drop_profiles(lake: Lake, days: Mapping[str, Mapping[date, int]]) -> None:
    """Rewrite the profiles' files without those of older revisions of these days."""
    files = [info for info in below(lake) if info.path.startswith("profiles/")]
    log = [info for info in files if f"/{LOG}/" in info.path]
    for name, revisions in days.items():
        older = _older(revisions)
        of_view = [info for info in files if f"/view={name}/" in info.path]
        found = survey(lake.place, [*of_view, *log], older)
        for path in found.rows:
            lake.place.write(path, without_rows(lake.place, path, older))
        if found.tables:
            restate(lake.place, "profiles", found.rows)


def _older(revisions: Mapping[date, int]) -> Match:
    def match(scan: pl.LazyFrame) -> pl.Expr | None:
        if "revision" not in scan.collect_schema():
            return None
        return pl.any_horizontal(
            (pl.col("day") == day) & (pl.col("revision") < newest)
            for day, newest in revisions.items()
        )

    return match
