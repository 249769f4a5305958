"""The two modes compared: what a set by event time holds that nobody could know at the time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from lockstep.training.join import join
from lockstep.training.order import Order, parts_for
from lockstep.training.parts import AT, read_part, write_parts
from lockstep.training.pins import Pinned
from lockstep.training.spine import instants
from lockstep.training.workspace import Workspace

if TYPE_CHECKING:
    from lockstep.store import Store
    from lockstep.training.keep import Progress


@dataclass(frozen=True)
class FeatureLeak:
    """How one feature differs between the modes.

    Attributes:
        feature: `view:feature`.
        rows: Rows of the spine.
        changed: Cells that differ at all.
        from_null: Cells that have a value by event time and none by known time.
        to_null: Cells that have a value by known time only.
        mean_difference: Mean of the absolute difference over changed cells that are finite numbers
            in both modes; None if there is none.
        largest_difference: The largest such difference.
    """

    feature: str
    rows: int
    changed: int
    from_null: int
    to_null: int
    mean_difference: float | None
    largest_difference: float | None

    @property
    def share(self) -> float:
        """Share of the cells that differ."""
        return self.changed / self.rows if self.rows else 0.0

    @property
    def sentence(self) -> str:
        """What a reader should know."""
        if not self.changed:
            return f"{self.feature}: no cell changes."
        by = ""
        if self.mean_difference is not None:
            by = (
                f", by {self.mean_difference:.4g} on average and {self.largest_difference:.4g} "
                "at most"
            )
        return (
            f"{self.feature}: {self.changed:,} of {self.rows:,} cells ({self.share:.1%}) hold what "
            f"was not known at their time{by}; {self.from_null:,} had no value then."
        )


@dataclass(frozen=True)
class Leakage:
    """What changes between mode "event" and mode "known" of one spine.

    Attributes:
        features: Most suspicious first: by the share of cells that change.
    """

    rows: int
    features: Sequence[FeatureLeak]

    @property
    def suspects(self) -> list[FeatureLeak]:
        """The features of which some cell changes, most suspicious first."""
        return [leak for leak in self.features if leak.changed]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "rows": self.rows,
            "features": [{**vars(leak), "share": leak.share} for leak in self.features],
        }


@dataclass
class _Count:
    changed: int = 0
    from_null: int = 0
    to_null: int = 0
    numbers: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, event: pl.Series, known: pl.Series) -> None:
        changed = event.ne_missing(known)
        self.changed += int(changed.sum())
        before, after = event.filter(changed), known.filter(changed)
        self.from_null += int((before.is_not_null() & after.is_null()).sum())
        self.to_null += int((before.is_null() & after.is_not_null()).sum())
        if not event.dtype.is_numeric():
            return
        apart = (before.cast(pl.Float64) - after.cast(pl.Float64)).abs().drop_nulls()
        apart = apart.filter(apart.is_finite())
        if len(apart):
            self.numbers += len(apart)
            self.total += float(apart.sum())
            self.largest = max(self.largest, float(apart.max()))  # type: ignore[arg-type]


class _Counts:
    def __init__(self, features: Sequence[str]) -> None:
        self._counts = {name: _Count() for name in features}

    def add(self, event: pl.DataFrame, known: pl.DataFrame) -> None:
        for name, count in self._counts.items():
            count.add(event[name], known[name])

    def report(self, rows: int) -> Leakage:
        found = [_leak(name, rows, count) for name, count in self._counts.items()]
        return Leakage(rows, sorted(found, key=lambda leak: (-leak.changed, -leak.from_null)))


def _leak(name: str, rows: int, count: _Count) -> FeatureLeak:
    known = count.numbers > 0
    return FeatureLeak(
        feature=name,
        rows=rows,
        changed=count.changed,
        from_null=count.from_null,
        to_null=count.to_null,
        # The sum depends on the parts in its last bits only.
        mean_difference=float(f"{count.total / count.numbers:.12g}") if known else None,
        largest_difference=count.largest if known else None,
    )


def compare_modes(store: "Store", asked: Order, progress: "Progress | None" = None) -> Leakage:
    """Join in both modes and compare; nothing is kept.

    Raises:
        StoreError: The lake does not answer, or the content of a day is gone.
    """
    counts, parts = _Counts(asked.pinned.features), parts_for(asked)
    if not parts:
        spine = asked.spine.collect()
        pinned = asked.pinned
        at = instants(spine[pinned.timestamp], pinned.time_zone, pinned.zone)
        _compare(store, pinned, spine.select(pinned.key_columns), at, counts)
        return counts.report(spine.height)
    workspace = Workspace(None)
    # Both modes of a part are in memory at a time.
    written = write_parts(asked.spine, asked.pinned, workspace, min(2 * parts, asked.spine.rows))
    for number in range(len(written.parts)):
        if progress is not None:
            progress("comparing", number, len(written.parts))
        rows, _ = read_part(workspace, number)
        _compare(store, asked.pinned, rows, rows[AT], counts)
    return counts.report(asked.spine.rows)


def _compare(
    store: "Store", pinned: Pinned, keys: pl.DataFrame, at: pl.Series, counts: _Counts
) -> None:
    event = join(store.lake, pinned, keys, at, "event").features
    known = join(store.lake, pinned, keys, at, "known").features
    counts.add(event, known)
