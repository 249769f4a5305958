"""G5: kill -9 anywhere loses nothing acknowledged, and a rerun alone completes the work."""

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lockstep.codec import without_version
from lockstep.crash import CRASH_POINTS
from lockstep.hashing import content_hash
from lockstep.quarantine import Quarantine
from lockstep.stores.delta import DayTable
from lockstep.stores.sibling import sibling_of
from lockstep.superseded import superseded
from lockstep.time import decode_revisions
from tests import crash_story
from tests.crash_story import (
    NEW,
    Committed,
    Model,
    committed_in,
    end_of,
    expected,
    open_copy,
    served_in,
)
from tests.scenario import World

# A point and the how-manieth time it is reached.
KILLS = [
    ("computed", 2),
    ("quarantining", 1),
    ("quarantining", 3),
    ("committed", 1),  # bronze
    ("committed", 3),
    ("kept", 2),
    ("recorded", 5),
    ("mid_push", 1),
    ("pushed", 2),
    ("sealed", 1),
]
# Each killed process is a fork of one that has only imported things: it starts at once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.crash_warm"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    crash_story.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def never_killed(prepared: Path, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> World:
    folder, namespace = tmp_path_factory.mktemp("never killed"), _namespace()
    open_copy(prepared, folder, redis_url, namespace)
    assert 0 == child(folder, redis_url, namespace, "")
    return crash_story.opened(folder, redis_url, namespace)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    return expected()


def _namespace() -> str:
    return f"test:{uuid4().hex}"


def child(folder: Path, redis_url: str, namespace: str, crash: str) -> int | None:
    """Run the story in a process of its own; return its exit code."""
    process = FORKS.Process(target=crash_story.run, args=(folder, redis_url, namespace, crash))
    process.start()
    process.join(120)
    return process.exitcode


def stored(made: World) -> dict[tuple[str, bytes], bytes]:
    """Return every stored value but its V."""
    return {
        (view, key): without_version(value)
        for view in made.store.views
        for key, value in made.store.online_store.scan("user", view)
    }


def check_end_state(made: World, model: Model) -> None:
    """Compare lake, quarantine, rows online and seals with the model."""
    assert model.committed == committed_in(made)
    quarantine = Quarantine(made.store.lake.quarantine)
    items = [item for item in quarantine.items() if item.open]
    found = {day: quarantine.frame(item) for item in items for day in item.touches}
    assert model.quarantined == {
        day: frame.drop("event_timestamp").rows() for day, frame in sorted(found.items())
    }
    for name, view in made.store.views.items():
        assert model.served(name, made.clock.now) == served_in(made, name, valid_at=made.clock.now)
        revisions = {day: revision for day, (revision, _) in model.committed[name].items()}
        seals = made.store.online_store.seals("user", name, view.contract.entity.buckets)
        assert [revisions] * 4 == [decode_revisions(seal.days) for seal in seals.values() if seal]
        head = made.store.lake.table(view).head()
        profiles = made.store.lake.profiles(name, revisions)
        assert revisions.keys() == head.days.keys() == profiles.keys()
        assert revisions.keys() == made.store.lake.latest_entries(name).keys()
        check_superseded_rows_are_kept(made.store.lake.table(view))
    assert [True] * 3 == [parity.holds for parity in made.store.parity()]


def check_superseded_rows_are_kept(table: DayTable) -> None:
    """Every revision that was replaced is in the sibling, bit for bit."""
    history = table.history()
    for record in superseded(history):
        kept = sibling_of(table.place, table.name, history.table_of(record))
        frame = kept.read(record.day, record.revision, list(table.columns))
        assert frame is not None
        assert record.content_hash == content_hash(frame)


def check_every_day_is_old_or_new(
    folder: Path, redis_url: str, namespace: str, before: Committed, model: Model
) -> None:
    """Between the kill and the rerun nothing acknowledged is lost, and nothing is half there."""
    after = committed_in(crash_story.opened(folder, redis_url, namespace))
    for view, old in before.items():
        assert old.keys() <= after[view].keys()
        for day, found in after[view].items():
            assert found in (old.get(day), model.committed[view][day])


def test_the_model_and_a_run_that_is_never_killed_agree(never_killed: World, model: Model) -> None:
    check_end_state(never_killed, model)
    assert end_of(NEW) < never_killed.clock.now
    assert 3 == len(model.quarantined)


@pytest.mark.parametrize(("point", "nth"), KILLS, ids=[f"{p}-{n}" for p, n in KILLS])
def test_after_kill_9_a_rerun_alone_completes_the_work(
    prepared: Path,
    tmp_path: Path,
    redis_url: str,
    never_killed: World,
    model: Model,
    point: str,
    nth: int,
) -> None:
    namespace = _namespace()
    before = committed_in(open_copy(prepared, tmp_path, redis_url, namespace))

    killed = child(tmp_path, redis_url, namespace, f"{point}:{nth}")
    check_every_day_is_old_or_new(tmp_path, redis_url, namespace, before, model)
    rerun = child(tmp_path, redis_url, namespace, "")

    made = crash_story.opened(tmp_path, redis_url, namespace)
    assert (-signal.SIGKILL, 0) == (killed, rerun)
    check_end_state(made, model)
    assert stored(never_killed) == stored(made)


def test_a_process_is_killed_at_every_named_point() -> None:
    assert set(CRASH_POINTS) == {point for point, _ in KILLS}
