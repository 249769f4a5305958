"""The spine of a training set that drift asks for: entities, at the end of each of the last days.

Of a feature set with one entity: whoever was valid then. Of one that joins several, the lake does
not know which belong together, but the set that was trained on last does.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from typing import Final

import polars as pl

from lockstep.errors import InputError
from lockstep.lake import Lake
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.time import as_of
from lockstep.training.kept_sets import KeptSets
from lockstep.training.manifest import Manifest
from lockstep.view import FeatureView

DAYS: Final = 28
MOST_ROWS: Final = 1_000_000
"""Of a spine; of more, entities are drawn, each with all its days or none."""

INSTANT: Final = pl.Datetime("us", "UTC")
_HASHES: Final = 2**64
_SEED: Final = 20


def newest_kept(lake: Lake, feature_set: str) -> str:
    """Return the name of the newest kept set of a feature set; empty if there is none.

    Raises:
        StoreError: The lake does not answer.
    """
    found = [
        (made.created_at, made.name)
        for made in _readable(KeptSets(lake))
        if made.feature_set is not None
        and made.feature_set["name"] == feature_set
        and made.name is not None
        and "spine" in made.files
    ]
    return max(found)[1] if found else ""


def _readable(sets: KeptSets) -> Iterator[Manifest]:
    for name in sets.names():
        with suppress(InputError):  # a damaged one is told by `lockstep training-sets list`
            made = sets.find(name)
            if made is not None:
                yield made


def spine_for(lake: Lake, view: FeatureView, like: str = "") -> pl.DataFrame:
    """Return the spine for what drifts in a view.

    Args:
        like: Name of the kept set whose combinations of keys count; without it the entities of
            the view itself.

    Raises:
        UnknownNameError: That set is gone.
        InputError: Its manifest was changed.
        StoreError: The lake does not answer.
    """
    return spine_of(lake, view) if not like else spine_like(lake, view, like)


def spine_like(lake: Lake, view: FeatureView, like: str) -> pl.DataFrame:
    """Return a row per combination of keys in a kept set's spine and day; see `spine_for`.

    Of the last 28 committed days of the view. Columns: the keys of every view of the set, and the
    end of the day as event_timestamp. Sorted by day and keys.
    """
    sets = KeptSets(lake)
    made = sets.manifest(like)
    keys = list(dict.fromkeys(key for pin in made.views.values() for key in pin.keys))
    days = sorted(lake.table(view).head().days)[-DAYS:]
    path = sets.path(made, "spine") or ""
    options = lake.place.polars_options if lake.place.remote else None
    with answering(f"The spine of the training set {like}"):
        scan = pl.scan_parquet(path, glob=False, storage_options=options)
        known = scan.select(keys).drop_nulls().unique().collect(engine="streaming")
    share = min(1.0, MOST_ROWS / max(1, known.height * len(days)))
    known = known.filter(_drawn(keys, share)).sort(keys)
    ends = pl.Series("event_timestamp", [as_of(day, lake.project.zone) for day in days], INSTANT)
    return ends.to_frame().join(known, how="cross").select(*keys, "event_timestamp")


def spine_of(lake: Lake, view: FeatureView) -> pl.DataFrame:
    """Return a row per entity and day: its keys, and the end of the day as event_timestamp.

    Of the last 28 committed days; an entity has a row if one of the view's was valid then. Sorted
    by day and keys.

    Raises:
        StoreError: The table does not answer.
    """
    head, zone = lake.table(view).head(), lake.project.zone
    days = sorted(head.days)[-DAYS:]
    keys, ttl = view.contract.keys, view.contract.ttl
    rows = _sampled(lake, view, head, days)
    parts = []
    for day in days:
        at = as_of(day, zone)
        valid = pl.col("event_timestamp") <= at
        if ttl is not None:
            valid &= at <= pl.col("event_timestamp") + ttl
        found = rows.filter(valid).select(keys).unique().sort(keys)
        parts.append(found.with_columns(event_timestamp=pl.lit(at, INSTANT)))
    return pl.concat(parts)


def _sampled(lake: Lake, view: FeatureView, head: Head, days: list[date]) -> pl.DataFrame:
    """Return keys and event_timestamp of what may be valid on the days, of a share of entities."""
    first, zone, ttl = as_of(days[0], lake.project.zone), lake.project.zone, view.contract.ttl
    until_then = (day for day in head.days if day <= days[-1])
    near = [day for day in until_then if ttl is None or as_of(day, zone) + ttl >= first]
    keys = view.contract.keys
    scan = lake.table(view).scan(near, version=head.version).select(*keys, "event_timestamp")
    share = min(1.0, MOST_ROWS / max(1, len(days) * max(head.days[day].rows for day in near)))
    scan = scan.filter(_drawn(keys, share))
    with answering(f"The table {lake.table(view).uri}"):
        return scan.collect(engine="streaming")


def _drawn(keys: Sequence[str], share: float) -> pl.Expr:
    if share >= 1:
        return pl.lit(value=True)
    return pl.struct(keys).hash(_SEED) < pl.lit(int(share * _HASHES), pl.UInt64)
