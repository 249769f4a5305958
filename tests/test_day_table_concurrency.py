"""Many writers of one table, and stores whose answers are lost."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lockstep.errors import ConflictError, StoreError
from lockstep.stores import delta
from lockstep.stores.delta import Committed, DayTable
from tests.day_tables import (
    DAY,
    NOON,
    clock,
    created,
    days_from,
    in_threads,
    interfere,
    proposal,
    rows,
    table_at,
)
from tests.s3_server import BUCKET, S3, Faults, faulty


def commit_alone(uri: str, day: date, amount: float, start: str) -> tuple[int, int, bool]:
    """Run in a process of its own: commit one day once `start` exists."""
    table, mine = table_at(uri), proposal(day, rows(day, amount))
    while not Path(start).exists():
        pass
    (done,) = table.commit([mine], now=clock())
    return done.revision, done.version, done.changed


def in_processes(
    calls: Sequence[tuple[date, float]], uri: str, start: Path
) -> list[tuple[int, int, bool]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(calls), mp_context=context) as pool:
        waiting = [pool.submit(commit_alone, uri, *call, str(start)) for call in calls]
        start.touch()
        return [future.result() for future in waiting]


def test_processes_with_the_same_data_make_one_revision(table: DayTable, tmp_path: Path) -> None:
    done = in_processes([(DAY, 1.0)] * 3, table.uri, tmp_path / "go")

    assert {(revision, version) for revision, version, _ in done} == {(1, 1)}
    assert sum(changed for _, _, changed in done) == 1


def test_processes_with_different_data_make_revisions_one_after_the_other(
    table: DayTable, tmp_path: Path
) -> None:
    amounts = [1.0, 2.0, 3.0]

    done = in_processes([(DAY, amount) for amount in amounts], table.uri, tmp_path / "go")

    assert sorted(revision for revision, _, _ in done) == [1, 2, 3]
    assert all(changed for _, _, changed in done)
    for amount, (_, version, _) in zip(amounts, done, strict=True):
        found = table.scan([DAY], version=version).collect()["sum_amt_7d"].to_list()
        assert found == [amount] * 3


def test_processes_with_different_days_never_lose_a_write(table: DayTable, tmp_path: Path) -> None:
    days = days_from(DAY, 4)

    done = in_processes([(day, 1.0) for day in days], table.uri, tmp_path / "go")

    assert [revision for revision, _, _ in done] == [1] * 4
    assert sorted(version for _, version, _ in done) == [1, 2, 3, 4]
    assert list(table.scan().collect()["day"].unique().sort()) == days
    assert {day: record.version for day, record in table.head().days.items()} == {
        day: version for day, (_, version, _) in zip(days, done, strict=True)
    }


def test_overlapping_chunks_end_as_if_one_came_after_the_other(anywhere: DayTable) -> None:
    days = days_from(DAY, 6)
    writers = [
        lambda amount=amount, mine=mine: table_at(
            anywhere.uri, options=anywhere.place.options
        ).commit([proposal(day, rows(day, amount)) for day in mine], now=clock())
        for amount, mine in ((1.0, days[:4]), (2.0, days[2:]), (3.0, days[1:5]))
    ]

    done = in_threads(writers)

    head = anywhere.head()
    written = {day: sum(day in [item.day for item in one] for one in done) for day in days}
    assert {day: head.days[day].revision for day in days} == written
    for one, amount in zip(done, (1.0, 2.0, 3.0), strict=True):
        for item in one:
            found = anywhere.scan([item.day], version=item.version).collect()
            assert found["sum_amt_7d"].to_list() == [amount] * 3
    for day in days:
        assert anywhere.read_day(day)["sum_amt_7d"].n_unique() == 1


def test_creating_at_the_same_time_makes_one_table(tmp_path: Path) -> None:
    for number in range(5):
        uri = tmp_path / str(number) / "txn_7d"

        in_threads([table_at(uri).create] * 4)

        assert table_at(uri).head().days == {}


def test_a_chunk_and_another_writers_day_elsewhere_both_land(table: DayTable) -> None:
    days = days_from(DAY, 5)
    chunk = [proposal(day) for day in days if day != days[2]]

    in_threads(
        [
            lambda: table_at(table.uri).commit(chunk, now=clock()),
            lambda: table_at(table.uri).commit([proposal(days[2])], now=clock()),
        ]
    )

    assert set(table.head().days) == set(days)
    assert table.scan().collect().height == 15


def test_somebody_committing_the_same_content_first_is_found(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfere(monkeypatch, lambda _: table_at(table.uri).commit([proposal(DAY)], now=clock()))

    (done,) = table.commit([proposal(DAY)], now=clock(NOON.replace(hour=18)))

    assert done == Committed(DAY, 1, 1, NOON, changed=False)
    assert table.head().version == 1


def test_somebody_committing_other_content_first_is_superseded(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = proposal(DAY, rows(DAY, 2.0))
    interfere(monkeypatch, lambda _: table_at(table.uri).commit([other], now=clock()))

    (done,) = table.commit([proposal(DAY)], now=clock())

    assert (done.revision, done.version, done.changed) == (2, 2, True)
    assert table.head().days[DAY].revision == 2


def test_a_chunk_that_lost_for_one_day_commits_each_day_alone(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = days_from(DAY, 3)
    same = proposal(second)
    interfere(monkeypatch, lambda _: table_at(table.uri).commit([same], now=clock()))

    done = table.commit([proposal(first), same, proposal(third)], now=clock())

    assert [(item.version, item.changed) for item in done] == [(2, True), (1, False), (3, True)]


def test_losing_for_ever_ends_in_an_error_that_names_the_days(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = days_from(DAY, 2)

    def other(count: int) -> None:
        table_at(table.uri).commit([proposal(second, rows(second, count + 10.0))], now=clock())

    interfere(monkeypatch, other)

    with pytest.raises(ConflictError, match=rf"Certified: {first}\. Not written: {second}"):
        table.commit([proposal(first), proposal(second)], now=clock())

    assert table.head().days[first].revision == 1


def test_a_day_that_may_replace_one_revision_replaces_no_other(table: DayTable) -> None:
    first, other = proposal(DAY), proposal(DAY, rows(DAY, 2.0))

    table.commit([replace(first, onto=0)], now=clock())
    with pytest.raises(ConflictError, match="Expected revision 0, got revision 1"):
        table.commit([replace(other, onto=0)], now=clock())
    with pytest.raises(ConflictError, match="Expected revision 2, got revision 1"):
        table.commit([replace(other, onto=2)], now=clock())
    (same,) = table.commit([replace(first, onto=0)], now=clock())
    (done,) = table.commit([replace(other, onto=1)], now=clock())

    assert (1, False, 2, True) == (same.revision, same.changed, done.revision, done.changed)


def test_each_attempt_looks_again_at_what_a_day_may_replace(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = days_from(DAY, 2)
    others = {0: first, 2: second}  # the chunk loses for the first day, then the second day loses

    def other(count: int) -> None:
        if count in others:
            day = others[count]
            table_at(table.uri).commit([proposal(day, rows(day, 2.0))], now=clock())

    interfere(monkeypatch, other)

    with pytest.raises(
        ConflictError, match=rf"of txn_7d.*Certified: {first}\. Not written: {second}"
    ):
        table.commit([proposal(first), replace(proposal(second), onto=0)], now=clock())

    head = table.head().days
    assert (2, 1) == (head[first].revision, head[second].revision)
    assert [2.0] * 3 == table.read_day(second)["sum_amt_7d"].to_list()


@pytest.mark.parametrize("lost", [1, 3])
def test_a_commit_whose_reply_was_lost_is_recognized(s3_store: S3, lost: int) -> None:
    uri = f"s3://{BUCKET}/lost-{lost}/txn_7d"
    honest = created(uri, options=s3_store.options)
    faults = Faults(lose_replies=lost)

    with faulty(s3_store, faults) as proxied:
        done = table_at(uri, options=proxied.options).commit(
            [proposal(day) for day in days_from(DAY, 2)], now=clock()
        )

    assert faults.lose_replies < lost
    assert [(item.revision, item.version, item.changed) for item in done] == [(1, 1, True)] * 2
    assert honest.head().version == 1
    assert honest.scan().collect().height == 6


def test_a_commit_that_arrived_and_was_superseded_is_still_ours(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = delta.write_deltalake

    def arrives_but_fails(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(delta, "write_deltalake", real)
        real(*args, **kwargs)
        table_at(table.uri).commit([proposal(DAY, rows(DAY, 2.0))], now=clock())
        raise OSError("connection reset by peer")

    monkeypatch.setattr(delta, "write_deltalake", arrives_but_fails)

    (done,) = table.commit([proposal(DAY)], now=clock())

    assert (done.revision, done.version, done.changed) == (1, 1, True)
    assert table.head().days[DAY].revision == 2


def test_a_store_that_fails_is_reported_with_what_is_certified(
    table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delta, "write_deltalake", fails)

    with pytest.raises(StoreError, match=r"No space left.*Certified: no day\. Not written: 2026"):
        table.commit([proposal(DAY)], now=clock())


def test_an_unreachable_store_is_a_store_error_without_credentials() -> None:
    options = S3("http://127.0.0.1:9").options | {
        "AWS_SECRET_ACCESS_KEY": "canary",
        "max_retries": "0",
        "connect_timeout": "1s",
    }

    with pytest.raises(StoreError, match="could not be read or written") as raised:
        table_at(f"s3://{BUCKET}/x/txn_7d", options=options).head()

    assert "canary" not in str(raised.value)
