"""The point-in-time join of a spine, or a part of one, with every view that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.lake import Lake
from lockstep.stores.causes import answering
from lockstep.training.manifest import Mode, ViewPin
from lockstep.training.memory import row_bytes
from lockstep.training.pins import Pinned, PinnedView
from lockstep.training.pit import Asked, Moments, ask, find
from lockstep.training.pit_gather import gather

MATCHED, UNMATCHED, EXPIRED = 0, 1, 2


@dataclass(frozen=True)
class Found:
    """What one view gives to rows of a spine, in their order.

    Attributes:
        view: The view.
        features: A column `view:feature` per feature.
        status: `MATCHED`, `UNMATCHED` or `EXPIRED` per row.
        age_us: Timestamp less event_timestamp, microseconds; -1 where nothing was found.
    """

    view: str
    features: pl.DataFrame
    status: NDArray[np.uint8]
    age_us: NDArray[np.int64]


@dataclass(frozen=True)
class Joined:
    """What all views give to rows of a spine.

    Attributes:
        features: A column per feature, in asked order.
        found: The same by view.
    """

    features: pl.DataFrame
    found: Sequence[Found]


def join(
    lake: Lake, pinned: Pinned, keys: pl.DataFrame, at: pl.Series, mode: Mode | None = None
) -> Joined:
    """Return the features of rows of a spine, each with the value that was valid at its instant.

    Args:
        keys: Every key column of every view.
        at: The instants: microseconds UTC (Int64), null where there is none.
        mode: Another mode than the one that was asked for.

    Raises:
        StoreError: A version, or the content of a day, is gone.
        InputError: A key column has another type.
    """
    moments = Moments.among(at)
    asked: dict[tuple[str, ...], Asked] = {}
    found = []
    with answering(f"The lake {lake.place.uri}"):
        for pin in pinned.views:
            columns = tuple(pin.keys)
            if columns not in asked:
                asked[columns] = ask(keys.select(columns), moments)
            view = PinnedView(pin, lake, pinned.zone)
            found.append(_join_view(view, asked[columns], mode or pinned.mode))
    return Joined(_in_order(pinned.features, found, len(at)), found)


def _in_order(features: Sequence[str], found: Sequence[Found], rows: int) -> pl.DataFrame:
    columns: Mapping[str, pl.Series] = {
        name: item.features[name] for item in found for name in item.features.columns
    }
    chosen = [columns[name] for name in features]
    return pl.DataFrame(chosen) if rows else pl.DataFrame(chosen).clear()


def _join_view(view: PinnedView, asked: Asked, mode: Mode) -> Found:
    pin, rows = view.pin, asked.moments.rows
    slices = view.slices(mode)
    if not slices:
        return _nothing(pin, rows)
    source = view.reader
    hits = find(asked, slices, source, pin.ttl)
    width = row_bytes(pin.features, pin.widths)
    values = gather(hits, slices, source, list(pin.features), pin.features, width=width)
    status = np.where(hits.piece >= 0, MATCHED, np.where(hits.expired, EXPIRED, UNMATCHED))
    return Found(
        pin.view,
        values.rename({name: f"{pin.view}:{name}" for name in pin.features}),
        status.astype(np.uint8),
        hits.age_us,
    )


def _nothing(pin: ViewPin, rows: int) -> Found:
    return Found(
        pin.view,
        pl.DataFrame(
            [
                pl.Series(f"{pin.view}:{name}", [None], dtype=dtype).new_from_index(0, rows)
                for name, dtype in pin.features.items()
            ]
        ),
        np.full(rows, UNMATCHED, dtype=np.uint8),
        np.full(rows, -1, dtype=np.int64),
    )
