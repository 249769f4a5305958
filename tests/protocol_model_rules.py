"""The write protocol as a model: what one bucket does with a call, and what a planner plans.

Written from the protocol's text, not from the Lua: pure, on values that can be compared and hashed.
Days, keys, tables, pushes and wipes are small numbers; time is the number of days that have ended,
and a row of day d is valid from d + 1. What the text calls a hash, a field or JSON is a tuple here.

    Lake     one Delta table: its commits, each the whole set of keys of one day
    Bucket   one bucket of Redis keys with its hash: what one call sees and changes as a whole
    Chunk    one call of a push;  Step  one call of a wipe
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias

GRACE = 1  # days an expired row is kept
PER_TABLE = "table"
WIPING = "wiping"


class Rules(NamedTuple):
    """The guards. Each can be taken away, to see which history needs it."""

    by_version: bool = True  # rows are ordered by table version, not by (day, revision)
    seals_with_rows: bool = True  # a bucket's seal is lost or rolled back with its rows
    refuse_gap: bool = True
    compare_seal: bool = True
    heed_newest: bool = True  # rows are written uncompared only while nothing newer can be there
    newest_by_wipe: bool = True  # only a wipe, when no row is left, says that nothing is newer
    tombstones: bool = True
    every_revision: bool = True  # also those between the sealed and the current one
    name_wipes: bool = True  # a wipe's calls count for that wipe only
    count_wipes: bool = True  # a wipe notices that one of its calls was lost
    clock_after_head: bool = True  # "has ended" is asked after the table's version is pinned
    claimed_only: bool = (
        True  # a bucket that belongs to no table takes no push: it is emptied first
    )


SHIPPED = Rules(claimed_only=False)  # see the test of what that one would be good for


class Lake(NamedTuple):
    table: int
    commits: tuple[tuple[int, frozenset[int]], ...] = ()

    @property
    def version(self) -> int:
        """Of the newest commit; -1 if there is none."""
        return len(self.commits) - 1


class Seal(NamedTuple):
    table: int
    version: int
    days: tuple[tuple[int, int], ...]  # day, revision


class Row(NamedTuple):
    """A stored value. The table is known to the model only, as what the columns would say."""

    version: int
    day: int
    revision: int
    removed: bool
    table: int
    until: int | None = None  # Redis drops it when more days have ended than this


class Wipe(NamedTuple):
    era: int
    steps: tuple[tuple[int, int], ...]  # wiper, last step that arrived


class Bucket(NamedTuple):
    rows: tuple[Row | None, ...]
    lost: tuple[int, ...]  # for the checks only: version of a row that was evicted, or -1
    seal: Seal | None = None
    claim: tuple[str, int] | None = None
    newest: int | None = None
    pushes: tuple[tuple[int, int], ...] = ()  # push, last chunk that arrived
    wipe: Wipe | None = None

    def forgotten(self) -> "Bucket":
        """The bucket without its hash."""
        return Bucket(self.rows, self.lost)


class Chunk(NamedTuple):
    push: int
    bucket: int
    number: int
    table: int
    version: int
    rows: tuple[tuple[int, Row], ...]  # place in the bucket, row
    started_from: Seal | None
    seal: Seal | None  # only in the bucket's last chunk


class Step(NamedTuple):
    wiper: int
    bucket: int
    kind: str  # begin, rows, finish
    table: int
    era: int = 0
    number: int = 0
    places: tuple[int, ...] = ()
    own_rows_too: bool = True  # else a bucket that belongs to the table by now is spared


Counts: TypeAlias = tuple[int, int, int]  # written, removed, superseded
SPARED = -1


def empty(rows: int) -> Bucket:
    """A bucket as a new server has it."""
    return Bucket((None,) * rows, (-1,) * rows)


def take(bucket: Bucket, chunk: Chunk, rules: Rules, now: int) -> tuple[Bucket, Counts | str]:
    """What a chunk makes of a bucket, and the answer: counts, or which rule refused it."""
    if chunk.seal is not None and bucket.seal == chunk.seal:
        return bucket, (0, 0, 0)
    claims = {(PER_TABLE, chunk.table)} if rules.claimed_only else {None, (PER_TABLE, chunk.table)}
    if bucket.claim not in claims:
        return bucket, "LSTABLE"
    if rules.compare_seal and bucket.seal != chunk.started_from:
        return bucket, "LSSEAL"
    pushes = dict(bucket.pushes)
    last = pushes.get(chunk.push, 0)
    if rules.refuse_gap and chunk.number > last + 1:
        return bucket, "LSGAP"
    known = bucket.newest is not None and chunk.version >= bucket.newest
    rows, lost, counts = list(bucket.rows), list(bucket.lost), [0, 0, 0]
    for place, row in chunk.rows:
        stored = rows[place]
        if not (known or not rules.heed_newest) and stored and _older(row, stored, rules):
            counts[2] += 1
            continue
        counts[row.removed] += 1
        rows[place] = _kept(row, stored, now)
        if row.version >= lost[place]:
            lost[place] = -1
    newest = bucket.newest
    if newest is not None or not rules.newest_by_wipe:
        newest = max(newest or 0, chunk.version)
    pushes[chunk.push] = max(last, chunk.number)
    changed = Bucket(
        tuple(rows),
        tuple(lost),
        seal=chunk.seal or bucket.seal,
        claim=(PER_TABLE, chunk.table),
        newest=newest,
        pushes=() if chunk.seal else tuple(sorted(pushes.items())),
    )
    return changed, (counts[0], counts[1], counts[2])


def _older(row: Row, stored: Row, rules: Rules) -> bool:
    if rules.by_version:
        return row.version < stored.version
    return (row.day, row.revision) < (stored.day, stored.revision)


def _kept(row: Row, stored: Row | None, now: int) -> Row:
    """The row with the key's expiry: only upward, and never in the past."""
    if row.until is None:
        return row
    until = max(row.until, now)
    return row._replace(until=until if stored is None else max(until, stored.until or 0))


