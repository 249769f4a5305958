"""What a later revision of a day replaced is kept beside the table: once, and whoever is killed."""

import multiprocessing
import os
import signal
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lockstep import Feature, Features, FeatureView, feature_view
from lockstep.quarantine import Quarantine
from lockstep.rebuild import rebuild
from lockstep.release import release_frame
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.stores.sibling import sibling_of
from lockstep.superseded import keep_superseded, not_kept, superseded
from tests.day_tables import (
    COLUMNS,
    DAY,
    NOON,
    at,
    clock,
    created,
    days_from,
    in_threads,
    proposal,
    rows,
)
from tests.scenario import EVENTS, START, USER, World, catalog_of, event, world

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.crash_warm"])
D1, D2, D3 = (START + timedelta(days=n) for n in range(3))


@pytest.fixture
def table(anywhere: DayTable) -> DayTable:
    return anywhere


def restated(table: DayTable, revisions: int = 3) -> DayTable:
    for number in range(1, revisions + 1):
        frames = [rows(day, float(number), number + 2) for day in days_from(DAY, 2)]
        days = zip(days_from(DAY, 2), frames, strict=True)
        table.commit([proposal(day, frame) for day, frame in days], now=clock())
    return table


def kept(table: DayTable) -> pl.DataFrame:
    """Return everything in the siblings of a table."""
    history, found = table.history(), []
    for era in history.eras:
        place = sibling_of(table.place, table.name, era.table_id).place
        if place.list("_delta_log"):
            # Not by `pl.scan_delta`, which finds no files where the path has a space.
            stored = DeltaTable(place.uri, storage_options=place.delta_options)
            found.append(pl.DataFrame(stored.to_pyarrow_table()))
    return pl.concat(found, how="diagonal") if found else pl.DataFrame()


def copies(table: DayTable) -> dict[tuple[date, int], int]:
    """Return (day, revision) → rows kept."""
    found = kept(table)
    if found.is_empty():
        return {}
    return {(d, r): n for d, r, n in found.group_by("day", "revision").len().sort("day").rows()}


def test_what_was_replaced_is_kept_with_its_revision(table: DayTable) -> None:
    restated(table)

    done = keep_superseded(table)

    assert [(r.day, r.revision) for r in done.copied] == [
        (day, number) for day in days_from(DAY, 2) for number in (1, 2)
    ]
    assert copies(table) == {(day, n): n + 2 for day in days_from(DAY, 2) for n in (1, 2)}
    first = kept(table).filter(pl.col("day") == DAY, pl.col("revision") == 1)
    assert_frame_equal(first.select(list(COLUMNS)), rows(DAY, 1.0, 3))
    assert first["known_at"].to_list() == [NOON] * 3


def test_copying_twice_leaves_one_copy(table: DayTable) -> None:
    restated(table)
    keep_superseded(table)
    before = copies(table)

    again = keep_superseded(at(table))

    assert again.copied == []
    assert copies(table) == before


def test_copying_at_once_leaves_one_copy(table: DayTable) -> None:
    restated(table, 4)

    done = in_threads([lambda: keep_superseded(at(table)) for _ in range(4)])

    assert sum(len(one.copied) for one in done) == 6
    assert copies(table) == {(day, n): n + 2 for day in days_from(DAY, 2) for n in (1, 2, 3)}


def test_only_the_named_days_are_looked_at(tmp_path: Path) -> None:
    table = restated(created(tmp_path / "offline" / "txn_7d"))

    keep_superseded(table, [DAY])

    assert copies(table).keys() == {(DAY, 1), (DAY, 2)}


def test_a_table_that_was_never_restated_has_no_sibling(tmp_path: Path) -> None:
    table = restated(created(tmp_path / "offline" / "txn_7d"), 1)

    keep_superseded(table)

    assert not (tmp_path / "superseded").exists()


def test_a_day_without_rows_needs_no_copy(tmp_path: Path) -> None:
    table = created(tmp_path / "offline" / "txn_7d")
    table.commit([proposal(DAY, rows(DAY).clear())], now=clock())
    table.commit([proposal(DAY)], now=clock())

    assert keep_superseded(table).lost == []
    assert SliceReader(table).rows(DAY, 1, ["labels"]).height == 0


def test_a_view_may_have_a_column_called_revision(tmp_path: Path) -> None:
    columns = {"k": pl.Int64(), "event_timestamp": COLUMNS["event_timestamp"]}
    columns |= {"revision": pl.Int64(), "revision_": pl.String()}
    table = created(tmp_path / "offline" / "txn_7d", columns=columns)
    frames = [
        pl.DataFrame(
            {"k": [1, 2], "event_timestamp": [NOON] * 2, "revision": [n, 9], "revision_": ["a", n]},
            schema=columns,
            strict=False,
        )
        for n in (7, 8)
    ]
    for frame in frames:
        table.commit([proposal(DAY, frame)], now=clock())
    keep_superseded(table)
    for info in table.place.list("day=2026-11-01"):
        table.place.delete(info.path)

    found = SliceReader(table).rows(DAY, 1, list(columns))

    assert_frame_equal(found, frames[0])


