"""What the feature service says about a view without reading Delta: its facts, kept online.

Whoever pushes publishes them after the seal, and again whenever they are not what they should be.
They are for people and dashboards: nothing decides by them, so a publication that is lost costs a
number on a page, until the next push or look, and no row.
"""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from lockstep.freshness import data_through
from lockstep.lake import Lake
from lockstep.layout import Seal
from lockstep.metrics import audit_numbers, windows_over
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.time import as_of, decode_revisions, micros
from lockstep.view import FeatureView


def publish(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    at: datetime,
    *,
    head: Head | None = None,
    seals: Mapping[int, Seal | None] | None = None,
) -> None:
    """Replace the view's facts online by those of an instant, normally now.

    Args:
        head: What is committed, if the caller has just looked; else Delta is asked.
        seals: The seal of every bucket, if the caller knows them; else Redis is asked.

    Raises:
        StoreError: The view was never built, or the lake does not answer.
        OnlineError: The online store does not answer, or a seal cannot be read.
    """
    entity = view.contract.entity
    if seals is None:
        seals = online.seals(entity.name, view.name, entity.buckets)
    found = facts(lake, view, head or lake.table(view).head(), seals, at)
    online.note("facts", view.name, _text(found))


def corrected(
    kept: str | None,
    lake: Lake,
    view: FeatureView,
    head: Head,
    seals: Mapping[int, Seal | None],
    at: datetime,
) -> str | None:
    """Return what should be kept online instead of `kept`; None if that says the same.

    They differ when they were lost or damaged, or when a push ended between seal and publication.
    """
    found = facts(lake, view, head, seals, at)
    try:
        said = json.loads(kept or "")
    except (ValueError, RecursionError):
        said = None
    same = isinstance(said, dict) and {**said, "at_us": found["at_us"]} == found
    return None if same else _text(found)


def _text(found: Mapping[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":"), sort_keys=True, allow_nan=False)


def facts(
    lake: Lake, view: FeatureView, head: Head, seals: Mapping[int, Seal | None], at: datetime
) -> dict[str, Any]:
    """Return the view's facts as JSON-able values; instants are microseconds since 1970 UTC.

    `data_through_us` is the event time up to which the committed days have data, `sealed_day` the
    newest day that every bucket has sealed (None: none), `day_end_us` its end, `rows` its committed
    rows. Fill rates, PSI and the new-entity rate are those of the newest committed day's audit;
    `psi_windows_over` are the committed days in a row over a feature's drift limit.
    """
    through, numbers, day = data_through(head), _finite(head), sealed_day(head, seals)
    record = head.days.get(day) if day else None
    return {
        "data_through_us": None if through is None else micros(through),
        "sealed_day": None if day is None else str(day),
        "day_end_us": None if day is None else micros(as_of(day, lake.project.zone)),
        "rows": 0 if record is None else record.rows,
        "fill_rate": _per_feature(view, numbers, "fill_rate"),
        "psi": _per_feature(view, numbers, "psi"),
        "psi_windows_over": windows_over(view, head),
        "new_entity_rate": numbers.get("new_entity_rate"),
        "at_us": micros(at),
    }


def sealed_day(head: Head, seals: Mapping[int, Seal | None]) -> date | None:
    """Return the newest day that every bucket has sealed for the table; None if there is none."""
    sealed = [
        set(decode_revisions(seal.days)) if seal and seal.table_id == head.table_id else set()
        for seal in seals.values()
    ]
    return max(set.intersection(*sealed), default=None) if sealed else None


def _finite(head: Head) -> dict[str, float]:
    return {name: value for name, value in audit_numbers(head).items() if math.isfinite(value)}


def _per_feature(view: FeatureView, numbers: Mapping[str, float], kind: str) -> dict[str, float]:
    return {
        name: numbers[f"{kind}:{name}"]
        for name in view.contract.features
        if f"{kind}:{name}" in numbers
    }
