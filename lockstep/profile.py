"""One pass over a frame: a small summary per column. Every statistical check reads these."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lockstep.schema import Contract, Feature

SKETCH_POINTS: Final = 64
TOP_VALUES: Final = 50
SAMPLE: Final = 100_000
"""Of so many values each is looked at for quantiles; of more, about as many of them."""
FEW_VALUES: Final = 10_000
_SCATTER: Final = np.uint64(0x9E3779B97F4A7C15)
_SERIAL_ROWS: Final = 20_000
"""Columns of fewer rows are done sooner than threads are started."""
_THREADS: Final = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnProfile:
    """What one column of one day looked like.

    Of a column that identifies people it keeps counts, and no values. The same frame has the same
    profile on every machine. Everything is exact but three things, and those too up to 100,000
    values: quantiles of more come from a fixed sample of them; more than 10,000 different values
    are estimated, to about three percent; and of more than 100,000 different texts those shown are
    the most frequent ones of a sample, their rows counted.

    Attributes:
        rows: Rows of the frame.
        missing: Rows without a value; NaN counts as none.
        minimum: The least finite number.
        maximum: The greatest finite number.
        mean: Of the finite numbers; None also if it is no finite number itself.
        sketch: 64 evenly spaced quantiles of the finite values of a numeric column.
        counts: Value → rows for a string or boolean column: the 50 most frequent, most rows first,
            and those that the reference has a bin for.
        nulls: Rows that are null.
        nans: Rows that are NaN.
        std: Standard deviation of the finite numbers (of all, not of a sample of them).
        distinct: Different values, missing ones aside; None for lists and structs.
        edges: The edges of the reference's bins; bin `i` holds what is above `edges[i - 1]` and at
            most `edges[i]`.
        histogram: Rows per bin, infinite ones included; one more than there are edges. Empty if
            there was no reference.
    """

    rows: int
    missing: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    sketch: Sequence[float] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    nulls: int = 0
    nans: int = 0
    std: float | None = None
    distinct: int | None = None
    edges: Sequence[float] = ()
    histogram: Sequence[int] = ()

    @property
    def fill_rate(self) -> float:
        """Share of rows with a value; 0 for a frame without rows."""
        return (self.rows - self.missing) / self.rows if self.rows else 0.0

    @cached_property
    def points(self) -> Floats:
        """The sketch as an array."""
        return np.asarray(self.sketch, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; `from_json` reads it back."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        lists = {name: list(said[name]) for name in _LISTS}
        return {**said, **lists, "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ColumnProfile":
        """Read what `to_json` returned, also what earlier releases did.

        They did not tell nulls from NaN: what was missing then counts as null.
        """
        known: dict[str, Any] = {} if "nans" in data else {"nulls": data["missing"]}
        known |= {one.name: data[one.name] for one in fields(cls) if one.name in data}
        return cls(**known | {name: tuple(known[name]) for name in _LISTS if name in known})


_LISTS: Final = ("sketch", "edges", "histogram")


@dataclass(frozen=True)
class EntityCounts:
    """How many entities one day has, and how many came and went since the day before.

    Attributes:
        seen: Entities with a row.
        new: Those that the day before did not have.
        gone: Those of the day before that have no row.
    """

    seen: int
    new: int
    gone: int

    @property
    def new_rate(self) -> float | None:
        """Share of new ones; None if nobody was seen."""
        return self.new / self.seen if self.seen else None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; `from_json` reads it back."""
        return {"seen": self.seen, "new": self.new, "gone": self.gone}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EntityCounts":
        """Read what `to_json` returned."""
        return cls(data["seen"], data["new"], data["gone"])


@dataclass(frozen=True)
class TrainedOn:
    """What a feature looked like in a training set that the lake keeps.

    Attributes:
        name: The set.
        profile: Over the rows of its spine that had a row of the view.
    """

    name: str
    profile: ColumnProfile


class Bins(Protocol):
    """The bins of a reference: edges of ranges for numbers, values for the rest."""

    @property
    def edges(self) -> Sequence[float]:
        """Ascending."""

    @property
    def values(self) -> Sequence[str]:
        """Values of a string or boolean column."""


def profile(
    frame: pl.DataFrame, contract: Contract, references: Mapping[str, Bins] | None = None
) -> dict[str, ColumnProfile]:
    """Return feature → profile of a frame with the contract's columns.

    Args:
        references: Feature → the bins in which its values are counted, too.
    """
    known = references or {}

    def of(feature: Feature) -> ColumnProfile:
        return _column_profile(frame[feature.name], feature, known.get(feature.name))

    features = list(contract.features.values())
    if frame.height < _SERIAL_ROWS:
        return dict(zip(contract.features, map(of, features), strict=True))
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="profile") as pool:
        return dict(zip(contract.features, pool.map(of, features), strict=True))


def _column_profile(values: pl.Series, feature: Feature, bins: Bins | None) -> ColumnProfile:
    if feature.numeric:
        return _of_numbers(values, bins, identifying=feature.pii)
    if feature.type in (pl.String, pl.Boolean):
        return _of_values(values, bins, identifying=feature.pii)
    rows, nulls = len(values), values.null_count()
    ordered = feature.type.is_temporal() or feature.type == pl.Binary
    distinct = values.drop_nulls().n_unique() if ordered else None
    return ColumnProfile(rows, nulls, nulls=nulls, distinct=distinct)


