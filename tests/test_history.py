"""Every revision that was ever certified stays known, and readable at the speed of its file."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lockstep.errors import StoreError
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from lockstep.superseded import keep_superseded
from lockstep.time import as_of, zone_named
from lockstep.training.timeline import known_slices
from tests.day_tables import (
    COLUMNS,
    DAY,
    NEW,
    NOON,
    at,
    clock,
    created,
    days_from,
    new_rows,
    proposal,
    rows,
    table_at,
)

NEXT = DAY + timedelta(days=1)
RETYPED = {
    "columns": {**COLUMNS, "sum_amt_7d": pl.Int64()},
    "contract": '{"count": "Int64", "whole": true}',
}


@pytest.fixture
def table(anywhere: DayTable) -> DayTable:
    return anywhere


@pytest.fixture
def local(tmp_path: Path) -> DayTable:
    return created(tmp_path / "my lake" / "offline" / "txn_7d")


def restate(table: DayTable, day: date, amount: float, hour: int = 12) -> None:
    table.commit([proposal(day, rows(day, amount))], now=clock(NOON.replace(hour=hour)))


def rebuild(table: DayTable, days: dict[date, pl.DataFrame], **changes: Any) -> DayTable:
    new = at(table, **changes)
    staging = start_rebuild(new)
    staging.commit([proposal(day, frame) for day, frame in days.items()], now=clock())
    finish_rebuild(new, staging, sorted(days), now=clock(NOON.replace(hour=20)))
    return new


def known(table: DayTable, version: int | None = None) -> dict[date, list[tuple[int, int]]]:
    """Return day → (revision, version) of the history."""
    found = table.history(version).days
    return {day: [(r.revision, r.version) for r in records] for day, records in found.items()}


def amounts(reader: SliceReader, day: date, revision: int) -> list[Any]:
    return reader.rows(day, revision, ["sum_amt_7d"])["sum_amt_7d"].to_list()


def drop_removed_files(table: DayTable) -> None:
    """Delete what the newest version does not name, as gc does."""
    current = set(SliceReader(table)._files.values())
    for info in table.place.list():
        if info.path.startswith("day=") and info.path not in current:
            table.place.delete(info.path)


def test_the_history_holds_every_revision_of_every_day(local: DayTable) -> None:
    local.commit([proposal(DAY), proposal(NEXT)], now=clock())
    restate(local, DAY, 2.0, hour=14)
    restate(local, DAY, 3.0, hour=16)

    found = local.history()

    assert known(local) == {DAY: [(1, 1), (2, 2), (3, 3)], NEXT: [(1, 1)]}
    assert [r.known_at.hour for r in found.days[DAY]] == [12, 14, 16]
    assert found.first_known_at == found.days[DAY][0].known_at
    assert {day: record.revision for day, record in found.current.items()} == {DAY: 3, NEXT: 1}
    assert {found.table_of(r) for r in found.days[DAY]} == {local.head().table_id}


def test_the_history_at_a_version_is_that_of_the_time(local: DayTable) -> None:
    seen = {0: known(local)}
    for number in range(1, 9):
        restate(local, DAY if number % 3 else NEXT, float(number))
        seen[number] = known(local)

    assert {version: known(table_at(local.uri), version) for version in seen} == seen
    assert {version: known(local, version) for version in seen} == seen


def test_the_history_reaches_across_a_rebuild(local: DayTable) -> None:
    local.commit([proposal(DAY), proposal(NEXT)], now=clock())
    restate(local, DAY, 2.0)
    old = local.head().table_id
    new = rebuild(local, {DAY: new_rows(DAY), NEXT: new_rows(NEXT)}, **NEW)

    found = new.history()

    assert known(new) == {DAY: [(1, 1), (2, 2), (3, 3)], NEXT: [(1, 1), (2, 3)]}
    assert [found.table_of(r) == old for r in found.days[DAY]] == [True, True, False]
    assert (found.table_id, found.version) == (new.head().table_id, 3)
    assert known(local, 2) == {DAY: [(1, 1), (2, 2)], NEXT: [(1, 1)]}
    assert local.history(2).table_id == old


def test_a_rebuild_that_leaves_content_alone_makes_no_revision(local: DayTable) -> None:
    local.commit([proposal(DAY)], now=clock())
    new = rebuild(local, {DAY: rows(DAY)}, contract="{}")

    assert known(new) == {DAY: [(1, 1)]}
    assert new.history().current[DAY].version == 2
    assert amounts(SliceReader(new), DAY, 1) == [1.0] * 3
    restate(new, DAY, 2.0)
    keep_superseded(new)
    drop_removed_files(new)
    assert amounts(SliceReader(new), DAY, 1) == [1.0] * 3


def test_a_day_that_a_rebuild_dropped_is_in_the_history_and_not_current(local: DayTable) -> None:
    local.commit([proposal(DAY), proposal(NEXT)], now=clock())
    new = at(local, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(NEXT, new_rows(NEXT))], now=clock())
    finish_rebuild(new, staging, [NEXT], now=clock(), dropping=[DAY])

    assert known(new) == {DAY: [(1, 1)], NEXT: [(1, 1), (2, 2)]}
    assert list(new.history().current) == [NEXT]
    keep_superseded(new)
    drop_removed_files(new)
    assert amounts(SliceReader(local, 1), DAY, 1) == [1.0] * 3


def test_a_history_costs_no_look_into_the_log_that_was_paid_already(
    local: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(24):
        restate(local, DAY, float(number))
    other = table_at(local.uri)
    read: list[int] = []
    real = type(local.index)._commit

    def commit(self: Any, version: int) -> Any:
        read.append(version)
        return real(self, version)

    monkeypatch.setattr(type(local.index), "_commit", commit)

    local.history()
    other.history()
    first = len(read)
    other.history()
    other.history(7)

    assert first < 10
    assert len(read) == first


def test_a_cache_of_an_earlier_release_is_built_again(local: DayTable) -> None:
    for number in range(12):
        restate(local, DAY, float(number))
    expected = local.history()
    cache = Path(local.uri).parent / "_index" / "txn_7d.json"
    head = local.head()
    bare = type(head)(head.table_id, head.version, head.days, head.digest)
    local.index._save(bare)
    assert b'"past":{}' in cache.read_bytes()

    assert table_at(local.uri).history() == expected


def test_every_revision_is_read_in_the_order_it_was_committed(table: DayTable) -> None:
    frames = {n: rows(DAY, float(n), count=n + 2).reverse() for n in range(1, 4)}
    for frame in frames.values():
        table.commit([proposal(DAY, frame)], now=clock())
    table.commit([proposal(NEXT)], now=clock())

    for gone in (False, True):
        if gone:
            keep_superseded(table)
            drop_removed_files(table)
        reader = SliceReader(table)
        for revision, frame in frames.items():
            assert_frame_equal(reader.rows(DAY, revision, list(COLUMNS)), frame)
            narrow = reader.rows(DAY, revision, ["sum_amt_7d", "household_id"])
            assert_frame_equal(narrow, frame.select("sum_amt_7d", "household_id"))


def test_slices_of_the_timeline_are_what_is_read(local: DayTable) -> None:
    local.commit([proposal(DAY), proposal(NEXT, rows(NEXT).clear())], now=clock())
    restate(local, DAY, 2.0)
    reader = SliceReader(local)

    pieces = known_slices(reader.history.days, zone_named(local.zone), timedelta(hours=3))

    assert [(p.day, p.revision, reader.read(p, ["sum_amt_7d"]).height) for p in pieces] == [
        (DAY, 1, 3),
        (NEXT, 1, 0),
        (DAY, 2, 3),
    ]
    assert reader.read(pieces[0], ["labels"]).schema == {"labels": COLUMNS["labels"]}
    assert as_of(DAY, zone_named(local.zone)).timestamp() * 1e6 == pieces[0].event_us


def test_many_slices_are_what_each_of_them_is(table: DayTable) -> None:
    days = days_from(DAY, 4)
    table.commit([proposal(day, rows(day, float(day.day), day.day)) for day in days], now=clock())
    table.commit([proposal(DAY, rows(DAY).clear()), proposal(days[2], rows(DAY))], now=clock())
    reader = SliceReader(table)
    pieces = known_slices(reader.history.days, zone_named(table.zone), timedelta(hours=3))
    order = [pieces[n] for n in (3, 0, 5, 1, 4, 2)]

    for columns in (["labels", "household_id"], ["household_id", "never"], ["day"], []):
        found = reader.read_many(order, columns)
        for piece, frame in zip(order, found, strict=True):
            assert_frame_equal(frame, reader.read(piece, columns))


def test_a_column_that_the_revision_did_not_have_is_absent(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())
    new = rebuild(table, {DAY: new_rows(DAY)}, **NEW)
    reader = SliceReader(new)

    assert reader.rows(DAY, 1, ["count", "sum_amt_7d"]).columns == ["sum_amt_7d"]
    assert reader.rows(DAY, 2, ["count", "sum_amt_7d"]).columns == ["count", "sum_amt_7d"]
    assert reader.rows(DAY, 2, ["never", "day"])["day"].to_list() == [DAY] * 3
    old = SliceReader(table, 1)
    assert old.rows(DAY, 1, ["count", "sum_amt_7d"]).columns == ["sum_amt_7d"]
    assert "count" not in old.schema


def test_a_column_of_another_type_is_absent(local: DayTable) -> None:
    local.commit([proposal(DAY)], now=clock())
    whole = rows(DAY).with_columns(pl.col("sum_amt_7d").cast(pl.Int64))
    new = rebuild(local, {DAY: whole}, **RETYPED)

    for _ in range(2):
        reader = SliceReader(new)
        assert reader.rows(DAY, 1, ["household_id", "sum_amt_7d"]).columns == ["household_id"]
        assert amounts(reader, DAY, 2) == [1, 1, 1]
        assert amounts(SliceReader(local, 1), DAY, 1) == [1.0] * 3
        keep_superseded(new)
        drop_removed_files(new)


def test_rows_that_are_gone_are_named_and_never_replaced(local: DayTable) -> None:
    local.commit([proposal(DAY)], now=clock())
    restate(local, DAY, 2.0)
    drop_removed_files(local)

    with pytest.raises(StoreError, match=rf"txn_7d for {DAY}, revision 1, are gone.*version 1"):
        SliceReader(local).rows(DAY, 1, ["sum_amt_7d"])
    with pytest.raises(StoreError, match="Revision 7 of txn_7d"):
        SliceReader(local).rows(DAY, 7, ["sum_amt_7d"])
    with pytest.raises(StoreError, match="Revision 2 of txn_7d"):
        SliceReader(local, 1).rows(DAY, 2, ["sum_amt_7d"])


def test_a_damaged_file_is_no_missing_file(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())
    (path,) = SliceReader(table)._files.values()
    table.place.write(path, b"PAR1 torn")

    with pytest.raises(StoreError, match=f"txn_7d for {DAY} are not those that were certified"):
        SliceReader(table).rows(DAY, 1, ["sum_amt_7d"])


def test_a_reader_stays_at_its_version(local: DayTable) -> None:
    days = days_from(DAY, 3)
    local.commit([proposal(day) for day in days], now=clock())
    pinned = SliceReader(local)
    restate(local, DAY, 9.0)

    for reader in (pinned, SliceReader(local, 1)):
        assert [amounts(reader, day, 1) for day in days] == [[1.0] * 3] * 3
        assert reader.version == 1
