"""G4: any rerun in any order ends in bit-identical content; unchanged content is no new version."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep import materialize
from lockstep.affected import affected_days
from lockstep.hashing import content_hash
from lockstep.time import days_between
from tests.scenario import START, Clock, World, event, make_views, world

LAST = date(2026, 3, 8)  # days 3 to 8, the last of which has 23 hours
BUILT = days_between(date(2026, 3, 3), LAST)
NOW = datetime.fromisoformat("2026-03-11T12:00:00+00:00")


def awkward_events() -> list[dict[str, Any]]:
    """Events whose sums depend on the order of their addition, in the last bits."""
    drawn = random.Random(4)
    days = days_between(START, LAST)
    rows = []
    for number in range(6000):
        amount = drawn.uniform(0, 1) * 10.0 ** drawn.randrange(-6, 7)
        row = event(f"e{number}", drawn.randrange(7), drawn.choice(days), amount)
        rows.append({**row, "at": row["at"] + timedelta(seconds=drawn.randrange(-40_000, 40_000))})
    return [row for row in rows if START <= row["at"].date() <= LAST]


EVENTS = awkward_events()


def landed(folder: Path, files: Sequence[Sequence[dict[str, Any]]]) -> World:
    """A world with these files ingested."""
    made = world(folder, now=Clock(NOW))
    for number, rows in enumerate(files):
        made.land("events", rows, f"part-{number}.parquet")
    made.ingest(START, LAST)
    return made


def bits(made: World) -> dict[date, str]:
    """Return day → content hash of the rows as they are read back, checked against the log."""
    table = made.store.lake.table(made.views.spend_3d)
    records = table.head().days
    found = {day: content_hash(table.read_day(day).drop("known_at", "day")) for day in records}
    assert found == {day: record.content_hash for day, record in records.items()}
    return found


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> World:
    return landed(tmp_path_factory.mktemp("g4"), [EVENTS])


@pytest.fixture(scope="module")
def expected(ingested: World, tmp_path_factory: pytest.TempPathFactory) -> dict[date, str]:
    made = copy_of(ingested, tmp_path_factory.mktemp("reference"))
    made.build(made.views.spend_3d, BUILT[0], LAST)
    return bits(made)


def copy_of(made: World, folder: Path) -> World:
    """The same lake in another folder."""
    shutil.copytree(made.store.project.root, folder / "lake", dirs_exist_ok=True)
    return world(folder, now=Clock(NOW))


ORDERS = st.permutations(BUILT).flatmap(
    lambda days: st.lists(st.integers(0, len(days)), max_size=3).map(
        lambda cuts: [days[a:b] for a, b in _pieces(sorted(cuts), len(days))]
    )
)


def _pieces(cuts: list[int], length: int) -> list[tuple[int, int]]:
    return list(zip([0, *cuts], [*cuts, length], strict=True))


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(runs=ORDERS, again=st.sampled_from(BUILT), chunk=st.sampled_from([1, 2, 16]))
def test_days_built_in_any_order_in_any_ranges_and_chunks_have_the_same_bits(
    ingested: World,
    expected: dict[date, str],
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[list[date]],
    again: date,
    chunk: int,
) -> None:
    made = copy_of(ingested, tmp_path_factory.mktemp("order"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(materialize, "CHUNK_DAYS", chunk)
        for run in [*runs, [again]]:
            reader = made.restart().store.reader()
            days = materialize.materialize(
                made.store.lake, made.views.spend_3d, run, reader, now=made.clock
            )
            assert {"committed"} >= {o.status for o in days} or run == [again]

    assert expected == bits(made)
    assert {1} == {r.revision for r in made.store.committed(made.views.spend_3d).values()}
    shutil.rmtree(made.store.project.root)


@pytest.mark.parametrize("seed", [1, 2])
def test_shuffled_rows_in_other_files_delivered_twice_give_the_same_bits(
    tmp_path: Path, expected: dict[date, str], seed: int
) -> None:
    drawn = random.Random(seed)
    rows = drawn.sample(EVENTS, len(EVENTS)) + drawn.sample(EVENTS, 500)
    files: list[list[dict[str, Any]]] = [[] for _ in range(5)]
    for row in rows:
        drawn.choice(files).append(row)

    made = landed(tmp_path, files)
    made.build(made.views.spend_3d, BUILT[0], LAST)

    assert expected == bits(made)


CHILD = """
import json, sys
from datetime import date
from pathlib import Path
import polars as pl
from tests.scenario import Clock, world
from tests.test_g4_reruns import BUILT, EVENTS, NOW, landed
from lockstep.compute import compute_day
from lockstep.hashing import content_hash

