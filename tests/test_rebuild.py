"""A rebuild: the old table or the new one, never a mixture, whatever happens."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lockstep.errors import ContractChangedError, NotCertifiedError
from lockstep.stores import files, rebuild
from lockstep.stores.delta import DayTable
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from tests.day_tables import (
    DAY,
    INSTANT,
    NEW,
    NOON,
    at,
    clock,
    created,
    days_from,
    interfere,
    new_rows,
    proposal,
    rows,
    table_at,
)
from tests.s3_server import BUCKET, S3, Faults, faulty


def test_the_rebuilt_table_is_at_the_same_path_with_a_new_id(anywhere: DayTable) -> None:
    days = days_from(DAY, 3)
    anywhere.commit([proposal(day) for day in days], now=clock())
    old = anywhere.head()
    new = at(anywhere, **NEW)

    staging = start_rebuild(new)
    staging.commit([proposal(day, new_rows(day)) for day in days[:2]], now=clock())
    staging.commit([proposal(days[2], new_rows(days[2]).clear())], now=clock())
    untouched = anywhere.head()
    done = finish_rebuild(new, staging, days, now=clock(NOON.replace(hour=20)))

    head = new.head()
    assert untouched == old
    assert [(item.day, item.revision, item.version) for item in done] == [
        (day, 2, old.version + 1) for day in days
    ]
    assert head.table_id != old.table_id
    assert head.version == old.version + 1
    assert {day: record.rows for day, record in head.days.items()} == dict(
        zip(days, [3, 3, 0], strict=True)
    )
    for day in days[:2]:
        expected = new_rows(day).with_columns(
            pl.lit(NOON.replace(hour=20), INSTANT).alias("known_at"), pl.lit(day).alias("day")
        )
        assert_frame_equal(new.read_day(day), expected)
    assert at(anywhere, **NEW).head() == head


def test_old_versions_stay_readable(anywhere: DayTable) -> None:
    anywhere.commit([proposal(DAY)], now=clock())
    before = anywhere.scan().collect()
    new = at(anywhere, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())

    finish_rebuild(new, staging, [DAY], now=clock())

    assert_frame_equal(new.scan(version=1).collect(), before)


def test_plain_scan_delta_reads_the_rebuilt_table(tmp_path: Path) -> None:
    table = created(tmp_path / "txn_7d")
    table.commit([proposal(DAY)], now=clock())
    new = at(table, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())

    finish_rebuild(new, staging, [DAY], now=clock())

    plain = pl.scan_delta(table.uri).collect()
    assert_frame_equal(plain, new.scan().collect())
    assert plain.height == 3


def test_the_rebuilt_table_goes_on_as_any_other(anywhere: DayTable) -> None:
    first, second = days_from(DAY, 2)
    anywhere.commit([proposal(first)], now=clock())
    new = at(anywhere, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(first, new_rows(first))], now=clock())
    finish_rebuild(new, staging, [first], now=clock())

    done = new.commit(
        [proposal(first, new_rows(first, 6.0)), proposal(second, new_rows(second))], now=clock()
    )

    assert [item.revision for item in done] == [3, 1]
    assert new.scan().collect().height == 6
    with pytest.raises(ContractChangedError, match="count removed"):
        anywhere.commit([proposal(first)], now=clock())


def test_many_commits_later_a_checkpoint_agrees(table: DayTable) -> None:
    table.commit([proposal(DAY)], now=clock())
    new = at(table, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())
    finish_rebuild(new, staging, [DAY], now=clock())

    for number in range(102):
        new.commit([proposal(DAY, new_rows(DAY, float(number)))], now=clock())

    assert list(Path(table.uri, "_delta_log").glob("*.checkpoint*.parquet"))
    assert at(table, **NEW).head().days[DAY].revision == 104
    assert new.scan().collect()["sum_amt_7d"].to_list() == [101.0] * 3


def test_a_day_with_the_same_content_keeps_revision_and_known_at(table: DayTable) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first), proposal(second)], now=clock())
    new = at(table, zone="Europe/Berlin")
    staging = start_rebuild(new)
    staging.commit([proposal(first), proposal(second, rows(second, 2.0))], now=clock())

    done = finish_rebuild(new, staging, [first, second], now=clock(NOON.replace(hour=20)))

    assert [(item.revision, item.known_at.hour, item.changed) for item in done] == [
        (1, 12, False),
        (2, 20, True),
    ]
    assert new.read_day(first)["known_at"].to_list() == [NOON] * 3


def test_a_certified_day_is_not_lost_unasked(table: DayTable) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first), proposal(second)], now=clock())
    new = at(table, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(second, new_rows(second))], now=clock())

    with pytest.raises(NotCertifiedError, match=f"would lose {first}"):
        finish_rebuild(new, staging, [second], now=clock())
    with pytest.raises(NotCertifiedError, match=f"lacks {first}"):
        finish_rebuild(new, staging, [first, second], now=clock())
    assert table.head().version == 1
    finish_rebuild(new, staging, [second], now=clock(), dropping=[first])

    assert list(new.head().days) == [second]
    (back,) = new.commit([proposal(first, new_rows(first))], now=clock())
    assert back.revision == 2


def test_an_interrupted_rebuild_goes_on_where_it_stopped(table: DayTable) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first), proposal(second)], now=clock())
    start_rebuild(at(table, **NEW)).commit([proposal(first, new_rows(first))], now=clock())

    staging = start_rebuild(at(table, **NEW))
    done = staging.commit([proposal(day, new_rows(day)) for day in (first, second)], now=clock())

    assert [item.changed for item in done] == [False, True]


def test_what_a_rebuild_of_another_contract_left_is_deleted(anywhere: DayTable) -> None:
    anywhere.commit([proposal(DAY)], now=clock())
    old = start_rebuild(at(anywhere, **NEW))
    old.commit([proposal(DAY, new_rows(DAY))], now=clock())

    staging = start_rebuild(at(anywhere, contract="{}"))

    assert staging.head().days == {}
    assert not old.exists()


def test_a_finished_rebuild_leaves_nothing_beside_the_table(anywhere: DayTable) -> None:
    anywhere.commit([proposal(DAY)], now=clock())
    new = at(anywhere, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())

    finish_rebuild(new, staging, [DAY], now=clock())

    assert new.around.list("_rebuild") == []


def test_a_crash_at_any_step_leaves_the_old_table_or_the_new(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = days_from(DAY, 3)
    table.commit([proposal(day) for day in days], now=clock())
    old_rows = table.scan().collect()
    outcomes = []

    for step in range(12):
        new = at(table, **NEW)
        staging = start_rebuild(new)
        staging.commit([proposal(day, new_rows(day)) for day in days], now=clock())
        crash_in_place(monkeypatch, step)
        try:
            finish_rebuild(new, staging, days, now=clock())
        except KilledError:
            swapped = new.head().version > 1
            outcomes.append("new" if swapped else "old")
            if not swapped:
                assert_frame_equal(table.scan().collect(), old_rows)
                continue
        else:
            outcomes.append("done")
        finally:
            monkeypatch.undo()
        break

    assert outcomes[:4] == ["old"] * 4
    assert outcomes[-1] in {"new", "done"}
    assert new.scan().collect()["count"].to_list() == [1] * 9
    assert [new.read_day(day).height for day in days] == [3, 3, 3]


def test_a_commit_that_comes_between_is_not_lost(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = days_from(DAY, 2)
    table.commit([proposal(first)], now=clock())
    new = at(table, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(first, new_rows(first))], now=clock())
    real = rebuild.replacing_commit

    def late(**arguments: Any) -> bytes:
        monkeypatch.setattr(rebuild, "replacing_commit", real)
        table.commit([proposal(second)], now=clock())
        return real(**arguments)

    monkeypatch.setattr(rebuild, "replacing_commit", late)

    with pytest.raises(NotCertifiedError, match=f"would lose {second}"):
        finish_rebuild(new, staging, [first], now=clock())

    assert table.head().days.keys() == {first, second}
    staging.commit([proposal(second, new_rows(second))], now=clock())
    done = finish_rebuild(new, staging, [first, second], now=clock())
    assert [item.version for item in done] == [3, 3]


def test_a_writer_of_the_old_contract_cannot_commit_over_the_swap(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.commit([proposal(DAY)], now=clock())
    new = at(table, **NEW)
    staging = start_rebuild(new)
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())
    interfere(monkeypatch, lambda _: finish_rebuild(new, staging, [DAY], now=clock()))

    with pytest.raises(ContractChangedError):
        table.commit([proposal(DAY + timedelta(days=1))], now=clock())

    assert list(new.head().days) == [DAY]
    assert new.scan().collect().height == 3


def test_a_swap_whose_reply_was_lost_is_recognized(s3_store: S3) -> None:
    table = created(f"s3://{BUCKET}/swap-lost/txn_7d", options=s3_store.options)
    table.commit([proposal(DAY)], now=clock())
    faults = Faults()
    with faulty(s3_store, faults) as proxied:
        new = table_at(table.uri, options=proxied.options, **NEW)
        staging = start_rebuild(new)
        staging.commit([proposal(DAY, new_rows(DAY))], now=clock())
        faults.lose_replies = 1
        (done,) = finish_rebuild(new, staging, [DAY], now=clock())

    assert faults.lose_replies == 0
    assert (done.revision, done.version) == (2, 2)
    assert table_at(table.uri, options=s3_store.options, **NEW).head().version == 2


class KilledError(Exception):
    """Stands for the end of the process: nothing after it ran."""


def crash_in_place(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die before the nth file operation of the local store."""
    steps = iter(range(1000))

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise KilledError
            return real(*args, **kwargs)

        return call

    for name in ("write", "write_if_absent", "delete"):
        monkeypatch.setattr(files._LocalPlace, name, counted(getattr(files._LocalPlace, name)))
