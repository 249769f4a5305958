"""One pass over a frame: a small summary per column, and the stability index between summaries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from lockstep.schema import Contract, Feature

SKETCH_POINTS: Final = 64
BINS: Final = 10
SMALLEST_SHARE: Final = 1e-4
"""Stands in for an empty bin, whose logarithm would be infinite."""
TOP_VALUES: Final = 50

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnProfile:
    """What one column of one day looked like.

    Attributes:
        rows: Rows of the frame.
        missing: Rows without a value; NaN counts as none.
        sketch: 64 evenly spaced quantiles of the finite values of a numeric column.
        counts: Value → rows for a string or boolean column, the 50 most frequent.
    """

    rows: int
    missing: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    sketch: Sequence[float] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def fill_rate(self) -> float:
        """Share of rows with a value; 0 for a frame without rows."""
        return (self.rows - self.missing) / self.rows if self.rows else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ColumnProfile":
        """Read what `to_json` returned."""
        return cls(**data)


@dataclass(frozen=True)
class TrainedOn:
    """What a feature looked like in a training set that the lake keeps.

    Attributes:
        name: The set.
        profile: Over the rows of its spine that had a row of the view.
    """

    name: str
    profile: ColumnProfile


def profile(frame: pl.DataFrame, contract: Contract) -> dict[str, ColumnProfile]:
    """Return feature → profile of a frame with the contract's columns."""
    return {
        name: _column_profile(frame[name], feature) for name, feature in contract.features.items()
    }


def _column_profile(values: pl.Series, feature: Feature) -> ColumnProfile:
    rows = len(values)
    if feature.numeric:
        numbers = values.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
        finite = np.sort(numbers[np.isfinite(numbers)])
        missing = rows - len(numbers)
        if not len(finite):
            return ColumnProfile(rows, missing)
        return ColumnProfile(
            rows,
            missing,
            minimum=float(finite[0]),
            maximum=float(finite[-1]),
            mean=float(finite.mean()),
            sketch=sketch_of(finite),
        )
    if feature.type in (pl.String, pl.Boolean):
        counted = values.drop_nulls().cast(pl.String).value_counts(name="n")
        top = counted.sort(["n", values.name], descending=[True, False]).head(TOP_VALUES)
        return ColumnProfile(rows, values.null_count(), counts=dict(top.iter_rows()))
    return ColumnProfile(rows, values.null_count())


def sketch_of(finite: Floats) -> tuple[float, ...]:
    """Return the evenly spaced quantiles of sorted finite numbers; none of none."""
    return tuple(finite[_positions(len(finite))].tolist()) if len(finite) else ()


def _positions(count: int) -> npt.NDArray[np.intp]:
    return ((np.arange(SKETCH_POINTS) + 0.5) / SKETCH_POINTS * count).astype(np.intp)


def stability_index(
    values: pl.Series, feature: Feature, reference: Sequence[ColumnProfile]
) -> float | None:
    """Return the population stability index of a column against the profiles of other days.

    Sum over bins of (actual - expected) * ln(actual / expected), missing values in a bin of their
    own. Numbers: ten bins of equal weight in the reference. Strings and booleans: a bin per value.
    None if the reference has no rows or drift is not defined for the type.
    """
    known = [column for column in reference if column.rows]
    if not known or values.is_empty():
        return None
    if feature.numeric:
        expected, actual = _numeric_shares(values, known)
    elif feature.type in (pl.String, pl.Boolean):
        expected, actual = _category_shares(values, known)
    else:
        return None
    expected, actual = np.maximum(expected, SMALLEST_SHARE), np.maximum(actual, SMALLEST_SHARE)
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def _numeric_shares(values: pl.Series, known: Sequence[ColumnProfile]) -> tuple[Floats, Floats]:
    sketched = [column for column in known if column.sketch]
    points = np.concatenate([np.asarray(c.sketch) for c in sketched] or [np.empty(0)])
    weights = np.concatenate(
        [np.full(SKETCH_POINTS, (c.rows - c.missing) / SKETCH_POINTS) for c in sketched]
        or [np.empty(0)]
    )
    order = np.argsort(points, kind="stable")
    points, weights = points[order], weights[order]
    edges: Floats = np.empty(0)
    if len(points):
        reached = np.cumsum(weights) / weights.sum()
        edges = np.unique(points[np.searchsorted(reached, np.arange(1, BINS) / BINS)])
    numbers = values.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
    expected = np.bincount(np.searchsorted(edges, points), weights, len(edges) + 1)
    actual = np.bincount(np.searchsorted(edges, numbers), minlength=len(edges) + 1)
    total, missing = sum(c.rows for c in known), sum(c.missing for c in known)
    return (
        np.append(expected, missing) / total,
        np.append(actual, len(values) - len(numbers)) / len(values),
    )


def _category_shares(values: pl.Series, known: Sequence[ColumnProfile]) -> tuple[Floats, Floats]:
    before: dict[str, int] = {}
    for column in known:
        for value, count in column.counts.items():
            before[value] = before.get(value, 0) + count
    now = dict(values.drop_nulls().cast(pl.String).value_counts(name="n").iter_rows())
    names = [*before, *(name for name in now if name not in before)]
    total, missing = sum(c.rows for c in known), sum(c.missing for c in known)
    expected = np.array([*(before.get(name, 0) for name in names), missing], dtype=np.float64)
    actual = np.array(
        [*(now.get(name, 0) for name in names), values.null_count()], dtype=np.float64
    )
    return expected / total, actual / len(values)
