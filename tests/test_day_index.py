"""The index of certified days: a cache that is never believed over the log."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from lockstep.errors import LockstepError, StoreError
from lockstep.stores.delta import DayTable
from lockstep.stores.delta_log import log_file
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from tests.day_tables import DAY, INSTANT, NOON, clock, created, days_from, proposal, rows, table_at


@pytest.fixture
def table(tmp_path: Path) -> DayTable:
    return created(tmp_path / "my lake" / "offline" / "txn_7d")


def test_every_commit_is_seen_by_every_process(table: DayTable) -> None:
    for number, day in enumerate(days_from(DAY, 25)):
        table.commit([proposal(day)], now=clock())

        assert table.head() == table_at(table.uri).head()
        assert table.head().version == number + 1
        assert len(table.head().days) == number + 1


@pytest.mark.parametrize("damage", ["missing", "stale", "torn", "flipped", "empty", "foreign"])
def test_the_cache_is_never_believed_over_the_log(
    table: DayTable, tmp_path: Path, damage: str
) -> None:
    cache = Path(table.uri).parent / "_index" / "txn_7d.json"
    other = created(tmp_path / "other" / "txn_7d")
    for day in days_from(DAY, 12):
        table.commit([proposal(day)], now=clock())
        other.commit([proposal(day, rows(day, 9.0))], now=clock())
    early = cache.read_bytes()
    for day in days_from(DAY, 12):
        table.commit([proposal(day, rows(day, 2.0))], now=clock())
    expected = table.head()
    body = cache.read_bytes()
    foreign = (Path(other.uri).parent / "_index" / "txn_7d.json").read_bytes()
    damaged = {
        "stale": early,
        "torn": body[: len(body) // 2],
        "flipped": body.replace(b'"revision":2', b'"revision":7', 1),
        "empty": b"",
        "foreign": foreign,
    }

    if damage == "missing":
        cache.unlink()
    else:
        cache.write_bytes(damaged[damage])

    assert damage == "missing" or damaged[damage] != body
    assert table_at(table.uri).head() == expected


def test_a_log_restored_from_a_backup_is_not_mixed_with_the_cache(table: DayTable) -> None:
    for day in days_from(DAY, 12):
        table.commit([proposal(day)], now=clock())
    for version in (11, 12):
        Path(table.uri, log_file(version)).unlink()
    restored = table_at(table.uri)
    restored.commit([proposal(DAY, rows(DAY, 5.0))], now=clock())
    restored.commit([proposal(DAY, rows(DAY, 6.0))], now=clock())

    for reader in (table, restored, table_at(table.uri)):
        assert reader.head().days[DAY].revision == 3
        assert len(reader.head().days) == 10


def test_a_cache_that_cannot_be_written_is_done_without(table: DayTable) -> None:
    (Path(table.uri).parent / "_index").write_text("a file in the folder's place")

    for day in days_from(DAY, 12):
        table.commit([proposal(day)], now=clock())

    assert len(table_at(table.uri).head().days) == 12


def test_the_index_survives_checkpoints(table: DayTable) -> None:
    for number in range(105):
        table.commit([proposal(DAY, rows(DAY, float(number)))], now=clock())

    assert table_at(table.uri).head().days[DAY].revision == 105
    assert list(Path(table.uri, "_delta_log").glob("*.checkpoint*.parquet"))


def test_maintenance_changes_nothing(table: DayTable) -> None:
    for day in days_from(DAY, 3):
        table.commit([proposal(day)], now=clock())
    handle = DeltaTable(table.uri)
    handle.optimize.compact()
    handle.vacuum(dry_run=False)
    handle.alter.set_table_properties({"delta.checkpointInterval": "50"})
    handle.create_checkpoint()

    assert table_at(table.uri).head().days.keys() == set(days_from(DAY, 3))
    (done,) = table.commit([proposal(DAY, rows(DAY, 2.0))], now=clock())
    assert done.revision == 2


@pytest.mark.parametrize(
    "meddle",
    [
        lambda uri: write_deltalake(uri, pl.read_delta(uri), mode="append"),
        lambda uri: DeltaTable(uri).delete("household_id = 1"),
        lambda uri: DeltaTable(uri).restore(0),
        lambda uri: DeltaTable.create(
            uri, DeltaTable(uri).schema(), mode="overwrite", partition_by=["day"]
        ),
    ],
)
def test_a_change_by_anything_else_is_refused(
    tmp_path: Path, meddle: Callable[[str], object]
) -> None:
    table = created(tmp_path / "txn_7d")
    table.commit([proposal(DAY)], now=clock())

    meddle(table.uri)

    with pytest.raises(LockstepError, match=r"not written by Lockstep|created with another"):
        table.head()
    with pytest.raises(LockstepError, match=r"not written by Lockstep|created with another"):
        table.commit([proposal(DAY, rows(DAY, 2.0))], now=clock())

    staging = start_rebuild(table)
    staging.commit([proposal(DAY, rows(DAY, 3.0))], now=clock())
    finish_rebuild(table, staging, [DAY], now=clock())
    assert table.read_day(DAY)["sum_amt_7d"].to_list() == [3.0] * 3
    assert table_at(table.uri).head().days[DAY].revision == 2


@pytest.mark.parametrize("lines_kept", [0, 1, 2])
def test_a_last_commit_cut_short_by_a_power_loss_is_noticed(
    table: DayTable, lines_kept: int
) -> None:
    for day in days_from(DAY, 3):
        table.commit([proposal(day)], now=clock())
    last = Path(table.uri, log_file(3))
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:lines_kept]))

    with pytest.raises(StoreError, match=r"Version 3 of the table .* is damaged"):
        table_at(table.uri).head()


def test_a_commit_missing_from_the_log_is_named(table: DayTable) -> None:
    for day in days_from(DAY, 105):
        table.commit([proposal(day)], now=clock())
    Path(table.uri, log_file(50)).unlink()
    (Path(table.uri).parent / "_index" / "txn_7d.json").unlink()

    with pytest.raises(StoreError, match="lacks version 50"):
        table_at(table.uri).head()


def test_a_flipped_bit_is_never_served(table: DayTable) -> None:
    table.commit([proposal(DAY, rows(DAY, 1.5, count=1000))], now=clock())
    (file,) = Path(table.uri, f"day={DAY}").glob("*.parquet")
    good = file.read_bytes()

    for position in range(8, 1500, 37):
        bad = bytearray(good)
        bad[position] ^= 1
        file.write_bytes(bad)
        try:
            frame = table.read_day(DAY)
        except StoreError:
            continue
        assert_frame_equal(frame.drop("known_at", "day"), rows(DAY, 1.5, count=1000))


def test_changed_rows_are_refused_by_their_hash(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())
    (file,) = Path(table.uri, f"day={DAY}").glob("*.parquet")
    changed = rows(DAY, 7.0).with_columns(pl.lit(NOON, INSTANT).alias("known_at"))
    changed.write_parquet(file)

    with pytest.raises(StoreError, match="not those that were certified"):
        table.read_day(DAY)
