"""What a point-in-time join must find, spelled from the rules by looking at every row; no engine.

A world is one view's history: per day its revisions, each with the instant of its certification and
its rows by entity. The entity is a number here; `KINDS` says which key columns it stands for.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import strategies as st

from lockstep.training.timeline import Rows, Slice

NEW_YORK = ZoneInfo("America/New_York")
MOMENT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
# Clocks go forward on the 8th: that day lasts 23 hours.
DAYS = [date(2026, 3, day) for day in range(6, 12)]
ENTITIES = range(3)
UNKNOWN = 5
SIZES = [150, 300, 20, 4, 0]
WIDE = [-(2**63), -7, 2**40, 2**62, 2**63 - 1, 5]

KINDS: dict[str, tuple[dict[str, pl.DataType], Any]] = {
    "whole numbers": ({"k": pl.Int64()}, lambda n: (n * 3 - 4,)),
    "whole numbers far apart": ({"k": pl.Int64()}, lambda n: (WIDE[n],)),
    "narrow numbers": ({"k": pl.Int32()}, lambda n: (n - 2,)),
    "text": ({"k": pl.String()}, lambda n: (["", "a", "é", "A", "aa", "b"][n],)),
    "dates": ({"k": pl.Date()}, lambda n: (date(2026, 1, 1 + n),)),
    "two columns": (
        {"k": pl.Int32(), "shop": pl.String()},
        lambda n: [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (1, "c")][n],
    ),
    "three columns": (
        {"a": pl.String(), "b": pl.Int64(), "c": pl.Date()},
        lambda n: (["x", "y"][n % 2], [2**60, -1, 0][n // 2], date(2026, 1, 1 + n % 2)),
    ),
}


@dataclass(frozen=True)
class Revision:
    """One revision of a day as the world knows it; `extra` is the type of the late column."""

    day: date
    revision: int
    version: int
    known_at: datetime
    cells: Mapping[int, tuple[Any, ...]]
    extra: str | None = "Int64"

    @property
    def rows(self) -> int:
        return len(self.cells)


@dataclass(frozen=True)
class World:
    """A view's history and what is asked of it; an entity of None stands for a null key."""

    history: Mapping[date, Sequence[Revision]]
    asked: Sequence[tuple[int | None, datetime | None]]
    ttl: timedelta | None
    delay: timedelta = HOUR
    kind: str = "whole numbers"
    mode: str = "known"
    zone: ZoneInfo = field(default=NEW_YORK)


@dataclass(frozen=True)
class Found:
    """The row that holds, or the age of one that has expired."""

    revision: Revision | None = None
    cells: tuple[Any, ...] = (None, None, None)
    age: timedelta | None = None
    expired: bool = False


