"""A random sample of a view's rows, online against Delta: how many are enough, and which differ.

Evictions and manual deletions leave seals intact, so rows themselves must be looked at. Each entity
is drawn independently with probability p. If L of them are lost, none of those is in the sample
with probability (1 − p)^L, so p = 1 − miss^(1/L) misses the loss with probability `miss`: for one
per cent of a million, 0.14 %, 1,381 entities. It is the bound of Ateniese et al., "Provable Data
Possession at Untrusted Stores" (CCS 2007, section 4.2), where 460 blocks see one per cent with
99 %. A small view is compared whole.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal, TypeAlias

import polars as pl

from lockstep.codec import RowCodec, encode_keys, header_of, without_version
from lockstep.errors import OnlineError
from lockstep.lake import Lake
from lockstep.parity import valid_rows
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.time import as_of, is_valid
from lockstep.view import FeatureView

Wrong: TypeAlias = Literal["missing", "different"]

LOSS: Final = 0.01
"""The share of a view's entities whose loss is seen with probability 1 − MISS at every look."""
DEEP_LOSS: Final = 0.001
"""The same after a server restarted, was promoted or evicted keys."""
MISS: Final = 1e-6
WHOLE: Final = 5_000
"""Views of up to so many entities are compared whole."""

_SPREAD: Final = 8
_FETCH: Final = 1_000  # keys per round trip; more would let readers wait
_HASHES: Final = 2**64


def share(entities: int, *, loss: float = LOSS, miss: float = MISS) -> float:
    """Return the probability with which each entity is drawn, 1 for a small view.

    Args:
        entities: How many there are, or fewer.
        loss: The share of them whose loss must be seen.
        miss: The probability with which it may go unseen.
    """
    lost = math.ceil(entities * loss)
    return 1.0 if entities <= WHOLE else 1 - math.exp(math.log(miss) / lost)


@dataclass(frozen=True)
class Sample:
    """What entities of one view must have online, as of one pinned version.

    Attributes:
        version: The Delta version that was read.
        expected: Entity key → packed row, its version blank.
        whole: Whether every entity with a valid row is in it.
    """

    version: int
    expected: Mapping[bytes, bytes]
    whole: bool


def valid_days(lake: Lake, view: FeatureView, head: Head, at: datetime) -> tuple[date, ...]:
    """Return the committed days whose rows are valid at the instant, oldest first."""
    zone, ttl = lake.project.zone, view.contract.ttl
    return tuple(day for day in sorted(head.days) if is_valid(as_of(day, zone), ttl, at))


def draw(
    lake: Lake, view: FeatureView, head: Head, at: datetime, *, loss: float, seed: int
) -> Sample:
    """Return a sample of the rows that are valid at the instant, read from the pinned version.

    Args:
        loss: The share whose loss the sample must see.
        seed: Which entities are drawn; the same ones for the same seed.

    Raises:
        StoreError: The table is damaged or does not answer.
        InputError: The table's columns are not those of the contract.
    """
    days = valid_days(lake, view, head, at)
    drawn = share(_fewest(lake, view, head, days), loss=loss)
    only = None if drawn == 1 else _hashed(view, seed) < pl.lit(int(drawn * _HASHES), pl.UInt64)
    rows = valid_rows(lake, view, at, head=head, days=days, only=only)
    packed = RowCodec(view.contract.feature_types).encode(rows, version=0).to_list()
    keys = encode_keys(rows, view.contract.keys).to_list()
    return Sample(head.version, dict(zip(keys, packed, strict=True)), whole=only is None)


def _hashed(view: FeatureView, seed: int) -> pl.Expr:
    return pl.struct(view.contract.keys).hash(seed)


def _fewest(lake: Lake, view: FeatureView, head: Head, days: Sequence[date]) -> int:
    """Return a number of entities that the view has at least, near enough to draw a sample by.

    A day has a row per entity, so its largest day is such a number. Where the days hold far more
    rows than that, their entities are counted.
    """
    counts = [head.days[day].rows for day in days]
    if sum(counts) <= _SPREAD * max([WHOLE, *counts]):
        return max(counts, default=0)
    table = lake.table(view)
    entities = table.scan(days, version=head.version).select(view.contract.keys).unique()
    with answering(f"The table {table.uri}"):
        return int(entities.select(pl.len()).collect(engine="streaming").item())


def settled_days(head: Head, sealed: Collection[Mapping[date, int]]) -> set[date]:
    """Return the days that every bucket has sealed at their committed revision.

    Args:
        sealed: Day → revision, of each bucket.
    """
    return {
        day
        for day, record in head.days.items()
        if all(known.get(day) == record.revision for known in sealed)
    }


def compare(
    online: OnlineStore,
    view: FeatureView,
    sample: Sample,
    settled: Collection[date],
    *,
    newest: int | None = None,
    keys: Collection[bytes] | None = None,
) -> dict[bytes, Wrong]:
    """Return the sampled entities whose row is not online, or not as it was committed.

    No difference is a row of a day that is still to be pushed or was restated since (`settled`
    names the others), and a row pushed from a later version than the sample's; but no row may come
    from a version that Delta does not have: no push could ever replace it.

    Args:
        newest: The newest committed version; with None every row of a later version than the
            sample's is returned, to be compared once more.
        keys: Compare only these of the sample.
    """
    entity = view.contract.entity
    wrong: dict[bytes, Wrong] = {}
    asked = list(sample.expected if keys is None else keys)
    for start in range(0, len(asked), _FETCH):
        chunk = asked[start : start + _FETCH]
        stored = online.fetch(entity.name, chunk, [view.name], entity.buckets)
        for key, (value,) in zip(chunk, stored, strict=True):
            expected = sample.expected[key]
            if value is None:
                if header_of(expected).day in settled:
                    wrong[key] = "missing"
            elif not _as_committed(value, expected, sample.version, newest, settled):
                wrong[key] = "different"
    return wrong


def _as_committed(
    value: bytes, expected: bytes, version: int, newest: int | None, settled: Collection[date]
) -> bool:
    try:
        header = header_of(value)
    except OnlineError:
        return False
    if header.version > version:  # another push's, which the caller has to look at again
        return newest is not None and header.version <= newest
    if without_version(value) == expected:
        return True
    return header_of(expected).day not in settled or header.day not in settled


def described(sample: Sample, wrong: Mapping[bytes, Wrong]) -> str:
    """Return what is wrong in one sentence. It names no entity: callers of the service read it."""
    looked = f"{len(wrong)} of {len(sample.expected)} entities"
    looked += "" if sample.whole else " of a random sample"
    lost = sum(kind == "missing" for kind in wrong.values())
    parts = [
        f"{count} {what}"
        for count, what in ((lost, "lost"), (len(wrong) - lost, "other than committed"))
        if count
    ]
    return f"{looked} are wrong online: {' and '.join(parts)}."