def test_what_is_no_longer_what_was_certified_is_not_kept(tmp_path: Path) -> None:
    table = restated(created(tmp_path / "offline" / "txn_7d"), 2)
    (first, _) = superseded(table.history())
    (path,) = SliceReader(table).paths_of(first)
    other = pl.read_parquet(table.place.path(path), hive_partitioning=False)
    other.with_columns(sum_amt_7d=pl.lit(99.0)).write_parquet(table.place.path(path))

    done = keep_superseded(table)

    assert [(r.day, r.revision) for r in done.lost] == [(DAY, 1)]
    assert (DAY, 1) not in copies(table)


# Runs: the engine keeps what it restates.


def make_daily(**more: Feature) -> FeatureView:
    body: dict[str, Any] = {
        "__doc__": "What somebody spent on one day.",
        "amount": Feature(pl.Float64, "Spend.", at_least=0),
        **more,
    }
    promise = {"entity": USER, "owner": "team:tests", "ttl": timedelta(days=3), "min_rows": 0}
    contract = type(Features)("Daily", (Features,), body, **promise)

    @feature_view(contract, inputs=[EVENTS.trailing(days=1)])
    def daily(events: pl.LazyFrame) -> pl.LazyFrame:
        found = events.group_by("user_id").agg(amount=pl.col("amount").sum())
        return found.with_columns(twice=pl.col("amount") * 2) if more else found

    return daily


@pytest.fixture
def made(tmp_path: Path) -> World:
    return opened(tmp_path)


def opened(folder: Path) -> World:
    found = world(folder)
    found.store.__dict__["catalog"] = catalog_of([make_daily()])
    return found


def daily_of(made: World) -> FeatureView:
    return made.store.views["daily"]


def day_table(made: World) -> DayTable:
    return made.store.lake.table(daily_of(made))


def land_and_build(
    made: World, file: str, amount: float, first: date = D1, last: date = D3
) -> None:
    made.land("events", [event(f"{D1}", 1, D1, amount), event(f"{D2}", 1, D2, 1.0)], file)
    made.ingest(first, last)
    made.build(daily_of(made), first, last)


def test_a_run_keeps_what_it_restates_and_nothing_else(made: World) -> None:
    land_and_build(made, "a.parquet", 5.0)
    land_and_build(made, "b.parquet", 6.0)

    assert kept(day_table(made)).select("day", "revision", "user_id", "amount").rows() == [
        (D1, 1, 1, 5.0)
    ]


def test_a_rebuild_keeps_the_table_it_replaces(made: World) -> None:
    land_and_build(made, "a.parquet", 5.0)
    land_and_build(made, "b.parquet", 6.0)
    wider = make_daily(twice=Feature(pl.Float64, "Spend, twice."))
    made.store.__dict__["catalog"] = catalog_of([wider])

    list(rebuild(made.store.lake, wider, made.store.reader(), now=made.clock))

    table = day_table(made)
    found = kept(table).select("day", "revision", "amount").sort("day", "revision").rows()
    assert found == [(D1, 1, 5.0), (D1, 2, 6.0), (D2, 1, 1.0)]
    assert "twice" not in kept(table).columns
    assert not_kept(table, table.history()) == []


def test_a_release_keeps_what_it_replaces(made: World) -> None:
    land_and_build(made, "a.parquet", 5.0)
    land_and_build(made, "b.parquet", -6.0)
    (item,) = [i for i in Quarantine(made.store.lake.quarantine).items("daily") if i.open]
    assert copies(day_table(made)) == {}

    release_frame(
        made.store.lake, daily_of(made), item, "right", made.store.reader(), now=made.clock
    )

    assert copies(day_table(made)) == {(D1, 1): 1}


def killed_run(folder: Path, crash: str) -> None:
    os.environ |= {"LOCKSTEP_TESTING": "1", "LOCKSTEP_CRASH": crash}
    found = opened(folder)
    found.build(daily_of(found), D1, D3)


def in_a_process(folder: Path, crash: str) -> int | None:
    process = FORKS.Process(target=killed_run, args=(folder, crash))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("point", ["committed", "kept"])
def test_a_run_killed_about_the_copy_loses_nothing_and_a_rerun_completes_it(
    tmp_path: Path, made: World, point: str
) -> None:
    land_and_build(made, "a.parquet", 5.0)
    made.land("events", [event(f"{D1}", 1, D1, 6.0)], "b.parquet")
    made.ingest(D1, D3)

    killed = in_a_process(tmp_path, point)

    table = day_table(opened(tmp_path))
    assert killed == -signal.SIGKILL
    assert table.head().days[D1].revision == 2
    assert copies(table) == ({} if point == "committed" else {(D1, 1): 1})
    assert SliceReader(table).rows(D1, 1, ["amount"])["amount"].to_list() == [5.0]
    assert in_a_process(tmp_path, "") == 0
    assert copies(table) == {(D1, 1): 1}
