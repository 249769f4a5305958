"""Online against offline, byte for byte except the version: the parity sentence.

A small view is compared whole. Of a large one a sample of its entities is, chosen by a hash of the
key, so that both sides look at the same ones: Delta is filtered by it, Redis is asked for those
keys. Entities that are online only are looked for among the sampled keys of a bounded scan. The
sample of another day is another one.

Both sides are read one after the other. Where something differs, and something was committed or
sealed meanwhile, they are compared again.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.codec import RowCodec, decode_key, encode_keys
from lockstep.differing import (
    PENDING,
    Difference,
    Kind,
    Sides,
    examples_of,
    likely_cause,
    unblamed,
)
from lockstep.errors import InputError
from lockstep.lake import Lake
from lockstep.layout import Seal
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.time import as_of, decode_revisions, is_valid, span
from lockstep.view import FeatureView

__all__ = [
    "UNPUSHED",
    "Difference",
    "Kind",
    "Parity",
    "only_wait",
    "parity",
    "unsealed_days",
    "valid_rows",
]

UNPUSHED: Final = timedelta(minutes=30)
"""How long committed days may wait for their push after the newest of them was committed: a run
commits all of its days, and then pushes them."""
LONGEST_RUN: Final = timedelta(hours=6)
"""How long each of them may: whoever commits something every few minutes hides no broken push."""

EXAMPLES: Final = 2
"""Of each kind."""
SCAN_CALLS: Final = 200
"""How much of a server is walked for entities that are online only: some 200,000 keys."""
_COMPARISONS: Final = 3
_FETCH: Final = 1_000
_BLOCK: Final = 50_000
_HASHES: Final = 2**64


@dataclass(frozen=True)
class Parity:
    """The comparison of one view at one instant.

    Attributes:
        entities: Compared entities: those with a valid row on either side.
        equal: Those whose bytes agree.
        unsealed: Committed days that the online store has not sealed.
        examples: The first differences of each kind.
        stale: Entities that are served an older revision or version than is committed; these are
            not among `mismatch`.
        sampled: How many of the view's entities offline were compared; None if all were.
        of: How many it has offline, if a sample was compared.
        cause: The likely causes in words, the most frequent first; empty if nothing differs.
        waits: Whether all that is wrong is that days of the last minutes wait for their push, see
            `only_wait`.
        pushed: Whether any bucket has a seal. Where none has, nothing was pushed or all was lost.
        moving: Whether something was committed or sealed during each of three comparisons, so that
            nobody can say why the rest differs.
    """

    view: str
    at: datetime
    entities: int
    equal: int
    mismatch: int
    missing: int
    extra: int
    unsealed: Sequence[date]
    examples: Sequence[Difference]
    stale: int = 0
    sampled: int | None = None
    of: int | None = None
    cause: str = ""
    waits: bool = False
    pushed: bool = True
    moving: bool = False

    @property
    def holds(self) -> bool:
        """Whether online equals offline and every committed day is sealed."""
        return self.equal == self.entities and not self.unsealed

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.holds:
            compared = f"all {self.entities} entities"
            if self.sampled is not None:
                compared = f"a sample of {self.sampled} of {self.of} entities"
            return f"{self.view}: online equals offline for {compared}."
        parts = [
            f"{count} {kind}"
            for kind, count in (
                ("differ", self.mismatch),
                ("are stale", self.stale),
                ("are missing online", self.missing),
                ("are online only", self.extra),
            )
            if count
        ]
        behind = f"; {self._waiting}" if self.unsealed else ""
        shown = ", ".join(f"{d.kind} {d.key}" for d in self.examples)
        sample = "" if self.sampled is None else f" (a sample of {self.of})"
        cause = f" Likely cause: {self.cause}." if self.cause else ""
        return (
            f"{self.view}: of {self.entities} entities{sample} {' and '.join(parts) or 'all agree'}"
            f"{behind}{f' (e.g. {shown})' if shown else ''}.{cause} {self._advice}"
        )

    @property
    def waiting(self) -> str:
        """What is said where nothing but a push is waited for."""
        minutes = UNPUSHED // timedelta(minutes=1)
        return (
            f"{self.view}: {self._waiting}, the newest of them committed less than {minutes} "
            f"minutes ago. Until the push, {self.entities - self.equal} of {self.entities} "
            "entities are served as they were before."
        )

    @property
    def _waiting(self) -> str:
        count = len(self.unsealed)
        days = "1 day is" if count == 1 else f"{count} days are"
        return f"{days} committed and not pushed yet ({span(self.unsealed)})"

    @property
    def _advice(self) -> str:
        if self.moving:
            return f"Compare again: lockstep parity {self.view}"
        rebuild = " --rebuild" if self.equal < self.entities and not self.unsealed else ""
        return f"Repair: lockstep push {self.view}{rebuild}"


def valid_rows(
    lake: Lake,
    view: FeatureView,
    at: datetime,
    *,
    head: Head | None = None,
    days: Collection[date] | None = None,
    only: pl.Expr | None = None,
) -> pl.DataFrame:
    """Return, per entity, the committed row that is valid at the instant, with day and revision.

    This is the event-mode point-in-time join over the head, for every entity there is.

    Args:
        head: What is committed, if the caller has just looked.
        days: Read these days only: no row of another one may be valid.
        only: Entities for which this holds; an expression over the key columns.
    """
    table, contract = lake.table(view), view.contract
    head = head or table.head()
    valid = pl.col("event_timestamp") <= at
    if contract.ttl is not None:
        valid &= at <= pl.col("event_timestamp") + contract.ttl
    if only is not None:
        valid &= only
    revisions = pl.LazyFrame(
        {"day": list(head.days), "revision": [record.revision for record in head.days.values()]},
        schema={"day": pl.Date, "revision": pl.Int64},
    )
    scan = (
        table.scan(days, version=head.version).filter(valid).join(revisions, on="day", how="left")
    )
    with answering(f"The table {table.uri}"):
        rows = scan.collect(engine="in-memory")
    rows = rows.sort("event_timestamp", maintain_order=True)
    return rows.unique(contract.keys, keep="last", maintain_order=True)


def parity(lake: Lake, online: OnlineStore, view: FeatureView, at: datetime) -> Parity:
    """Compare the view's entities on both sides at the instant (normally now).

    All of them, or a sample if there are more than the contract's `parity`. If anything differs,
    and something was committed or sealed while they were read, they are compared again, three times
    at most.
    """
    zone, moving = lake.project.zone, True
    for _ in range(_COMPARISONS):
        head, seals = lake.table(view).head(), _seals(online, view)
        sides, total = _read(lake, online, view, at, head)
        differences = sides.differences()
        unsealed = _unsealed(head, sides.seals, zone, at)
        if not (differences or unsealed) or not _moved(lake, online, view, head, seals):
            moving = False
            break
    if moving:
        differences = [unblamed(difference) for difference in differences]
    pending = PENDING.issuperset(each.cause for each in differences)
    lost = any(seals.values()) and None in seals.values()
    return Parity(
        view=view.name,
        at=at,
        entities=sides.entities,
        equal=sides.entities - len(differences),
        mismatch=_count(differences, "mismatch"),
        missing=_count(differences, "missing"),
        extra=_count(differences, "extra"),
        unsealed=unsealed,
        examples=examples_of(differences, EXAMPLES),
        stale=_count(differences, "stale"),
        sampled=None if total is None else len(sides.expected),
        of=total,
        cause=likely_cause(differences),
        waits=bool(unsealed) and pending and not lost and only_wait(unsealed, head, zone, at),
        pushed=any(seals.values()),
        moving=moving and any(each.cause == "moving" for each in differences),
    )


def _read(
    lake: Lake, online: OnlineStore, view: FeatureView, at: datetime, head: Head
) -> tuple[Sides, int | None]:
    """Return both sides; and of how many entities, if they are of a sample."""
    entity = view.contract.entity
    chosen, total = _sample(lake, view, head, at)
    rows = valid_rows(lake, view, at, head=head, only=chosen)
    packed = RowCodec(view.contract.feature_types).encode(rows, version=0)
    keys = encode_keys(rows, view.contract.keys)
    expected = dict(zip(keys.to_list(), packed.to_list(), strict=True))
    if chosen is None:
        stored: Mapping[bytes, bytes] = dict(online.scan(entity.name, view.name))
    else:
        found = _chosen_keys(online, view, chosen) - expected.keys()
        stored = _fetched(online, view, [*expected, *sorted(found)])
    evicting = _evicting(online)
    seals = _seals(online, view)
    return Sides(expected, stored, head, seals, view.contract.ttl, at, evicting), total


def _moved(
    lake: Lake, online: OnlineStore, view: FeatureView, head: Head, seals: Mapping[int, Seal | None]
) -> bool:
    """Whether something was committed or sealed since that was what there was."""
    now = lake.table(view).head()
    return (now.table_id, now.version) != (head.table_id, head.version) or seals != _seals(
        online, view
    )


def _seals(online: OnlineStore, view: FeatureView) -> dict[int, Seal | None]:
    entity = view.contract.entity
    return online.seals(entity.name, view.name, entity.buckets)


def _count(differences: Iterable[Difference], kind: Kind) -> int:
    return sum(difference.kind == kind for difference in differences)


def _evicting(online: OnlineStore) -> bool:
    return any(
        info.evicted_keys > 0 and info.maxmemory_policy != "noeviction"
        for info in online.nodes().values()
    )


def _sample(
    lake: Lake, view: FeatureView, head: Head, at: datetime
) -> tuple[pl.Expr | None, int | None]:
    """Return which entities are compared, and of how many; (None, None) for all of them."""
    limit = view.contract.parity
    zone, ttl = lake.project.zone, view.contract.ttl
    days = [day for day in head.days if is_valid(as_of(day, zone), ttl, at)]
    if limit == "all" or sum(head.days[day].rows for day in days) <= limit:
        return None, None
    table = lake.table(view)
    entities = table.scan(days, version=head.version).select(view.contract.keys).unique()
    with answering(f"The table {table.uri}"):
        total = int(entities.select(pl.len()).collect(engine="streaming").item())
    if total <= limit:
        return None, None
    below = pl.lit(math.floor(limit / total * _HASHES), pl.UInt64)
    return pl.struct(view.contract.keys).hash(at.date().toordinal()) < below, total


def _chosen_keys(online: OnlineStore, view: FeatureView, chosen: pl.Expr) -> set[bytes]:
    """Return those keys of the sample that a bounded scan of the server meets."""
    contract = view.contract
    types = {name: contract.columns[name] for name in contract.keys}
    walked = list(online.entity_keys(contract.entity.name, SCAN_CALLS))
    found: set[bytes] = set()
    for start in range(0, len(walked), _BLOCK):
        readable = dict(_readable(walked[start : start + _BLOCK], types))
        frame = pl.DataFrame(list(readable.values()), schema=types, orient="row")
        kept = frame.select(chosen.alias("kept"))["kept"].to_list()
        found |= {key for key, keep in zip(readable, kept, strict=True) if keep}
    return found


def _readable(
    keys: Iterable[bytes], types: Mapping[str, pl.DataType]
) -> Iterator[tuple[bytes, tuple[int | str, ...]]]:
    """Yield the keys that the entity can have, with their values: no reader asks for others."""
    kinds = [str if dtype == pl.String else int for dtype in types.values()]
    for key in keys:
        try:
            values = decode_key(key)
        except InputError:
            continue
        if [type(value) for value in values] == kinds:
            yield key, values


def _fetched(
    online: OnlineStore, view: FeatureView, keys: Sequence[bytes]
) -> Mapping[bytes, bytes]:
    """Return what is stored under the keys, in requests short enough for readers beside it."""
    entity = view.contract.entity
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _FETCH):
        some = keys[start : start + _FETCH]
        answers = online.fetch(entity.name, some, [view.name], entity.buckets)
        stored = zip(some, answers, strict=True)
        found.update((key, value) for key, (value,) in stored if value is not None)
    return found


def unsealed_days(
    lake: Lake, online: OnlineStore, view: FeatureView, at: datetime | None = None
) -> list[date]:
    """Return the committed days that some bucket has not sealed at their present revision.

    Args:
        at: Leave out days that have not ended then: those are never pushed.
    """
    head = lake.table(view).head()
    return _unsealed(head, _seals(online, view), lake.project.zone, at)


def _unsealed(
    head: Head, seals: Mapping[int, Seal | None], zone: ZoneInfo, at: datetime | None
) -> list[date]:
    behind: set[date] = set()
    for text in {s.days if s and s.table_id == head.table_id else "" for s in seals.values()}:
        sealed = decode_revisions(text)
        behind |= {day for day, record in head.days.items() if sealed.get(day) != record.revision}
    return sorted(day for day in behind if at is None or as_of(day, zone) <= at)


def only_wait(days: Collection[date], head: Head, zone: ZoneInfo, at: datetime) -> bool:
    """Whether committed days wait for nothing but the push that ends the run that commits them.

    A run that computes many days commits them by and by and pushes them last. So the newest of them
    was committed less than `UNPUSHED` ago, and each less than `LONGEST_RUN`.

    Args:
        days: Days of the head that are not pushed; at least one.
        zone: Of the days: one that has not ended is not pushed before it has.
    """
    since = [max(head.days[day].known_at, as_of(day, zone)) for day in days]
    return at - max(since) < UNPUSHED and at - min(since) < LONGEST_RUN