def wipe(bucket: Bucket, step: Step, rules: Rules, era: int) -> tuple[Bucket, int | None]:
    """What a step of a wipe makes of a bucket; the wipe's era (SPARED), or None if it is refused.

    Args:
        era: A number that was never used before; for a wipe that begins.
    """
    wiping = (WIPING, step.table)
    if step.kind == "begin" and not step.own_rows_too and bucket.claim == (PER_TABLE, step.table):
        return bucket, SPARED
    if step.kind == "begin":
        under_way = bucket.wipe if bucket.claim == wiping else None
        found = under_way or Wipe(era if rules.name_wipes else 0, ())
        steps = {step.wiper: 0, **dict(found.steps)}
        joined = Wipe(found.era, tuple(sorted(steps.items())))
        return Bucket(bucket.rows, bucket.lost, claim=wiping, wipe=joined), found.era
    if bucket.claim != wiping or bucket.wipe is None:
        return bucket, None
    steps = dict(bucket.wipe.steps)
    if rules.name_wipes and (bucket.wipe.era != step.era or step.wiper not in steps):
        return bucket, None
    if rules.count_wipes and step.number > steps.get(step.wiper, 0) + 1:
        return bucket, None
    if step.kind == "finish":
        newest = 0 if rules.by_version else None
        whole = (-1,) * len(bucket.rows)
        return Bucket(bucket.rows, whole, claim=(PER_TABLE, step.table), newest=newest), step.era
    rows = tuple(None if n in step.places else row for n, row in enumerate(bucket.rows))
    steps[step.wiper] = max(step.number, steps.get(step.wiper, 0))
    counted = Wipe(bucket.wipe.era, tuple(sorted(steps.items())))
    return bucket._replace(rows=rows, wipe=counted), step.era


