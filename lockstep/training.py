"""The point-in-time join: for every spine row the values that were valid at its timestamp. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from lockstep.errors import InputError
from lockstep.time import INSTANT

_ROW: Final = "__lockstep_row"
_AT: Final = "__lockstep_at"
_FROM: Final = "__lockstep_event_timestamp"


@dataclass(frozen=True)
class Joined:
    """One view as the join sees it.

    Attributes:
        rows: Key columns, `event_timestamp` (UTC) and features; any order; at most one row per key
            and event_timestamp counts, the last one.
        features: The wanted features, named `view:feature` in the result.
        ttl: How long a row is valid after its event_timestamp; None is for ever.
    """

    view: str
    keys: Sequence[str]
    features: Sequence[str]
    rows: pl.LazyFrame
    ttl: timedelta | None


def point_in_time(spine: pl.DataFrame, timestamp: str, views: Sequence[Joined]) -> pl.DataFrame:
    """Return the spine with a column `view:feature` per wanted feature.

    A row counts while `event_timestamp <= t <= event_timestamp + ttl`, both ends included; of
    several the latest. Every spine row comes back once, in its order, with all its columns; where
    nothing is valid, or a key or the timestamp is null, the features are null.

    Args:
        spine: The entity keys of every view, an instant, and anything else.
        timestamp: Name of the instant column (UTC, microseconds).

    Raises:
        InputError: A key column is missing or has another type, or the timestamp is no instant.
    """
    _require_spine(spine, timestamp, views)
    result = spine
    for view in views:
        columns = _as_of_columns(spine, timestamp, view)
        result = result.hstack(columns)
    return result


def _as_of_columns(spine: pl.DataFrame, timestamp: str, view: Joined) -> pl.DataFrame:
    keys = list(view.keys)
    left = (
        spine.select(*keys, pl.col(timestamp).alias(_AT))
        .with_row_index(_ROW)
        .drop_nulls([*keys, _AT])
        .sort(_AT)
    )
    right = (
        view.rows.select(*keys, pl.col("event_timestamp").alias(_FROM), *view.features)
        .filter(pl.col(_FROM) <= pl.lit(left[_AT].max(), dtype=INSTANT))
        .join(left.lazy().select(keys).unique(), on=keys, how="semi")
        .collect(engine="in-memory")
        .unique([*keys, _FROM], keep="last", maintain_order=True)
        # join_asof(by=…) on unsorted input silently returns rows of the future.
        .sort(_FROM)
    )
    found = left.join_asof(
        right, left_on=_AT, right_on=_FROM, by=keys, strategy="backward", check_sortedness=False
    )
    valid = pl.col(_FROM).is_not_null()
    if view.ttl is not None:
        valid &= pl.col(_AT) <= pl.col(_FROM) + view.ttl
    columns = found.select(
        _ROW,
        *(
            pl.when(valid).then(pl.col(name)).otherwise(None).alias(f"{view.view}:{name}")
            for name in view.features
        ),
    )
    order = pl.DataFrame({_ROW: pl.arange(spine.height, eager=True, dtype=pl.UInt32)})
    return order.join(columns, on=_ROW, how="left", maintain_order="left").drop(_ROW)


def _require_spine(spine: pl.DataFrame, timestamp: str, views: Sequence[Joined]) -> None:
    if timestamp not in spine.columns:
        raise InputError(
            f"The spine has no column {timestamp!r}.",
            expected="the instant of every row",
            got=f"columns {spine.columns}",
            fix="Name the column: timestamp='…' (command line: --timestamp).",
        )
    if spine.schema[timestamp] != INSTANT:
        raise InputError(
            f"The spine's {timestamp!r} is {spine.schema[timestamp]}.",
            expected=str(INSTANT),
            fix="Convert it; a naive time needs its zone: time_zone='America/New_York' "
            "(command line: --time-zone).",
            effect="Nothing was joined.",
        )
    for view in views:
        types = view.rows.collect_schema()
        for key in view.keys:
            got = spine.schema.get(key)
            if got != types[key]:
                raise InputError(
                    f"The spine can't be joined with {view.view}: its key column {key!r} is "
                    f"{'missing' if got is None else got}.",
                    expected=str(types[key]),
                    fix=f"Add or cast the column: pl.col({key!r}).cast(pl.{types[key]}).",
                    effect="Nothing was joined.",
                )
    taken = [f"{view.view}:{name}" for view in views for name in view.features]
    if clash := sorted(set(taken) & set(spine.columns)):
        raise InputError(f"The spine already has columns {clash}.", fix="Rename them.")
