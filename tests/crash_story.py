"""A story of several days that a test kills in the middle, and a plain model of how it must end.

The model knows events, days and promises; it shares no code with the engine.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from lockstep import materialize
from tests.scenario import Clock, World, event, world

ZONE = ZoneInfo("America/New_York")
FIRST, OLD, NEW = date(2026, 3, 3), date(2026, 3, 7), date(2026, 3, 9)
START = date(2026, 3, 1)
BAD_DAY = date(2026, 3, 4)  # spoils the windows of days 4, 5 and 6
CHUNK = 4
Row = tuple[Any, ...]
Committed = Mapping[str, Mapping[date, tuple[int, list[Row]]]]


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def end_of(day: date) -> datetime:
    following = day + timedelta(days=1)
    return datetime(*following.timetuple()[:3], tzinfo=ZONE).astimezone(UTC)


def first_events() -> list[dict[str, Any]]:
    """User 1 every day, user 2 every other day, user 3 only at first; sums are exact in binary."""
    found = [event(f"a{d}", 1, d, 0.5 * d.day, hour=23) for d in days(START, OLD)]
    found += [event(f"b{d}", 2, d, 1.25, hour=0) for d in days(START, OLD) if d.day % 2]
    return [*found, event("c", 3, START, 8.0)]


def later_events() -> list[dict[str, Any]]:
    """New days, a correction, a late user, and an event that breaks the promise."""
    found = [event(f"a{d}", 1, d, 2.0) for d in days(date(2026, 3, 8), NEW)]
    found.append(event(f"a{OLD}", 1, OLD, 999.0))
    found.append(event("late", 7, OLD, 3.0))
    return [*found, event("bad", 5, BAD_DAY, -1000.0)]


FIRST_PEOPLE = [{"user_id": 1, "country": "NZ"}, {"user_id": 2, "country": None}]
LATER_PEOPLE = [{"user_id": 1, "country": "FR"}, {"user_id": 4, "country": "*3\r\n$"}]


def prepare(folder: Path) -> None:
    """Land and certify the first days; nothing is pushed."""
    made = world(folder, now=Clock(end_of(OLD) + timedelta(hours=3)))
    made.land("events", first_events(), "first.parquet")
    made.land("people", FIRST_PEOPLE, "people.parquet")
    made.ingest(START, OLD)
    made.ingest_people()
    for view in made.views.all:
        made.build(view, FIRST, OLD)


def open_copy(prepared: Path, folder: Path, redis_url: str, namespace: str) -> World:
    """Copy what was prepared, push it, and land what comes later."""
    shutil.copytree(prepared / "lake", folder / "lake")
    made = opened(folder, redis_url, namespace)
    made.clock.now = end_of(OLD) + timedelta(hours=3)
    for view in made.views.all:
        made.push(view)
    made.land("events", later_events(), "later.parquet")
    made.land("people", LATER_PEOPLE, "people.parquet")
    return made


def opened(folder: Path, redis_url: str, namespace: str) -> World:
    clock = Clock(end_of(NEW) + timedelta(hours=3))
    return world(folder, redis_url=redis_url, now=clock, namespace=namespace)


def run(folder: Path, redis_url: str, namespace: str, crash: str = "") -> None:
    """Do everything that is to be done; die at the named crash point, if one is named."""
    os.environ |= {"LOCKSTEP_TESTING": "1", "LOCKSTEP_CRASH": crash}
    materialize.CHUNK_DAYS = CHUNK
    made = opened(folder, redis_url, namespace)
    made.ingest(START, NEW)
    made.ingest_people()
    for view in made.views.all:
        made.build(view, FIRST, NEW)
        made.push(view)


@dataclass(frozen=True)
class Model:
    """How it must end: view → day → (revision, rows); quarantined day → rows."""

    committed: Committed
    quarantined: Mapping[date, list[Row]]

    def served(self, view: str, now: datetime) -> dict[int, Row]:
        """Return user → (day, revision, event_timestamp, features) valid now, of two days' ttl."""
        ttl = None if view == "profile" else timedelta(days=2)
        found: dict[int, Row] = {}
        for day, (revision, rows) in sorted(self.committed[view].items()):
            valid = end_of(day) <= now and (ttl is None or now <= end_of(day) + ttl)
            if valid:
                found |= {row[0]: (day, revision, end_of(day), row[1:]) for row in rows}
        return found


def expected() -> Model:
    """Work the story out with dictionaries."""
    before, after = _spend(first_events()), _spend(_last_wins(first_events(), later_events()))
    spend: dict[date, tuple[int, list[Row]]] = {}
    bad: dict[date, list[Row]] = {}
    for day in days(FIRST, NEW):
        old = before(day) if day <= OLD else None
        if any(row[1] < 0 for row in after(day)):
            bad[day] = after(day)
            if old is not None:
                spend[day] = (1, old)
        else:
            spend[day] = (1 if old in (None, after(day)) else 2, after(day))
    pace = {day: (revision, _pace(rows)) for day, (revision, rows) in spend.items()}
    profile = {
        day: (2 if day <= OLD else 1, [tuple(row.values()) for row in LATER_PEOPLE])
        for day in days(FIRST, NEW)
    }
    return Model({"spend_3d": spend, "pace": pace, "profile": profile}, bad)


def _last_wins(*deliveries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["event_id"]: row for rows in deliveries for row in rows}.values())


def _spend(rows: Iterable[dict[str, Any]]) -> Any:
    """Return day → sorted rows: the sums of three days, and zeros for who just left them."""
    events = list(rows)

    def of(day: date) -> list[Row]:
        sums: dict[int, Row] = {}
        for row in events:
            age = (day - row["at"].date()).days
            if 0 <= age < 3:
                user, amount, count = sums.get(row["user_id"], (row["user_id"], 0.0, 0))
                sums[user] = (user, amount + row["amount"], count + 1)
        left = {row["user_id"] for row in events if (day - row["at"].date()).days == 3}
        sums |= {user: (user, 0.0, 0) for user in left - sums.keys()}
        return sorted(sums.values())

    return of


def _pace(rows: Iterable[Row]) -> list[Row]:
    return [(user, amount / count if count else None) for user, amount, count in rows]


def committed_in(made: World) -> Committed:
    """Return what the lake holds, in the model's form; each day is checked against its hash."""
    found: dict[str, dict[date, tuple[int, list[Row]]]] = {}
    for view in made.views.all:
        table = made.store.lake.table(view)
        found[view.name] = {
            day: (
                record.revision,
                table.read_day(day).drop("event_timestamp", "known_at", "day").rows(),
            )
            for day, record in table.head().days.items()
        }
    return found


def unpacked(value: bytes) -> Row:
    """Return (day, revision, event_timestamp, features) of a packed row, None for a tombstone."""
    at = datetime(1970, 1, 1, tzinfo=UTC)
    at += timedelta(seconds=int.from_bytes(value[4:9], "big", signed=True))
    day = at.date() - timedelta(days=value[9])
    features = tuple(msgspec.msgpack.decode(value[16:])) if value[0] >> 6 == 1 else None
    return (day, int.from_bytes(value[10:12], "big"), at, features)


def served_in(made: World, view: str, *, valid_at: datetime) -> dict[int, Row]:
    """Return what Redis holds and a reader would serve, in the model's form."""
    ttl = made.store.views[view].contract.ttl
    found = {}
    for key, value in made.store.online_store.scan("user", view):
        row = unpacked(value)
        if row[3] is not None and (ttl is None or valid_at <= row[2] + ttl):
            found[int(key.partition(b":")[2])] = row
    return found
