"""The offline store: audited days become revisions, locally and on S3 alike."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lockstep.errors import NotCertifiedError, StoreError
from lockstep.stores.delta import Committed, DayTable
from tests.day_tables import DAY, INSTANT, NOON, clock, created, days_from, proposal, rows, table_at
from tests.s3_server import BUCKET, S3


def test_a_committed_day_is_read_back_with_known_at_and_day(anywhere: DayTable) -> None:
    (done,) = anywhere.commit([proposal(DAY)], now=clock())

    assert done == Committed(DAY, 1, 1, NOON, changed=True)
    assert_frame_equal(
        anywhere.read_day(DAY),
        rows(DAY).with_columns(
            pl.lit(NOON, INSTANT).alias("known_at"), pl.lit(DAY, pl.Date).alias("day")
        ),
    )


def test_a_chunk_is_one_commit_and_each_day_has_its_own_revision(anywhere: DayTable) -> None:
    first, second, third = days_from(DAY, 3)
    anywhere.commit([proposal(second)], now=clock())

    done = anywhere.commit(
        [proposal(day, rows(day, 2.0)) for day in (third, first, second)], now=clock()
    )

    assert [(item.day, item.revision, item.version) for item in done] == [
        (third, 1, 2),
        (first, 1, 2),
        (second, 2, 2),
    ]
    assert anywhere.scan().collect()["sum_amt_7d"].to_list() == [2.0] * 9


def test_equal_content_makes_no_version_and_keeps_known_at(anywhere: DayTable) -> None:
    anywhere.commit([proposal(DAY, run_id="first")], now=clock())

    (again,) = anywhere.commit([proposal(DAY, run_id="second")], now=clock(NOON.replace(hour=13)))

    assert again == Committed(DAY, 1, 1, NOON, changed=False)
    assert anywhere.head().version == 1
    assert anywhere.head().days[DAY].note == {"run_id": "first"}


def test_only_the_changed_days_of_a_chunk_are_written(table: DayTable) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first), proposal(second)], now=clock())

    done = table.commit([proposal(first), proposal(second, rows(second, 2.0))], now=clock())

    assert [(item.revision, item.version, item.changed) for item in done] == [
        (1, 1, False),
        (2, 2, True),
    ]
    assert table.head().days[first].version == 1


def test_going_back_to_old_content_is_a_new_revision(table: DayTable) -> None:
    for amount in (1.0, 2.0, 1.0):
        (done,) = table.commit([proposal(DAY, rows(DAY, amount))], now=clock())

    assert (done.revision, done.version) == (3, 3)


def test_a_day_without_rows_is_committed_and_listed(anywhere: DayTable) -> None:
    built, empty, unbuilt = days_from(DAY, 3)

    done = anywhere.commit([proposal(built), proposal(empty, rows(empty).clear())], now=clock())

    assert [item.revision for item in done] == [1, 1]
    assert {day: record.rows for day, record in anywhere.head().days.items()} == {
        built: 3,
        empty: 0,
    }
    assert anywhere.read_day(empty).is_empty()
    assert anywhere.read_day(empty).schema == anywhere.schema
    with pytest.raises(NotCertifiedError, match=str(unbuilt)):
        anywhere.read_day(unbuilt)


def test_a_day_that_lost_its_rows_is_emptied(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())

    (done,) = table.commit([proposal(DAY, rows(DAY).clear())], now=clock())

    assert (done.revision, done.changed) == (2, True)
    assert table.scan().collect().is_empty()


def test_a_chunk_never_touches_a_day_that_is_not_in_it(table: DayTable) -> None:
    before, failed, after = days_from(DAY, 3)
    table.commit([proposal(failed)], now=clock())

    table.commit([proposal(before), proposal(after)], now=clock())

    assert_frame_equal(table.read_day(failed).drop("known_at", "day"), rows(failed))
    assert table.head().days[failed].version == 1


def test_rows_keep_the_order_in_which_they_were_committed(table: DayTable) -> None:
    keys = pl.Series("household_id", range(300_000), pl.Int64).shuffle(seed=7)
    for amount in (1.0, 2.0):
        frame = rows(DAY, amount, 300_000).with_columns(keys)
        table.commit([proposal(DAY, frame), proposal(DAY + timedelta(days=1))], now=clock())

    assert table.read_day(DAY)["household_id"].equals(keys)
    assert len([uri for uri in DeltaTable(table.uri).file_uris() if f"day={DAY}/" in uri]) == 1


def test_days_come_in_order_whatever_the_order_of_their_commits(table: DayTable) -> None:
    first, second, third = days_from(DAY, 3)
    for day in (second, third, first):
        table.commit([proposal(day)], now=clock())

    assert table.scan().collect()["day"].unique(maintain_order=True).to_list() == [
        first,
        second,
        third,
    ]
    assert table.scan([third, first]).collect()["day"].unique(maintain_order=True).to_list() == [
        first,
        third,
    ]


def test_what_was_noted_comes_back(table: DayTable) -> None:
    note = {
        "run_id": "r",
        "inputs": {"t": {"2026-11-01": 3}},
        "verdicts": [True, None, 1.5, "é\n"],
    }

    table.commit([proposal(DAY, **note)], now=clock())

    assert table.head().days[DAY].note == note


def test_a_clock_that_was_set_back_does_not_reorder_revisions(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())

    (done,) = table.commit([proposal(DAY, rows(DAY, 2.0))], now=clock(NOON - timedelta(hours=1)))

    assert done.known_at == NOON + timedelta(microseconds=1)


def test_known_at_is_utc_and_exact_to_the_microsecond(table: DayTable) -> None:
    exact = NOON + timedelta(microseconds=123_457)

    (done,) = table.commit([proposal(DAY)], now=lambda: exact)

    assert done.known_at == exact
    assert table_at(table.uri).head().days[DAY].known_at == exact
    assert table.read_day(DAY)["known_at"].to_list() == [exact] * 3


def test_an_older_version_can_be_read(anywhere: DayTable) -> None:
    anywhere.commit([proposal(DAY)], now=clock())
    anywhere.commit([proposal(DAY, rows(DAY, 2.0))], now=clock())

    assert anywhere.scan([DAY], version=1).collect()["sum_amt_7d"].to_list() == [1.0] * 3
    assert anywhere.scan(version=0).collect().is_empty()
    with pytest.raises(StoreError, match="could not be read"):
        anywhere.scan(version=99)


def test_no_proposals_are_no_commit(table: DayTable) -> None:
    assert table.commit([], now=clock()) == []
    assert table.head().version == 0


def test_only_the_files_of_the_asked_days_are_read(table: DayTable) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first), proposal(second)], now=clock())
    for file in Path(table.uri, f"day={second}").glob("*.parquet"):
        file.unlink()

    assert table.scan([first]).collect().height == 3


def test_a_folder_that_looks_like_a_partition_does_not_confuse_the_scan(tmp_path: Path) -> None:
    table = created(tmp_path / "env=prod day=1999-01-01" / "txn_7d")

    table.commit([proposal(DAY)], now=clock())

    assert table.read_day(DAY)["day"].to_list() == [DAY] * 3
    assert table.scan().collect().schema == table.schema


def test_plain_scan_delta_reads_the_documented_path(tmp_path: Path, s3_store: S3) -> None:
    for uri, options in (
        (str(tmp_path / "txn_7d"), None),
        (f"s3://{BUCKET}/plain/txn_7d", s3_store.options),
    ):
        table = created(uri, options=options)
        table.commit([proposal(DAY)], now=clock())

        plain = pl.scan_delta(uri, storage_options=options).collect()

        assert_frame_equal(plain, table.scan().collect())


def test_the_log_is_kept_for_ever(table: DayTable) -> None:
    configuration = DeltaTable(table.uri).metadata().configuration

    assert configuration["delta.enableExpiredLogCleanup"] == "false"
    assert json.loads(configuration["lockstep.contract"]) == {"count": "Int64"}
    assert configuration["lockstep.zone"] == "America/New_York"