made = landed(Path(sys.argv[1]), [EVENTS])
reader, view, zone = made.store.reader(), made.views.spend_3d, made.store.project.zone
hashes = {str(day): content_hash(compute_day(view, day, reader, zone).frame) for day in BUILT}
print(json.dumps({"threads": pl.thread_pool_size(), "hashes": hashes}))
"""


def test_any_number_of_threads_gives_the_same_bits(
    tmp_path: Path, expected: dict[date, str]
) -> None:
    others = sorted({1, 2, 4} - {pl.thread_pool_size()})  # this process made `expected`
    running = []
    for threads in others:
        environment = {**os.environ, "POLARS_MAX_THREADS": str(threads)}
        command = [sys.executable, "-c", CHILD, str(tmp_path / str(threads))]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in running]

    hashes = {str(day): found for day, found in expected.items()}
    assert others == [answer["threads"] for answer in answers]
    assert [hashes] * len(others) == [answer["hashes"] for answer in answers]


def test_the_sums_do_depend_on_the_order_of_addition() -> None:
    """Else nothing above would prove anything."""
    frame = pl.DataFrame(EVENTS)
    orders = [frame, frame.reverse(), frame.sample(fraction=1, shuffle=True, seed=1)]

    sums = {
        tuple(make_views().spend_3d(order.lazy()).collect().sort("user_id")["amount_3d"])
        for order in orders
    }

    assert len(orders) == len(sums)


@pytest.fixture
def small(tmp_path: Path) -> World:
    """Two users on days 1 to 6, the view built for days 3 to 6."""
    made = world(tmp_path, now=Clock(NOW))
    days = days_between(START, date(2026, 3, 8))
    made.land("events", [event(f"{u}-{d}", u, d, 0.1) for d in days for u in (1, 2)], "a.parquet")
    made.ingest(days[0], days[-1])
    made.build(made.views.spend_3d, days[2], days[-1])
    return made


def check_unchanged_content_makes_no_version(made: World) -> None:
    table = made.store.lake.table(made.views.spend_3d)
    before = table.head()
    made.clock.now += timedelta(hours=1)

    outcomes = made.restart().build(made.views.spend_3d, date(2026, 3, 3), date(2026, 3, 8))

    assert {"unchanged"} == {outcome.status for outcome in outcomes}
    assert before == table.head()
    assert set(table.scan().collect()["known_at"]) == {NOW}


def test_unchanged_content_makes_no_version_and_keeps_known_at(small: World) -> None:
    check_unchanged_content_makes_no_version(small)


def test_a_rerun_that_changed_nothing_is_in_the_ledger(small: World) -> None:
    check_unchanged_content_makes_no_version(small)

    entry = small.store.lake.latest_entries("spend_3d")[date(2026, 3, 3)]

    assert ("unchanged", 1) == (entry.outcome, entry.revision)
    assert small.clock.now == entry.recorded_at


def test_a_corrected_value_is_the_next_revision_and_the_ledger_says_why(small: World) -> None:
    day = date(2026, 3, 5)
    small.clock.now += timedelta(hours=1)
    small.land("events", [event(f"1-{day}", 1, day, 999.0)], "correction.parquet")

    (bronze,) = small.ingest(day, day)
    outcomes = small.build(small.views.spend_3d, date(2026, 3, 3), date(2026, 3, 8))

    entries = small.store.lake.latest_entries("spend_3d")
    assert ("committed", 2, 1) == (
        bronze.status,
        bronze.revision,
        bronze.counts["duplicates_dropped"],
    )
    changed = {outcome.day for outcome in outcomes if outcome.status == "committed"}
    assert set(days_between(day, date(2026, 3, 7))) == changed
    assert {"events": "2026-03-02..2026-03-04=1,2026-03-05=2"} == entries[day].inputs
    assert 2 == small.store.committed(small.views.spend_3d)[day].revision
    assert 999.2 == pytest.approx(small.rows(small.views.spend_3d, day)["amount_3d"][0])


def test_a_late_file_changes_exactly_the_days_whose_windows_hold_it(small: World) -> None:
    day, before = date(2026, 3, 4), bits(small)
    small.land("events", [event("late", 3, day)], "late.parquet")
    small.ingest(day, day)

    small.build(small.views.spend_3d, date(2026, 3, 3), date(2026, 3, 8))

    after = bits(small)
    changed = {d for d in after if after[d] != before[d]}
    reached = affected_days([small.views.spend_3d], {"events": [day]}, date(2026, 3, 8))
    # Three days hold it, and the fourth closes the new user.
    assert set(days_between(day, date(2026, 3, 7))) == changed == reached["spend_3d"]


def test_a_correction_taken_back_is_a_third_revision_with_the_first_bits(small: World) -> None:
    day = date(2026, 3, 8)
    first = bits(small)[day]
    extra = small.land("events", [event("late", 3, day)], "late.parquet")
    small.ingest(day, day)
    small.build(small.views.spend_3d, day)
    second = bits(small)[day]
    extra.unlink()
    small.ingest(day, day)

    small.build(small.views.spend_3d, day)

    assert first == bits(small)[day] != second
    assert 3 == small.store.committed(small.views.spend_3d)[day].revision
