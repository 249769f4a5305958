"""Many small files become few: the same rows, whoever else writes, and nothing is deleted."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lockstep.compacting import compact
from lockstep.errors import ConflictError, StoreError
from lockstep.stores import compaction
from lockstep.stores.append_log import AppendLog
from lockstep.stores.compaction import compact_table
from lockstep.stores.delta import DayTable
from lockstep.stores.files import Place, open_place
from lockstep.stores.history import SliceReader
from lockstep.stores.tables import existing_table, table_files
from lockstep.superseded import keep_superseded
from tests.day_tables import COLUMNS, DAY, clock, created, in_threads, proposal, rows
from tests.s3_server import BUCKET, S3, Faults, faulty

LOG = {"view": pl.String(), "number": pl.Int64(), "text": pl.String()}
NAMES = ["a b", "a/b=c", "txn_7d", "é%20%"]


@pytest.fixture(params=["local", "s3"])
def log(request: pytest.FixtureRequest, tmp_path: Path, s3_store: S3) -> AppendLog:
    if request.param == "local":
        return AppendLog(str(tmp_path / "my lake" / "ledger"), LOG)
    return AppendLog(f"s3://{BUCKET}/{tmp_path.name}/ledger", LOG, options=s3_store.options)


def entry(view: str, number: int) -> pl.DataFrame:
    return pl.DataFrame({"view": [view], "number": [number], "text": [None]}, schema=LOG)


def content(log: AppendLog) -> pl.DataFrame:
    again = AppendLog(log.uri, LOG, options=log.place.options)
    return again.scan().collect().sort("view", "number")


def files_of(place: Place, by: str = "view") -> list[str]:
    return [path for _, path, _, _ in table_files(existing_table(place), by)]


def test_many_files_become_one_for_each_view_with_the_same_rows(log: AppendLog) -> None:
    for number in range(3):
        for name in NAMES:
            log.append(entry(name, number))
    log.append(entry("alone", 0))
    before, there = content(log), {info.path for info in log.place.list()}

    assert compact_table(log.place, now=clock()) == (12, 4)

    assert_frame_equal(content(log), before)
    assert len(files_of(log.place)) == 5
    assert there <= {info.path for info in log.place.list()}
    assert compact_table(log.place, now=clock()) == (0, 0)


def test_appends_go_on_after_a_compaction_and_a_checkpoint_agrees(log: AppendLog) -> None:
    for number in range(3):
        log.append(entry("x", number))
    compact_table(log.place, now=clock())

    log.append(entry("x", 3))

    assert content(log)["number"].to_list() == [0, 1, 2, 3]
    assert any(info.path.endswith(".checkpoint.parquet") for info in log.place.list("_delta_log"))
    assert compact_table(log.place, now=clock()) == (2, 1)
    assert content(log)["number"].to_list() == [0, 1, 2, 3]


def test_an_append_that_comes_between_survives(
    log: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        log.append(entry("x", number))
    real = compaction.compacting_commit

    def late(**arguments: Any) -> bytes:
        monkeypatch.setattr(compaction, "compacting_commit", real)
        log.append(entry("x", 3))
        return real(**arguments)

    monkeypatch.setattr(compaction, "compacting_commit", late)

    assert compact_table(log.place, now=clock()) == (4, 1)

    assert content(log)["number"].to_list() == [0, 1, 2, 3]
    named = {f"view=x/{path.rpartition('/')[2]}" for path in files_of(log.place)}
    commits = [info.path for info in log.place.list("_delta_log") if info.path.endswith(".json")]
    ever = b"".join(log.place.read(path) for path in commits).decode()
    data = [info.path for info in log.place.list() if info.path.startswith("view=")]
    assert named <= set(data)
    assert [path for path in data if path.rpartition("/")[2] not in ever] == []


def test_an_append_decided_before_a_compaction_arrives_after_it(
    log: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockstep.stores import tables

    for number in range(3):
        log.append(entry("x", number))
    real = tables.write_deltalake

    def late(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(tables, "write_deltalake", real)
        compact_table(log.place, now=clock())
        real(*args, **kwargs)

    monkeypatch.setattr(tables, "write_deltalake", late)
    log.append(entry("x", 3))

    assert content(log)["number"].to_list() == [0, 1, 2, 3]
    assert len(files_of(log.place)) == 2


def test_appends_and_compactions_at_once_lose_no_row(log: AppendLog) -> None:
    log.append(entry("x", 100))

    def append(at: int) -> None:
        mine = AppendLog(log.uri, LOG, options=log.place.options)
        for number in range(3):
            mine.append(entry("x", 10 * at + number))

    def tidy() -> None:
        for _ in range(3):
            compact_table(log.place, now=clock())

    in_threads([lambda: append(1), tidy, lambda: append(2), tidy])

    assert content(log)["number"].to_list() == [10, 11, 12, 20, 21, 22, 100]


def test_a_compaction_whose_reply_was_lost_is_recognized(s3_store: S3) -> None:
    log = AppendLog(f"s3://{BUCKET}/lost/ledger", LOG, options=s3_store.options)
    for number in range(3):
        log.append(entry("x", number))

    with faulty(s3_store, Faults(lose_replies=1)) as proxied:
        assert compact_table(open_place(log.uri, proxied.options), now=clock()) == (3, 1)

    assert content(log)["number"].to_list() == [0, 1, 2]
    assert existing_table(log.place).version() == 4


def test_a_damaged_file_is_not_put_together(tmp_path: Path) -> None:
    log = AppendLog(str(tmp_path / "ledger"), LOG)
    for number in range(2):
        log.append(entry("x", number))
    (first, _) = files_of(log.place)
    log.place.write(first, b"")

    with pytest.raises(StoreError, match="is damaged"):
        compact_table(log.place, now=clock())

    assert existing_table(log.place).version() == 2


def test_who_never_wins_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(str(tmp_path / "ledger"), LOG)
    for number in range(2):
        log.append(entry("x", number))
    real, more = compaction.compacting_commit, iter(range(2, 1000))

    def late(**arguments: Any) -> bytes:
        log.append(entry("x", next(more)))
        return real(**arguments)

    monkeypatch.setattr(compaction, "compacting_commit", late)
    monkeypatch.setattr(compaction, "LOST_RACES", 3)

    with pytest.raises(ConflictError, match="Run it again"):
        compact_table(log.place, now=clock())

    data = {info.path for info in log.place.list() if info.path.startswith("view=")}
    assert data == set(files_of(log.place))


def restated(
    uri: str, options: dict[str, str] | None = None
) -> tuple[DayTable, list[pl.DataFrame]]:
    table = created(uri, options=options)
    frames = [rows(DAY, float(n), count=n + 2).reverse() for n in range(1, 5)]
    for frame in frames:
        table.commit([proposal(DAY, frame)], now=clock())
        keep_superseded(table)
    return table, frames


@pytest.mark.parametrize("where", ["local", "s3"])
def test_superseded_rows_are_read_as_before(tmp_path: Path, s3_store: S3, where: str) -> None:
    root = str(tmp_path / "my lake") if where == "local" else f"s3://{BUCKET}/{tmp_path.name}"
    options = None if where == "local" else s3_store.options
    table, frames = restated(f"{root}/offline/txn_7d", options)
    lake = open_place(root, options)

    (dry,) = compact(lake, now=clock(), dry_run=True)
    (done,) = compact(lake, now=clock())

    assert dry == done
    assert (done.place, done.before, done.after) == (
        f"superseded/txn_7d/{table.head().table_id}",
        3,
        1,
    )
    current = set(SliceReader(table)._files.values())
    for info in table.place.list():
        if info.path.startswith("day=") and info.path not in current:
            table.place.delete(info.path)
    for number, frame in enumerate(frames, start=1):
        found = SliceReader(table).rows(DAY, number, list(COLUMNS))
        assert_frame_equal(found, frame)
    assert keep_superseded(table).copied == []
    table.commit([proposal(DAY, rows(DAY, 9.0))], now=clock())
    assert len(keep_superseded(table).copied) == 1
    assert_frame_equal(SliceReader(table).rows(DAY, 2, list(COLUMNS)), frames[1])


def test_a_view_is_left_alone(tmp_path: Path) -> None:
    table, _ = restated(str(tmp_path / "offline" / "txn_7d"))
    version = table.head().version

    compact(open_place(str(tmp_path)), now=clock())

    assert table.head().version == version


def test_the_log_says_that_no_data_changed(tmp_path: Path) -> None:
    log = AppendLog(str(tmp_path / "ledger"), LOG)
    for number in range(2):
        log.append(entry("x", number))

    compact_table(log.place, now=clock())

    lines = log.place.read("_delta_log/00000000000000000003.json").splitlines()
    actions = [json.loads(line) for line in lines]
    assert actions[0]["commitInfo"]["operation"] == "OPTIMIZE"
    changes = [a[k]["dataChange"] for a in actions for k in ("add", "remove") if k in a]
    assert changes == [False] * 3
    assert pl.scan_delta(log.uri).collect().height == 2
