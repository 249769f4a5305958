"""Garbage collection: what is pinned, current, young or not yet copied stays; all else goes."""

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from lockstep import garbage
from lockstep.cli import app
from lockstep.compacting import compact
from lockstep.errors import InputError
from lockstep.garbage import Collected, collect_garbage
from lockstep.project import find_project
from lockstep.store import Store
from lockstep.stores.append_log import AppendLog
from lockstep.stores.delta import DayTable
from lockstep.stores.file_log import read_file_log
from lockstep.stores.files import Place, open_place
from lockstep.stores.history import SliceReader
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from lockstep.superseded import keep_superseded
from tests.day_tables import (
    COLUMNS,
    DAY,
    NEW,
    at,
    clock,
    created,
    days_from,
    new_rows,
    proposal,
    rows,
)
from tests.pinned_sets import instant_ns, later, manifest_of, pin
from tests.s3_server import BUCKET, S3

WEEK = timedelta(days=7)
LOG = {"view": pl.String(), "number": pl.Int64()}


@pytest.fixture
def root(tmp_path: Path) -> Place:
    return open_place(str(tmp_path / "my lake"))


@pytest.fixture
def table(root: Place) -> DayTable:
    return created(root.path("offline/txn_7d"))


def restate(table: DayTable, amount: float) -> None:
    table.commit([proposal(DAY, rows(DAY, amount))], now=clock())


def data_of(place: Place) -> set[str]:
    """Every data file of a table."""
    files = [info.path for info in place.list() if not info.path.startswith("_delta_log/")]
    return {path for path in files if ".parquet" in path}


def file_log(place: Place) -> Any:
    return read_file_log(place, place.list())


def collect(root: Place, now: datetime | None = None, **more: Any) -> dict[str, Collected]:
    found = collect_garbage(root, now=now or later(root), **{"keep": WEEK, **more})
    return {item.place: item for item in found}


def every_file(root: Place) -> dict[str, bytes]:
    return {info.path: root.read(info.path) for info in root.list()}


def test_a_lake_without_garbage_is_left_alone(root: Place, table: DayTable) -> None:
    table.commit([proposal(day) for day in days_from(DAY, 3)], now=clock())
    before = every_file(root)

    assert collect(root) == {}
    assert every_file(root) == before


def test_an_empty_lake_is_fine(tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "nothing"))

    assert collect_garbage(place, now=datetime.fromisoformat("2026-11-22T00:00Z"), keep=WEEK) == []


def test_what_was_replaced_goes_and_its_rows_stay(root: Place, table: DayTable) -> None:
    for number in range(1, 4):
        restate(table, float(number))
    log = every_file(root.join("offline/txn_7d/_delta_log"))

    found = collect(root)["offline/txn_7d"]

    assert (len(found.files), found.bytes > 0, found.refused) == (2, True, None)
    assert found.copied == (f"{DAY} revision 1", f"{DAY} revision 2")
    assert data_of(table.place) == set(SliceReader(table)._files.values())
    assert_frame_equal(table.read_day(DAY).select(list(COLUMNS)), rows(DAY, 3.0))
    for number in (1, 2, 3):
        kept = SliceReader(table).rows(DAY, number, list(COLUMNS))
        assert_frame_equal(kept, rows(DAY, float(number)))
    assert every_file(root.join("offline/txn_7d/_delta_log")) == log
    assert collect(root) == {}


def test_every_version_that_was_the_newest_within_the_kept_days_stays_whole(
    root: Place, table: DayTable
) -> None:
    for number in range(1, 5):
        restate(table, float(number))
    second = file_log(table.place).commits[2].modified_ns
    cutoff = instant_ns(second + 2000)

    found = collect(root, now=cutoff + WEEK)["offline/txn_7d"]

    assert len(found.files) == 1
    for version in (2, 3, 4):
        assert table.scan(version=version).collect()["sum_amt_7d"].to_list() == [version] * 3
    with pytest.raises(FileNotFoundError):
        table.scan(version=1).collect()