@lru_cache(maxsize=50_000)
def revisions(lake: Lake, version: int) -> dict[int, tuple[frozenset[int], ...]]:
    """Day → its keys in every revision up to a version, the first one first."""
    found: dict[int, tuple[frozenset[int], ...]] = {}
    for day, keys in lake.commits[: version + 1]:
        found[day] = (*found.get(day, ()), keys)
    return found


@lru_cache(maxsize=50_000)
def latest(lake: Lake, version: int, key: int, now: int) -> tuple[int, int] | None:
    """Day and revision of the key's latest row among the days that have ended; None if none."""
    days = revisions(lake, version)
    found = [day for day, sets in days.items() if day < now and key in sets[-1]]
    return (max(found), len(days[max(found)])) if found else None


def valid(day: int, ttl: int | None, now: int) -> bool:
    """Whether a reader counts a row of the day."""
    return day + 1 <= now and (ttl is None or now <= day + 1 + ttl)


@lru_cache(maxsize=50_000)
def sealed_days(lake: Lake, version: int, now: int) -> tuple[tuple[int, int], ...]:
    """Day → revision of every committed day that has ended."""
    days = revisions(lake, version).items()
    return tuple(sorted((day, len(sets)) for day, sets in days if day < now))


@lru_cache(maxsize=50_000)
def rows_to_push(
    lake: Lake, now: int, changed: tuple[tuple[int, int], ...], ttl: int | None, rules: Rules
) -> tuple[tuple[int, Row], ...]:
    """Key and row or tombstone of every affected entity.

    Args:
        changed: Day → the oldest revision that some bucket has sealed of it, 0 if one has none.
    """
    days = revisions(lake, lake.version)
    alive = [d for d in days if d < now and (ttl is None or now <= d + 1 + ttl + GRACE)]
    relevant = {day: since for day, since in changed if day in alive}
    affected: set[int] = set()
    for day, since in relevant.items():
        sets = days[day]
        of_day = sets[max(since - 1, 0) :]
        affected.update(*(of_day if rules.every_revision else (of_day[0], sets[-1])))
    pushed = []
    for key in sorted(affected):
        with_key = [day for day in alive if key in days[day][-1]]
        if not with_key and not rules.tombstones:
            continue
        day = max(with_key or relevant)
        until = None if ttl is None else day + 1 + ttl + GRACE
        row = Row(lake.version, day, len(days[day]), not with_key, lake.table, until)
        pushed.append((key, row))
    return tuple(pushed)


def plan(
    lake: Lake,
    now: int,
    seals: tuple[Seal | None, ...],
    named: tuple[int, ...] | None,
    *,
    push: int,
    ttl: int | None,
    rules: Rules,
) -> tuple[Chunk, ...]:
    """The calls of one push, one row in each; empty if there is nothing to push.

    Args:
        seals: Of every bucket, as the planner read them before it pinned the table.
        named: The days that were asked for; None is all.
    """
    ended = sealed_days(lake, lake.version, now)
    wanted = {day: revision for day, revision in ended if named is None or day in named}
    known = [dict(seal.days) if seal else {} for seal in seals]
    changed = tuple(
        (day, min(of_bucket.get(day, 0) for of_bucket in known))
        for day, revision in wanted.items()
        if any(of_bucket.get(day) != revision for of_bucket in known)
    )
    newer = any(s and s.table == lake.table and s.version > lake.version for s in seals)
    if not changed or newer:
        return ()
    rows = rows_to_push(lake, now, changed, ttl, rules)
    chunks: list[Chunk] = []
    for bucket, before in enumerate(seals):
        mine = [(key // len(seals), row) for key, row in rows if key % len(seals) == bucket]
        days = tuple(sorted({**known[bucket], **wanted}.items()))
        seal = Seal(lake.table, lake.version, days)
        carried: list[tuple[tuple[tuple[int, Row], ...], Seal | None]]
        carried = [*(((row,), None) for row in mine), ((), seal)]
        chunks += [
            Chunk(push, bucket, number, lake.table, lake.version, of_chunk, before, last)
            for number, (of_chunk, last) in enumerate(carried, 1)
        ]
    return tuple(chunks)