def end_of(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of the next date."""
    following = day + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=zone).astimezone(UTC)


class Oracle:
    """What a world must answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ends = {day: end_of(day, world.zone) for day in world.history}
        # In event time only the current revision of a day is asked, whatever was known before.
        self._days = [r if world.mode == "known" else r[-1:] for r in world.history.values()]
        self._since = {
            (r.day, r.revision): self._counts_from(r) for revisions in self._days for r in revisions
        }

    def _counts_from(self, revision: Revision) -> datetime:
        end, history = self._ends[revision.day], self._world.history
        if self._world.mode == "event":
            return end
        live = min(other.known_at for others in history.values() for other in others)
        if end < live and revision is history[revision.day][0]:
            return max(end, min(revision.known_at, end + self._world.delay))
        return max(end, revision.known_at)

    def _in_effect(self, at: datetime) -> Iterable[Revision]:
        """The one revision per day that counts at an instant, if any does."""
        for revisions in self._days:
            counting = [r for r in revisions if self._since[r.day, r.revision] <= at]
            if counting:
                yield max(counting, key=lambda r: r.revision)

    def look(self, entity: int | None, at: datetime | None) -> Found:
        """Look at every row of every revision in effect; the latest one decides."""
        if entity is None or at is None:
            return Found()
        having = [r for r in self._in_effect(at) if entity in r.cells]
        if not having:
            return Found()
        best = max(having, key=lambda r: (self._ends[r.day], r.revision))
        age, ttl = at - self._ends[best.day], self._world.ttl
        if ttl is not None and age > ttl:
            return Found(age=age, expired=True) if age <= 2 * ttl else Found()
        return Found(best, (*best.cells[entity][:2], self._late(best, entity)), age)

    def _late(self, revision: Revision, entity: int) -> Any:
        """The late column's value: the revision's own, or that of the first later one with it."""
        (revisions,) = (r for r in self._days if revision in r)
        for later in revisions:
            if later.revision >= revision.revision and later.extra == "Int64":
                return later.cells[entity][2] if entity in later.cells else None
        return None


class Kept(Rows):
    """The rows of a world's slices, as frames in memory."""

    def __init__(self, world: World) -> None:
        types, spell = KINDS[world.kind]
        self.frames: dict[tuple[date, int], pl.DataFrame] = {}
        self.read_columns: list[tuple[date, int, tuple[str, ...]]] = []
        for revision in (r for revisions in world.history.values() for r in revisions):
            rows = [(*spell(e), *cells) for e, cells in revision.cells.items()]
            frame = pl.DataFrame(
                rows,
                schema={**types, "v": pl.Float64(), "n": pl.String(), "late": pl.Int64()},
                orient="row",
            )
            if revision.extra is None:
                frame = frame.drop("late")
            elif revision.extra == "String":
                frame = frame.with_columns(pl.lit("of another type").alias("late"))
            self.frames[revision.day, revision.revision] = frame

    def read(self, piece: Slice, columns: Sequence[str]) -> pl.DataFrame:
        self.read_columns.append((piece.day, piece.revision, tuple(columns)))
        frame = self.frames[piece.day, piece.revision]
        return frame.select([name for name in columns if name in frame.columns])


NUMBERS = [None, float("nan"), -0.0, 0.0, 1.5]
WORDS = [None, "", "a", "é"]
LATER = [MOMENT, HOUR, 2 * HOUR, timedelta(days=1), timedelta(days=2), timedelta(days=30)]


def cells_of(day: date, revision: int, entity: int) -> tuple[Any, ...]:
    """The values of one row: special ones and nulls, and a number that no other row has."""
    number = day.toordinal() * 100 + revision * 10 + entity
    late = None if number % 7 == 0 else (-1) ** number * number * 2**36
    return NUMBERS[number % 5], WORDS[number % 4], late


@st.composite
def histories(draw: st.DrawFn) -> dict[date, list[Revision]]:
    """Some days, each with revisions certified one after the other, some long after the day."""
    found: dict[date, list[Revision]] = {}
    for day in draw(st.permutations(DAYS)):
        known = end_of(day, NEW_YORK) + draw(st.sampled_from([timedelta(0), *LATER]))
        count = draw(st.integers(0, 3))
        revisions = []
        for number in range(1, count + 1):
            extra = "Int64" if number == count else draw(st.sampled_from(["Int64", None, "String"]))
            entities = draw(st.sets(st.sampled_from(ENTITIES)))
            cells = {entity: cells_of(day, number, entity) for entity in sorted(entities)}
            revisions.append(Revision(day, number, number, known, cells, extra))
            known += draw(st.sampled_from(LATER))
        if revisions:
            found[day] = revisions
    return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A history, and a spine that asks at, just before and just after every bound."""
    history = draw(histories())
    ttl = draw(st.sampled_from([None, timedelta(0), HOUR, timedelta(hours=23), timedelta(days=2)]))
    delay = draw(st.sampled_from([timedelta(0), HOUR, timedelta(days=3)]))
    ends = [end_of(day, NEW_YORK) for day in DAYS]
    known = [r.known_at for revisions in history.values() for r in revisions]
    bounds = {*ends, *known, *(end + delay for end in ends)}
    if ttl is not None:
        bounds |= {end + n * ttl for end in ends for n in (1, 2)}
    pairs = [
        (entity, bound + off * MOMENT)
        for entity in (*ENTITIES, UNKNOWN)
        for bound in sorted(bounds)
        for off in (-1, 0, 1)
    ]
    # Any rows of these, in any order, some twice: few, so that slices are out of reach, or many.
    chance = random.Random(draw(st.integers(0, 2**16)))
    asked = chance.choices([*pairs, (None, ends[0]), (0, None)], k=draw(st.sampled_from(SIZES)))
    kind, mode = draw(st.sampled_from(sorted(KINDS))), draw(st.sampled_from(["known", "event"]))
    return World(history, asked, ttl, delay, kind, mode)


def spine_of(world: World) -> pl.DataFrame:
    """The key columns and `at`; a null entity has a null in the last of its key columns."""
    types, spell = KINDS[world.kind]
    rows = []
    for entity, at in world.asked:
        key = spell(0 if entity is None else entity)
        rows.append((*(key if entity is not None else (*key[:-1], None)), at))
    return pl.DataFrame(rows, schema={**types, "at": pl.Datetime("us", "UTC")}, orient="row")
