"""A person certifies exactly the rows that failed, once, and only while nothing has moved."""

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep.errors import ConflictError, InputError
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.release import release_file, release_frame
from lockstep.stores.delta import DayTable
from tests.day_tables import interfere
from tests.scenario import EVENTS, START, World, catalog_of, event, instant, world
from tests.test_g1_quarantine import BAD, make_daily
from tests.training_world import FUTURE

pytestmark = pytest.mark.filterwarnings(FUTURE)

DAY = START


class Killed(BaseException):
    """The process ends here: nothing that catches errors sees it."""


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A day that is in quarantine: a good event of user 2 and a bad one of user 1."""
    made = world(tmp_path)
    made.store.__dict__["catalog"] = catalog_of([make_daily()])
    made.clock.now = instant(START + timedelta(days=1), 3)
    made.land("events", [event("good", 2, DAY)], "good.parquet")
    spoil(made)
    build(made)
    return made


def land(made: World, file: str, *rows: Any) -> None:
    made.clock.now += timedelta(minutes=1)
    made.land("events", list(rows), file)
    made.ingest(DAY, DAY)


def spoil(made: World) -> None:
    land(made, "bad.parquet", event("bad", 1, DAY, BAD))


def build(made: World) -> DayOutcome:
    (outcome,) = made.build(made.store.views["daily"], DAY)
    return outcome


def mend(made: World) -> None:
    """Take the bad file back and compute the day, as another run would."""
    (Path(made.store.project.landing) / "events" / "bad.parquet").unlink()
    made.ingest(DAY, DAY)
    assert "committed" == build(made).status


def quarantine(made: World) -> Quarantine:
    return Quarantine(made.store.lake.quarantine)


def item_of(made: World) -> Quarantined:
    (item,) = quarantine(made).items("daily")
    return item


def release(made: World, reason: str = "seen, and right") -> int:
    view, reader = made.store.views["daily"], made.store.reader()
    lake = made.store.lake
    return release_frame(lake, view, item_of(made), reason, reader, now=made.clock).revision


def amounts(made: World) -> list[float]:
    return list(made.rows(made.store.views["daily"], DAY)["amount"])


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, act: Callable[[], None]) -> None:
    """Let somebody else act when the method is called next."""
    real = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        act()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


def at_the_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    once(monkeypatch, Quarantine, "frame", act)


def at_the_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    once(monkeypatch, DayTable, "commit", act)


def at_the_write(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    interfere(monkeypatch, lambda count: act() if count == 0 else None)


@pytest.mark.parametrize("moment", [at_the_reading, at_the_commit, at_the_write])
def test_a_day_that_is_mended_meanwhile_keeps_what_was_certified(
    made: World, monkeypatch: pytest.MonkeyPatch, moment: Callable[..., None]
) -> None:
    moment(monkeypatch, lambda: mend(made))

    with pytest.raises((ConflictError, InputError)):
        release(made)

    head = made.store.committed(made.store.views["daily"])
    assert (1, [1.0]) == (head[DAY].revision, amounts(made))
    item = item_of(made)
    assert (None, None) == (item.released, item.releasing)
    assert item.closed is not None
    spoil(made)
    assert ["quarantined", "quarantined"] == [build(made).status, build(made).status]
    assert [1.0] == amounts(made)


def test_a_lost_race_names_both_revisions(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_write(monkeypatch, lambda: mend(made))

    with pytest.raises(ConflictError) as raised:
        release(made)

    assert str(raised.value) == (
        f"Others certified {DAY} of daily meanwhile. Expected revision 0, got revision 1. Look at "
        "what is certified now, and decide again. Certified: no day. Not written: 2026-03-01."
    )


def test_inputs_that_move_after_the_first_look_are_seen_before_the_commit(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = event("more", 5, DAY)
    once(monkeypatch, Quarantine, "intend", lambda: land(made, "more.parquet", more))

    with pytest.raises(InputError, match="has moved on since it was quarantined"):
        release(made)

    assert {} == dict(made.store.committed(made.store.views["daily"]))
    assert {} == quarantine(made).released_hashes("daily")
    assert item_of(made).open


def test_rows_that_are_not_the_quarantined_ones_are_refused(made: World) -> None:
    item = item_of(made)
    altered, file = quarantine(made).frame(item).with_columns(amount=pl.lit(12345.0)), io.BytesIO()
    altered.write_parquet(file)
    made.store.lake.quarantine.write(f"daily/{item.item}/frame.parquet", file.getvalue())

    with pytest.raises(InputError) as raised:
        release(made)

    said = str(raised.value)
    assert said.startswith(
        f"The rows of daily {item.item} are not those that failed. Expected content "
        f"{item.details['content_hash']}, got content "
    )
    assert said.endswith(
        f"Materialize the day again: lockstep materialize daily --days {DAY} Nothing was released."
    )
    assert {} == dict(made.store.committed(made.store.views["daily"]))
    assert item_of(made).open


def die(made: World, monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
    """End a release just before its commit, or just after."""
    real = DayTable.commit

    def killed(*args: Any, **kwargs: Any) -> Any:
        if committed:
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DayTable, "commit", killed)
        with pytest.raises(Killed):
            release(made, "the first reason")


@pytest.mark.parametrize("committed", [False, True])
def test_a_release_that_died_is_completed_by_a_rerun_and_stays_so(
    made: World, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    die(made, monkeypatch, committed=committed)
    assert item_of(made).open

    statuses = [build(made).status for _ in range(3)]

    assert ["unchanged" if committed else "committed", "unchanged", "unchanged"] == statuses
    assert [BAD, 1.0] == amounts(made)
    item = item_of(made)
    assert item.released is not None
    assert ("the first reason", None) == (item.released["reason"], item.releasing)


@pytest.mark.parametrize(
    ("committed", "counts"), [(False, "the second reason"), (True, "the first reason")]
)
def test_a_release_that_died_can_be_given_again(
    made: World, monkeypatch: pytest.MonkeyPatch, counts: str, *, committed: bool
) -> None:
    die(made, monkeypatch, committed=committed)

    assert 1 == release(made, "the second reason")

    (record,) = made.store.committed(made.store.views["daily"]).values()
    entry = made.store.lake.latest_entries("daily")[DAY]
    item = item_of(made)
    assert item.released is not None
    assert counts == item.released["reason"] == record.note["released"]
    assert ("released", 1) == (entry.outcome, entry.revision)
    assert "unchanged" == build(made).status


def test_what_a_release_that_died_meant_ends_with_the_item(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(made, monkeypatch, committed=False)
    mend(made)
    spoil(made)

    assert ["quarantined", "quarantined"] == [build(made).status, build(made).status]
    assert [1.0] == amounts(made)


def test_a_frame_is_released_once(made: World) -> None:
    release(made, "the first reason")

    with pytest.raises(InputError, match=r"was released already, by .*: the first reason"):
        release(made, "the second reason")

    item = item_of(made)
    assert item.released is not None
    assert "the first reason" == item.released["reason"]


def test_a_file_is_released_once_also_by_who_read_it_before(made: World) -> None:
    broken = Path(made.store.project.landing) / "events" / "broken.parquet"
    pl.DataFrame([event("x", 1, DAY)]).drop("amount").write_parquet(broken)
    made.ingest(DAY, DAY)
    lake = made.store.lake
    (before,) = quarantine(made).items(EVENTS.name)
    release_file(lake, before, "the first reason", now=made.clock)
    (after,) = quarantine(made).items(EVENTS.name)

    for item in (before, after):
        with pytest.raises(InputError, match=r"was released already, by .*: the first reason"):
            release_file(lake, item, "the second reason", now=made.clock)

    (kept,) = quarantine(made).items(EVENTS.name)
    assert kept.released is not None
    assert "the first reason" == kept.released["reason"]
