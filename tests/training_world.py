"""Two views with a history of corrections, committed as they were told, and a naive oracle.

    usage    keyed by user_id, ttl two days
    visits   keyed by (shop, user_id), for ever

The days lie around both changes of the clocks. The view went live on `LIVE`: earlier days were
backfilled then. Some days were corrected later; a correction may drop a user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lockstep import Entity, Feature, Features, Source, feature_view
from lockstep.hashing import canonical, content_hash
from lockstep.stores.delta import Proposal
from lockstep.time import INSTANT, as_of, days_between
from lockstep.view import FeatureView
from tests.scenario import USER, ZONE, Clock, World, catalog_of, world

SPRING_DAYS = days_between(date(2026, 3, 5), date(2026, 3, 11))
AUTUMN_DAYS = days_between(date(2026, 10, 30), date(2026, 11, 3))
DAYS = [*SPRING_DAYS, *AUTUMN_DAYS]
LIVE = as_of(date(2026, 3, 7), ZONE) + timedelta(hours=5)
NOW = as_of(date(2026, 11, 10), ZONE)
MOMENT = timedelta(microseconds=1)
TTL = timedelta(days=2)
DELAY = timedelta(hours=3)
BIG = 2**53 + 1
FUTURE = "ignore:.*of the spine are :lockstep.errors.LockstepWarning"
"""A full spine reaches beyond what is committed, and each set of it says so."""
VALUES = ("usage:amount", "usage:kind", "visits:count")

SHOPPER = Entity("shopper", {"shop": pl.String, "user_id": pl.Int64}, "Somebody in a shop.")
NOTHING = Source(
    "nothing",
    {"user_id": pl.Int64, "at": pl.Datetime("us")},
    event_time="at",
    time_zone="UTC",
    unique_by=["user_id"],
    start=date(2026, 3, 1),
    description="Nothing.",
)


class Usage(Features, entity=USER, owner="team:tests", ttl=TTL, landing_delay=DELAY, min_rows=0):
    """What somebody used."""

    amount = Feature(pl.Float64, "How much.")
    kind = Feature(pl.String, "Of what.", pii=True)


class Visits(Features, entity=SHOPPER, owner="team:tests", ttl=None, min_rows=0):
    """How often somebody came."""

    count = Feature(pl.Int64, "How often.")


@feature_view(Usage, inputs=[NOTHING.trailing(days=1)])
def usage(nothing: pl.LazyFrame) -> pl.LazyFrame:
    return nothing


@feature_view(Visits, inputs=[NOTHING.trailing(days=1)])
def visits(nothing: pl.LazyFrame) -> pl.LazyFrame:
    return nothing


@dataclass(frozen=True)
class Told:
    """One revision of one day of one view."""

    view: FeatureView
    day: date
    known_at: datetime
    rows: tuple[tuple[Any, ...], ...]


def told() -> list[Told]:
    """The history, in order of certification."""
    found = []
    for n, day in enumerate(DAYS):
        end = as_of(day, ZONE)
        first = max(end + timedelta(hours=2), LIVE)
        numbers = [float(n), float("nan"), None]
        used = tuple(
            (user, numbers[(user + n) % 3], ["", "a", "é", None][(user + n) % 4])
            for user in (1, 2, 3)
            if (user + n) % 5
        )
        used = (*used, (BIG, float(n), "big"))
        found.append(Told(usage, day, first, used))
        shops = tuple(("ab"[(user + n) % 2], user, n * 10 + user) for user in (1, 2) if n % 3)
        found.append(Told(visits, day, first, shops))
        if n % 2 == 0:  # corrected a day and a half later; user 2 drops out
            corrected = tuple((u, -1.5 - n, k) for u, _, k in used if u != 2)
            found.append(Told(usage, day, first + timedelta(hours=36), corrected))
        if n % 4 == 0:  # and once more, back again
            found.append(Told(usage, day, first + timedelta(days=3), used))
    return sorted(found, key=lambda item: item.known_at)


HISTORY = told()


def training_world(folder: Path) -> World:
    """Return a store that holds the history."""
    made = world(folder)
    made.store.__dict__["catalog"] = catalog_of([usage, visits])
    for item in HISTORY:
        commit(made, item)
    made.clock.now = NOW
    return made


def commit(made: World, item: Told, code: str = "one") -> None:
    """Commit one revision as of its instant."""
    columns = item.view.columns
    keys = item.view.contract.keys
    rows = [(*r[: len(keys)], as_of(item.day, ZONE), *r[len(keys) :]) for r in item.rows]
    frame = canonical(pl.DataFrame(rows, schema=columns, orient="row").sort(keys))
    table = made.store.lake.table(item.view)
    table.create()
    proposal = Proposal(item.day, frame, content_hash(frame), {"code_version": code})
    made.clock.now = item.known_at
    table.commit([proposal], now=Clock(item.known_at))


def oracle(
    mode: str, view: FeatureView, key: Sequence[Any], at: datetime | None
) -> tuple[Any, ...] | None:
    """Look at every revision of every day; None if nothing holds."""
    if at is None or any(part is None for part in key):
        return None
    ttl, best, found = view.contract.ttl, None, None
    for day in DAYS:
        end = as_of(day, ZONE)
        revisions = [item for item in HISTORY if item.view is view and item.day == day]
        for number, item in enumerate(revisions):
            if not _in_effect(mode, revisions, number, at, view) or end > at:
                continue
            rows = [row for row in item.rows if list(row[: len(key)]) == list(key)]
            if rows and (best is None or (end, number) > best):
                best, found = (end, number), rows[0][len(key) :]
    if best is None or (ttl is not None and at > best[0] + ttl):
        return None
    return found


def _in_effect(
    mode: str, revisions: Sequence[Told], number: int, at: datetime, view: FeatureView
) -> bool:
    if mode == "event":
        return number == len(revisions) - 1
    since = [_effect(revisions, n, view) for n in range(len(revisions))]
    return since[number] <= at and not any(later <= at for later in since[number + 1 :])


def _effect(revisions: Sequence[Told], number: int, view: FeatureView) -> datetime:
    end, known = as_of(revisions[number].day, ZONE), revisions[number].known_at
    live = min(item.known_at for item in HISTORY if item.view is view)
    if number == 0 and end < live:
        known = min(known, end + view.contract.landing_delay)
    return max(end, known)


def expected(mode: str, spine: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return what VALUES must be, per row of a spine with user_id, shop and an instant `at`."""
    result = []
    for user, shop, at in spine.select("user_id", "shop", "at").iter_rows():
        used = oracle(mode, usage, (user,), at) or (None, None)
        seen = oracle(mode, visits, (shop, user), at) or (None,)
        result.append((*used, *seen))
    return result


