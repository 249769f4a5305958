"""Drift → training set: a spine and a request, written once into the lake for the sensor to build.

Nobody knows the labels, so the spine has none: it is every entity that was valid at the end of each
of the last 28 committed days, and whoever trains joins labels by keys and event_timestamp.
"""

import io
from dataclasses import replace
from datetime import date
from typing import Final

import polars as pl
import yaml

from lockstep.alerts.deliver import change
from lockstep.alerts.state import Retraining, State, States
from lockstep.errors import LockstepError
from lockstep.lake import Lake
from lockstep.store import Store
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.time import as_of
from lockstep.training.request import FOLDER, LAKE, SUFFIX
from lockstep.view import FeatureView

SPINES: Final = "spines/drift"
DAYS: Final = 28
MOST_ROWS: Final = 1_000_000
"""Of a spine; of more, entities are drawn, each with all its days or none."""

_HASHES: Final = 2**64
_SEED: Final = 20


def write_requests(store: Store, states: States, state: State) -> dict[str, str]:
    """Write the spines and requests that a state wants and that are not written yet.

    Written twice, at once or after a crash, they are the same files: what is there stays.

    Returns:
        Name → why it could not be written; the next call tries again.
    """
    failed: dict[str, str] = {}
    for name, wanted in state.retraining.items():
        if wanted.written:
            continue
        try:
            _write(store, name, wanted)
        except LockstepError as error:
            failed[name] = str(error)
            continue
        change(states, lambda newest, name=name: _marked(newest, name))  # type: ignore[misc]
    return failed


def _marked(state: State, name: str) -> State:
    if name not in state.retraining:
        return state
    written = replace(state.retraining[name], written=True)
    return replace(state, retraining={**state.retraining, name: written})


def _write(store: Store, name: str, wanted: Retraining) -> None:
    place = store.lake.place
    request, spine = f"{FOLDER}/{name}{SUFFIX}", f"{SPINES}/{name}.parquet"
    if place.exists(request):
        return
    if not place.exists(spine):
        content = io.BytesIO()
        spine_of(store.lake, store.catalog.view(wanted.view)).write_parquet(content)
        place.write_if_absent(spine, content.getvalue())
    place.write_if_absent(request, request_text(store, wanted, f"{LAKE}{spine}").encode())


def request_text(store: Store, wanted: Retraining, spine: str) -> str:
    """Return the request file: what an analyst would have written."""
    chosen = store.catalog.feature_set(wanted.feature_set)
    said = {
        "spine": spine,
        "feature_set": wanted.feature_set,
        "mode": "event",
        **({"owner": chosen.owner} if chosen.owner else {}),
        "description": f"{', '.join(wanted.features)} drifted on {wanted.days[0]} to "
        f"{wanted.days[-1]}. Without labels: join yours by keys and event_timestamp.",
    }
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1000)
    return text


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
        parts.append(found.with_columns(event_timestamp=pl.lit(at, pl.Datetime("us", "UTC"))))
    return pl.concat(parts)


def _sampled(lake: Lake, view: FeatureView, head: Head, days: list[date]) -> pl.DataFrame:
    """Return keys and event_timestamp of what may be valid on the days, of a share of entities."""
    first, zone, ttl = as_of(days[0], lake.project.zone), lake.project.zone, view.contract.ttl
    until_then = (day for day in head.days if day <= days[-1])
    near = [day for day in until_then if ttl is None or as_of(day, zone) + ttl >= first]
    keys = view.contract.keys
    scan = lake.table(view).scan(near, version=head.version).select(*keys, "event_timestamp")
    share = min(1.0, MOST_ROWS / max(1, len(days) * max(head.days[day].rows for day in near)))
    if share < 1:
        drawn = pl.struct(keys).hash(_SEED) < pl.lit(int(share * _HASHES), pl.UInt64)
        scan = scan.filter(drawn)
    with answering(f"The table {lake.table(view).uri}"):
        return scan.collect(engine="streaming")