def test_nothing_goes_while_it_is_young(root: Place, table: DayTable) -> None:
    restate(table, 1.0)
    restate(table, 2.0)

    assert collect(root, now=later(root, timedelta(days=6)))["offline/txn_7d"].files == ()
    assert table.scan(version=1).collect()["sum_amt_7d"].to_list() == [1.0] * 3


def test_every_file_of_a_pinned_version_stays(root: Place, table: DayTable) -> None:
    table.commit([proposal(day) for day in days_from(DAY, 3)], now=clock())
    pin(root, "churn", table)
    pinned = table.scan(version=1).collect()
    for number in range(2, 5):
        restate(table, float(number))

    collect(root)

    assert_frame_equal(table.scan(version=1).collect(), pinned)
    assert len(data_of(table.place)) == 4
    root.delete("training_sets/churn/manifest.json")
    assert len(collect(root)["offline/txn_7d"].files) == 1


def test_a_collection_that_ignores_pins_is_found_out(
    root: Place, table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "pinned_versions", lambda _: {})

    with pytest.raises((AssertionError, FileNotFoundError)):
        test_every_file_of_a_pinned_version_stays(root, table)


def test_a_file_whose_rows_cannot_be_copied_stays(
    root: Place, table: DayTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    restate(table, 1.0)
    (path,) = data_of(table.place)
    restate(table, 2.0)
    table.place.write(path, b"PAR1 torn")

    (found,) = collect(root).values()

    assert "not those that were certified" in (found.refused or "")
    assert path in data_of(table.place)


def test_rows_that_were_lost_before_are_named(root: Place, table: DayTable) -> None:
    restate(table, 1.0)
    (path,) = data_of(table.place)
    restate(table, 2.0)
    table.place.delete(path)

    assert collect(root)["offline/txn_7d"].lost == (f"{DAY} revision 1",)


def test_what_an_interrupted_commit_left_goes_once_it_is_old(root: Place, table: DayTable) -> None:
    restate(table, 1.0)
    left = {"day=2026-11-01/part-x.parquet", "day=2026-11-02/part-y.parquet#1"}
    for path in left:
        table.place.write(path, b"half")
    root.write("offline/txn_7d/notes.txt", b"not ours")
    temporary = Path(table.uri, "_delta_log", ".lockstep-tmp-1")
    temporary.write_bytes(b"half")

    hours = collect(root, now=later(root, timedelta(hours=23)), keep=timedelta(0))
    assert hours == {}
    days = collect(root, now=later(root, timedelta(hours=25)), keep=timedelta(0))

    assert set(days["offline/txn_7d"].files) == left
    assert days["offline/txn_7d/_delta_log"].files == (".lockstep-tmp-1",)
    assert not temporary.exists()
    assert root.exists("offline/txn_7d/notes.txt")
    assert table.read_day(DAY).height == 3


def test_what_an_interrupted_rebuild_or_training_set_left_goes_once_it_is_old(
    root: Place, table: DayTable
) -> None:
    restate(table, 1.0)
    staging = start_rebuild(at(table, **NEW))
    staging.commit([proposal(DAY, new_rows(DAY))], now=clock())
    root.write("training_sets/.work-1/plan.json", b"{}")
    root.write("training_sets/.work-1/spine/0.parquet", b"rows")
    root.write("training_sets/churn/notes.json", b"{}")

    assert collect(root, now=later(root, timedelta(hours=23)), keep=timedelta(0)) == {}
    dry = collect(root, now=later(root, timedelta(days=8)), dry_run=True)
    assert root.exists("training_sets/.work-1/plan.json")
    done = collect(root, now=later(root, timedelta(days=8)))

    assert dry == done
    assert set(done["training_sets/.work-1"].files) == {"plan.json", "spine/0.parquet"}
    assert done.keys() == {"training_sets/.work-1", staging.uri.removeprefix(f"{root.uri}/")}
    assert root.list("offline/_rebuild") == []
    assert [info.path for info in root.list("training_sets")] == ["training_sets/churn/notes.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"views": {}}', b"[]"])
def test_a_manifest_that_cannot_be_read_stops_it(
    root: Place, table: DayTable, content: bytes
) -> None:
    restate(table, 1.0)
    restate(table, 2.0)
    root.write("training_sets/churn/manifest.json", content)
    before = every_file(root)

    with pytest.raises(InputError, match=r"What it pins is not known.*Nothing was deleted"):
        collect(root)

    assert every_file(root) == before


def test_a_manifest_that_was_changed_stops_it(root: Place, table: DayTable) -> None:
    restate(table, 1.0)
    pin(root, "churn", table)
    said = json.loads(root.read("training_sets/churn/manifest.json"))
    said["views"] = {}
    root.write("training_sets/churn/manifest.json", json.dumps(said).encode())

    with pytest.raises(InputError, match="What it pins is not known"):
        collect(root)


@pytest.mark.parametrize("change", ["table_id", "version"])
def test_a_pin_that_contradicts_its_table_stops_it(
    root: Place, table: DayTable, change: str
) -> None:
    restate(table, 1.0)
    restate(table, 2.0)
    pinned = ("another", 1) if change == "table_id" else (table.head().table_id, 9)
    said = manifest_of("churn", {"txn_7d": pinned, "gone": ("x", 1)})
    root.write("training_sets/churn/manifest.json", said.to_bytes())
    before = every_file(root)

    with pytest.raises(InputError, match=r"of txn_7d, which is not there.*Nothing was deleted"):
        collect(root)

    assert every_file(root) == before


def test_bronze_ledger_and_copies_are_collected_too(root: Place) -> None:
    bronze = created(root.path("bronze/events"), name="events")
    restate(bronze, 1.0)
    restate(bronze, 2.0)
    ledger = AppendLog(root.path("ledger"), LOG)
    for number in range(3):
        ledger.append(pl.DataFrame({"view": ["a b"], "number": [number]}, schema=LOG))
    compact(root, now=clock())

    found = collect(root)

    assert {place: len(item.files) for place, item in found.items()} == {
        "bronze/events": 1,
        "ledger": 3,
    }
    assert bronze.read_day(DAY)["sum_amt_7d"].to_list() == [2.0] * 3
    assert sorted(ledger.scan().collect()["number"].to_list()) == [0, 1, 2]
    assert root.list("superseded") == []


def test_a_table_that_cannot_be_judged_is_left_alone_and_the_others_go_on(
    root: Place, table: DayTable
) -> None:
    for name in ("other", "third"):
        one = created(root.path(f"offline/{name}"), name=name)
        restate(one, 1.0)
        restate(one, 2.0)
    restate(table, 1.0)
    restate(table, 2.0)
    root.delete("offline/other/_delta_log/00000000000000000001.json")
    write_deltalake(DeltaTable(one.uri), one.scan().collect(), mode="overwrite")
    before = data_of(root.join("offline/other")) | data_of(root.join("offline/third"))

    found = collect(root)

    assert "is not complete" in (found["offline/other"].refused or "")
    assert "was not written by Lockstep" in (found["offline/third"].refused or "")
    assert data_of(root.join("offline/other")) | data_of(root.join("offline/third")) == before
    assert len(found["offline/txn_7d"].files) == 1


def test_a_dry_run_says_what_the_run_does_and_does_nothing(root: Place, table: DayTable) -> None:
    for number in range(4):
        restate(table, float(number))
    before = every_file(root)

    dry = collect(root, dry_run=True)

    assert every_file(root) == before
    assert collect(root) == dry


def test_a_writer_and_a_reader_beside_it_notice_nothing(root: Place, table: DayTable) -> None:
    for number in range(3):
        restate(table, float(number))
    reader, lazy = SliceReader(table), table.scan()

    collect(root)
    restate(table, 9.0)

    assert reader.rows(DAY, 1, ["sum_amt_7d"])["sum_amt_7d"].to_list() == [0.0] * 3
    assert lazy.collect()["sum_amt_7d"].to_list() == [2.0] * 3
    assert table.read_day(DAY)["sum_amt_7d"].to_list() == [9.0] * 3


def test_it_works_on_s3(s3_store: S3, tmp_path: Path) -> None:
    root = open_place(f"s3://{BUCKET}/{tmp_path.name}/lake", s3_store.options)
    table = created(root.path("offline/txn_7d"), options=s3_store.options)
    restate(table, 1.0)
    version = pin(root, "churn", table)
    for number in (2, 3):
        restate(table, float(number))
    table.place.write("day=2026-11-01/left.parquet", b"half")
    root.write("training_sets/.work-1/plan.json", b"{}")

    found = collect(root)

    assert {place: len(item.files) for place, item in found.items()} == {
        "offline/txn_7d": 2,
        "training_sets/.work-1": 1,
    }
    assert table.scan(version=version).collect()["sum_amt_7d"].to_list() == [1.0] * 3
    for number in (1, 2, 3):
        got = SliceReader(table).rows(DAY, number, list(COLUMNS))
        assert_frame_equal(got, rows(DAY, float(number)))


# Thirty changes in any order; what was pinned on the way is read back bit for bit.


class Story:
    """A table that is changed at random, and what every pin must give back."""

    def __init__(self, root: Place, seed: int) -> None:
        self.root, self.drawn = root, random.Random(seed)
        self.table = created(root.path("offline/txn_7d"))
        self.ticks = clock()
        self.width = 0
        self.rows: dict[tuple[Any, int], pl.DataFrame] = {}
        self.pinned: dict[str, tuple[int, pl.DataFrame, set[tuple[Any, int]]]] = {}
        self.restate()

    def frame(self, day: Any) -> pl.DataFrame:
        made = rows(day, self.drawn.random(), self.drawn.randrange(1, 6))
        more = [pl.lit(self.drawn.random()).alias(f"more_{n}") for n in range(self.width)]
        return made.sample(fraction=1, shuffle=True, seed=1).with_columns(more)

    def learn(self, frames: dict[Any, pl.DataFrame]) -> None:
        for day, record in self.table.head().days.items():
            if day in frames:
                self.rows.setdefault((day, record.revision), frames[day])

    def restate(self) -> None:
        days = self.drawn.sample(days_from(DAY, 4), self.drawn.randrange(1, 4))
        frames = {day: self.frame(day) for day in days}
        self.table.commit([proposal(*item) for item in frames.items()], now=self.ticks)
        self.learn(frames)
        if self.drawn.random() < 0.5:  # else the run was killed before
            keep_superseded(self.table, days)

    def rebuild(self) -> None:
        self.width += 1
        columns = COLUMNS | {f"more_{n}": pl.Float64() for n in range(self.width)}
        self.table = at(self.table, columns=columns, contract=str(self.width))
        days = sorted(self.table.history().current)
        frames = {day: self.frame(day) for day in days}
        staging = start_rebuild(self.table)
        staging.commit([proposal(*item) for item in frames.items()], now=self.ticks)
        finish_rebuild(self.table, staging, days, now=self.ticks)
        self.learn(frames)

    def pin(self) -> None:
        name = f"set_{len(self.pinned)}"
        version = pin(self.root, name, self.table)
        known = self.table.history().days
        needed = {(day, r.revision) for day, records in known.items() for r in records}
        self.pinned[name] = (version, self.table.scan().collect(), needed)

    def compact(self) -> None:
        compact(self.root, now=self.ticks)

    def collect(self) -> None:
        collect_garbage(self.root, now=later(self.root), keep=WEEK)

    def check(self) -> None:
        for version, frame, needed in self.pinned.values():
            assert_frame_equal(self.table.scan(version=version).collect(), frame)
            reader = SliceReader(self.table, version)
            for day, revision in needed:
                wanted = self.rows[day, revision]
                same = [name for name in wanted.columns if name in reader.schema]
                assert_frame_equal(reader.rows(day, revision, same), wanted.select(same))
                assert reader.rows(day, revision, list(reader.schema)).drop(
                    "known_at", "day"
                ).columns == [name for name in reader.schema if name in wanted.columns]

    def needed_files(self) -> set[str]:
        log = file_log(self.table.place)
        versions = {log.version, *(version for version, _, _ in self.pinned.values())}
        return set().union(*(log.files_at(version) for version in versions))


@pytest.mark.parametrize("seed", range(3))
def test_after_thirty_changes_every_pin_reads_what_it_read(root: Place, seed: int) -> None:
    story = Story(root, seed)
    changes: list[Callable[[], None]] = [story.restate] * 8 + [story.pin] * 2
    changes += [story.rebuild, story.compact, story.collect]
    for _ in range(30):
        story.drawn.choice(changes)()
    story.pin()
    story.restate()
    story.compact()
    story.collect()

    story.check()

    assert data_of(story.table.place) == story.needed_files()
    for info in root.list("superseded"):
        if info.path.endswith("_delta_log/00000000000000000000.json"):
            place = root.join(info.path.rpartition("/_delta_log/")[0])
            log = file_log(place)
            assert data_of(place) == log.files_at(log.version)
    for name in story.pinned:
        root.delete(f"training_sets/{name}/manifest.json")
    story.collect()
    log = file_log(story.table.place)
    assert data_of(story.table.place) == log.files_at(log.version)


def test_the_story_finds_out_a_collection_that_ignores_pins(
    root: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "pinned_versions", lambda _: {})

    with pytest.raises((AssertionError, FileNotFoundError)):
        test_after_thirty_changes_every_pin_reads_what_it_read(root, 0)


# The command line.

PYPROJECT = '[tool.lockstep]\nviews = "views"\nroot = "lake"\ntime_zone = "America/New_York"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DayTable:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "__init__.py").write_text("")
    table = created(tmp_path / "lake" / "offline" / "txn_7d")
    for number in range(3):
        restate(table, float(number))
    ledger = AppendLog(str(tmp_path / "lake" / "ledger"), LOG)
    for number in range(2):
        ledger.append(pl.DataFrame({"view": ["x"], "number": [number]}, schema=LOG))
    now = later(open_place(str(tmp_path / "lake")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lockstep.store.open_store", lambda: Store(find_project(tmp_path), now=lambda: now)
    )
    return table


def lockstep(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == status, result.output
    return result.stdout


def test_the_command_lists_then_deletes_then_has_nothing_to_do(project: DayTable) -> None:
    before = data_of(project.place)

    listed = lockstep("gc", "--dry-run")
    assert data_of(project.place) == before
    said = json.loads(lockstep("gc", "--json"))
    done = [item for item in said["collected"] if item["place"] == "offline/txn_7d"]

    assert "2 files" in listed
    assert "would be deleted" in listed
    assert all(path.rpartition("-")[0] in listed for path in done[0]["files"])
    assert len(done[0]["copied"]) == 2
    assert data_of(project.place) == before - set(done[0]["files"])
    assert "Nothing to delete." in lockstep("gc")


def test_the_command_keeps_as_long_as_it_is_told(project: DayTable) -> None:
    lockstep("gc", "--keep-days", "31")

    assert len(data_of(project.place)) == 3


def test_the_command_ends_with_one_if_a_table_was_left_alone(project: DayTable) -> None:
    project.place.delete("_delta_log/00000000000000000001.json")

    lockstep("gc", status=1)

    open_place("lake").write("training_sets/x/manifest.json", b"{}")
    lockstep("gc", status=2)


def test_the_command_puts_small_files_together(project: DayTable) -> None:
    assert "ledger" in lockstep("compact", "--dry-run")
    said = json.loads(lockstep("compact", "--json"))

    assert said["compacted"] == [{"place": "ledger", "before": 2, "after": 1}]
    assert "Nothing to put together." in lockstep("compact")
