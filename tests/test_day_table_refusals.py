"""What the offline store refuses, and that it says why and writes nothing."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep.errors import ConfigError, ContractChangedError, InputError, StoreError
from lockstep.hashing import content_hash
from lockstep.stores.delta import DayTable, Proposal
from tests.day_tables import COLUMNS, DAY, NOON, clock, created, proposal, rows, table_at


@pytest.fixture
def table(tmp_path: Path) -> DayTable:
    return created(tmp_path / "my lake" / "offline" / "txn_7d")


@pytest.mark.parametrize(
    "frame",
    [
        rows(DAY).drop("labels"),
        rows(DAY).with_columns(extra=1),
        rows(DAY).select(reversed(list(COLUMNS))),
        rows(DAY).with_columns(pl.col("sum_amt_7d").cast(pl.Float32)),
        rows(DAY).with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
        rows(DAY).with_columns(pl.col("event_timestamp").dt.cast_time_unit("ns")),
    ],
)
def test_a_frame_with_other_columns_is_refused(table: DayTable, frame: pl.DataFrame) -> None:
    good = proposal(DAY + timedelta(days=1))

    with pytest.raises(InputError, match=r"of txn_7d for 2026-11-01 .*Nothing was written"):
        table.commit([good, Proposal(DAY, frame, "hash", {})], now=clock())

    assert table.head().version == 0


def test_a_day_proposed_twice_is_refused(table: DayTable) -> None:
    with pytest.raises(InputError, match="proposed once"):
        table.commit([proposal(DAY), proposal(DAY, rows(DAY, 2.0))], now=clock())


def test_an_instant_in_place_of_a_day_is_refused(table: DayTable) -> None:
    frame = rows(DAY)

    with pytest.raises(InputError, match="a date"):
        table.commit([Proposal(NOON, frame, content_hash(frame), {})], now=clock())


def test_a_note_that_is_not_json_is_refused(table: DayTable) -> None:
    for value in (float("nan"), {1, 2}, DAY):
        with pytest.raises(InputError, match="JSON"):
            table.commit([proposal(DAY, value=value)], now=clock())

    assert table.head().version == 0


def test_a_clock_without_a_zone_is_refused(table: DayTable) -> None:
    with pytest.raises(InputError, match="zone"):
        table.commit([proposal(DAY)], now=lambda: datetime(2026, 11, 22))

    assert table.head().version == 0


def test_another_zone_is_refused_for_reading_and_writing(table: DayTable) -> None:
    other = table_at(table.uri, zone="Europe/Berlin")
    attempts: Sequence[Callable[[], object]] = (
        other.create,
        other.head,
        other.scan,
        lambda: other.commit([proposal(DAY)], now=clock()),
    )

    for attempt in attempts:
        with pytest.raises(
            ConfigError,
            match=r"another zone\. Expected 'Europe/Berlin', got 'America/New_York'",
        ):
            attempt()


def test_another_name_is_refused_because_its_revisions_are_others(table: DayTable) -> None:
    with pytest.raises(ConfigError, match="another name"):
        table_at(table.uri, name="txn_8d").create()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"columns": COLUMNS | {"count": pl.Int64()}}, "count added"),
        ({"columns": {k: v for k, v in COLUMNS.items() if k != "labels"}}, "labels removed"),
        (
            {"columns": COLUMNS | {"sum_amt_7d": pl.Float32()}},
            "sum_amt_7d was Float64, is Float32",
        ),
        (
            {"columns": dict(reversed(COLUMNS.items()))},
            "order was household_id, event_timestamp",
        ),
        ({"contract": '{"count": "Int32"}'}, '{"count": "Int64"} became {"count": "Int32"}'),
    ],
)
def test_another_contract_is_refused_for_writing_with_the_difference(
    table: DayTable, changes: dict[str, Any], difference: str
) -> None:
    table.commit([proposal(DAY)], now=clock())
    other = table_at(table.uri, **changes)
    empty = pl.DataFrame(schema=other.columns)

    for attempt in (
        other.create,
        lambda: other.commit([Proposal(DAY, empty, "h", {})], now=clock()),
    ):
        with pytest.raises(ContractChangedError) as refused:
            attempt()
        assert difference in str(refused.value)
        assert "lockstep materialize txn_7d --rebuild" in str(refused.value)
    assert list(other.head().days) == [DAY]


@pytest.mark.parametrize(
    ("name", "columns", "problem"),
    [
        ("txn_7d", {"a": pl.UInt32()}, "unsigned"),
        ("txn_7d", {"a": pl.Datetime("ns", "UTC")}, "ns"),
        ("txn_7d", {"a": pl.Datetime("us")}, "no time zone"),
        ("txn_7d", {"a": pl.List(pl.Categorical())}, r"a\[\]"),
        ("txn_7d", {"a": pl.Struct({"b": pl.Duration()})}, r"a\.b"),
        ("txn_7d", {"a": pl.Null()}, "does not survive"),
        ("txn_7d", {"day": pl.Int64()}, "'day' is added by the store"),
        ("txn_7d", {"known_at": pl.Int64()}, "'known_at' is added by the store"),
        ("txn_7d", {}, "no column"),
        ("../x", {"a": pl.Int64()}, "A name is lower-case"),
        ("Txn", {"a": pl.Int64()}, "A name is lower-case"),
        ("t'; --", {"a": pl.Int64()}, "A name is lower-case"),
    ],
)
def test_what_would_not_come_back_unchanged_is_refused(
    tmp_path: Path, name: str, columns: Mapping[str, pl.DataType], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        table_at(tmp_path, name=name, columns=columns)


def test_a_missing_table_says_what_to_do(tmp_path: Path) -> None:
    table = table_at(tmp_path / "txn_7d")

    assert not table.exists()
    assert table.head_or_none() is None
    for attempt in (table.head, table.scan, lambda: table.commit([proposal(DAY)], now=clock())):
        with pytest.raises(StoreError, match=r"does not exist.*lockstep materialize"):
            attempt()