def spine_of(rows: Sequence[tuple[Any, Any, Any]]) -> pl.DataFrame:
    """Return (user, shop, instant) rows as a spine with a label."""
    frame = pl.DataFrame(
        rows, schema={"user_id": pl.Int64, "shop": pl.String, "at": INSTANT}, orient="row"
    )
    return frame.with_row_index("label")


def all_instants() -> list[datetime]:
    """Every instant at which something changes, and those beside it."""
    marks = [as_of(day, ZONE) for day in DAYS]
    marks += [as_of(day, ZONE) + TTL for day in DAYS]
    marks += [as_of(day, ZONE) + DELAY for day in SPRING_DAYS[:3]]
    marks += [item.known_at for item in HISTORY] + [LIVE]
    return sorted(
        {mark.astimezone(UTC) + off for mark in marks for off in (-MOMENT, MOMENT * 0, MOMENT)}
    )


def full_spine() -> pl.DataFrame:
    """Every user at every instant that matters, and rows without key or instant."""
    rows: list[tuple[Any, Any, Any]] = [
        (user, "ab"[n % 2], at)
        for n, at in enumerate(all_instants())
        for user in (1, 2, 3, BIG, 99)
    ]
    rows += [(None, "a", NOW), (1, None, NOW), (1, "a", None), (None, None, None)]
    # Not in order of time, with duplicates.
    return spine_of([*rows[::-2], *rows[::3], *rows[1::2]])


def same_cells(one: Sequence[tuple[Any, ...]], other: Sequence[tuple[Any, ...]]) -> bool:
    """Whether the cells agree; NaN equals NaN and differs from null."""
    return [repr(row) for row in one] == [repr(row) for row in other]