def _of_numbers(values: pl.Series, bins: Bins | None, *, identifying: bool) -> ColumnProfile:
    nulls = values.null_count()
    numbers = _as_numbers(values)
    nan = np.isnan(numbers)
    nans = int(np.count_nonzero(nan))
    numbers = numbers[~nan] if nans else numbers
    counted = ColumnProfile(
        len(values), nulls + nans, nulls=nulls, nans=nans, distinct=_distinct(values)
    )
    if identifying:
        return counted
    edges = () if bins is None else tuple(bins.edges)
    histogram = () if bins is None else _histogram(numbers, edges)
    infinite = np.isinf(numbers)
    finite = numbers[~infinite] if infinite.any() else numbers
    if not len(finite):
        return replace(counted, edges=edges, histogram=histogram)
    looked_at = np.sort(finite[_sampled(len(finite))])
    # A sum depends on its order; that of sorted numbers does not on the order of the rows.
    mean, std = _moments(looked_at if len(looked_at) == len(finite) else finite)
    return replace(
        counted,
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        mean=mean,
        std=std,
        sketch=sketch_of(looked_at),
        edges=edges,
        histogram=histogram,
    )


def _as_numbers(values: pl.Series) -> Floats:
    return values.drop_nulls().cast(pl.Float64).to_numpy()


def _sampled(count: int) -> npt.NDArray[np.int64] | slice:
    """Return which of so many values are looked at: all, or one of every few, the same always.

    Which of the few is scattered: a view's rows are in the order of their keys, and ids have
    patterns that a steady step would fall in with.
    """
    if count <= SAMPLE:
        return slice(None)
    step = -(-count // SAMPLE)
    at = np.arange(count // step, dtype=np.uint64)
    scattered = (at * _SCATTER >> np.uint64(32)) % np.uint64(step)
    return (at * np.uint64(step) + scattered).astype(np.int64)


def _distinct(values: pl.Series) -> int:
    there = values.drop_nulls()
    there = there.drop_nans() if there.dtype.is_float() else there
    about = _about_distinct(there) if len(there) > SAMPLE else 0
    return about if about > FEW_VALUES else there.n_unique()


def _about_distinct(values: pl.Series) -> int:
    found: int = values.to_frame().select(pl.all().approx_n_unique()).item()
    return found


def _histogram(numbers: Floats, edges: Sequence[float]) -> tuple[int, ...]:
    # As many passes as there are edges are much faster than a search for every number.
    upto = [int(np.count_nonzero(numbers <= edge)) for edge in edges]
    return tuple(np.diff(upto, prepend=0, append=len(numbers)).tolist())


def _moments(finite: Floats) -> tuple[float | None, float | None]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(finite.mean())
        off = finite - mean
        std = math.sqrt(float(np.multiply(off, off, out=off).mean()))
    return mean if math.isfinite(mean) else None, std if math.isfinite(std) else None


def _of_values(values: pl.Series, bins: Bins | None, *, identifying: bool) -> ColumnProfile:
    rows, nulls = len(values), values.null_count()
    there = values.drop_nulls().alias("value")
    if identifying:
        return ColumnProfile(rows, nulls, nulls=nulls, distinct=_distinct(there))
    binned = pl.Series("value", bins.values if bins else (), dtype=pl.String)
    distinct = _about_distinct(there) if len(there) > SAMPLE else 0
    if distinct > SAMPLE:  # nearly all values occur once, and counting each takes half a second
        sampled = _top(_value_counts(there[_sampled(len(there))]))["value"]
        counted = _value_counts(there.filter(there.is_in(pl.concat([sampled, binned]).implode())))
    else:
        counted = _value_counts(there)
        distinct = counted.height
    wanted = counted.join(binned.to_frame(), on="value", how="semi").sort("value")
    shown = dict(_top(counted).iter_rows()) | dict(wanted.iter_rows())
    return ColumnProfile(rows, nulls, counts=shown, nulls=nulls, distinct=distinct)


def _value_counts(values: pl.Series) -> pl.DataFrame:
    return values.value_counts(name="rows").with_columns(pl.col("value").cast(pl.String))


def _top(counted: pl.DataFrame) -> pl.DataFrame:
    """Return the most frequent values; of equally frequent ones the first in order."""
    rows = counted["rows"].to_numpy()
    if len(rows) > TOP_VALUES:  # millions of values would take seconds to sort
        least = np.partition(rows, -TOP_VALUES)[-TOP_VALUES]
        above = counted.filter(pl.col("rows") > least)
        tied = counted.filter(pl.col("rows") == least)
        few = tied.bottom_k(TOP_VALUES - above.height, by="value")
        counted = pl.concat([above, few])
    return counted.sort("rows", "value", descending=[True, False])


def without_values(column: ColumnProfile) -> ColumnProfile:
    """Return the counts alone: what is kept of a column that identifies people."""
    return ColumnProfile(
        column.rows,
        column.missing,
        nulls=column.nulls,
        nans=column.nans,
        distinct=column.distinct,
    )


def sketch_of(finite: Floats) -> tuple[float, ...]:
    """Return the evenly spaced quantiles of sorted finite numbers; none of none."""
    return tuple(finite[_positions(len(finite))].tolist()) if len(finite) else ()


def _positions(count: int) -> npt.NDArray[np.intp]:
    return ((np.arange(SKETCH_POINTS) + 0.5) / SKETCH_POINTS * count).astype(np.intp)
