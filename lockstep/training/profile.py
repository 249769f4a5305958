"""What the features of a training set look like, in one pass over its blocks.

Counts are exact. Quantiles, histograms and frequent values come from every n-th row, n chosen so
that about a hundred thousand rows count: the same rows whatever the number of parts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import polars as pl

from lockstep.profile import ColumnProfile, sketch_of
from lockstep.profile import without_values as counts_of
from lockstep.training.join import EXPIRED, UNMATCHED, Joined
from lockstep.view import FeatureView, split_feature

SAMPLE: Final = 100_000
BINS: Final = 24
TOP: Final = 10
MOSTLY: Final = 0.5
QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
_SECOND: Final = 1_000_000


@dataclass(frozen=True)
class FeatureProfile:
    """What one feature of a set looks like; one that identifies people has no values when kept.

    Attributes:
        rows: Rows of the set.
        nulls: Rows without a value, for whatever reason.
        unmatched: Rows for whose entity the view has no row, or none that is not long expired.
        expired: Rows whose entity's newest row is older than the ttl.
        age_seconds: Quantile → age of the values, from the end of their day to the row's instant.
        values: Distribution of the values, as drift checks read it.
        edges: Edges of the histogram's bins; empty for what is no number.
        counts: Rows of the sample per bin, or per frequent value in the order of `top`.
        top: The most frequent values of a text or boolean.
    """

    rows: int
    nulls: int
    unmatched: int
    expired: int
    age_seconds: Mapping[str, float]
    values: ColumnProfile
    edges: Sequence[float] = ()
    counts: Sequence[int] = ()
    top: Sequence[str] = ()

    @property
    def null_share(self) -> float:
        """Share of rows without a value."""
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def unmatched_share(self) -> float:
        """Share of rows whose entity has no row."""
        return self.unmatched / self.rows if self.rows else 0.0

    @property
    def expired_share(self) -> float:
        """Share of rows whose entity's row is older than the ttl."""
        return self.expired / self.rows if self.rows else 0.0

    @property
    def reference(self) -> ColumnProfile:
        """Distribution over the rows that have a row of the view, as a day's has: for drift."""
        absent = self.unmatched + self.expired
        return replace(
            self.values,
            rows=self.values.rows - absent,
            missing=max(0, self.values.missing - absent),
            nulls=max(0, self.values.nulls - absent),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values, shares included; `from_json` reads it back."""
        shares = {
            "null_share": self.null_share,
            "unmatched_share": self.unmatched_share,
            "expired_share": self.expired_share,
        }
        return {**asdict(self), **shares}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FeatureProfile":
        """Read what `to_json` returned."""
        own = {name: value for name, value in data.items() if not name.endswith("_share")}
        return cls(**{**own, "values": ColumnProfile.from_json(own["values"])})


@dataclass
class _Column:
    dtype: pl.DataType
    nulls: int = 0
    missing: int = 0
    total: float = 0.0
    finite: int = 0
    low: float | None = None
    high: float | None = None
    samples: list[pl.Series] = field(default_factory=list)

    def add(self, values: pl.Series, sampled: pl.Series) -> None:
        self.nulls += values.null_count()
        if self.dtype.is_numeric() or isinstance(self.dtype, pl.String | pl.Boolean):
            self.samples.append(values.gather(sampled))
        if not self.dtype.is_numeric():
            self.missing += values.null_count()
            return
        finite = values
        self.missing += values.null_count()
        if self.dtype.is_float():
            self.missing += int(values.is_nan().sum())
            finite = values.filter(values.is_finite())
        count = len(finite) - finite.null_count()
        if count:
            low, high = float(finite.min()), float(finite.max())  # type: ignore[arg-type]
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
            # A sum of whole numbers could wrap, their mean can't.
            self.total += float(finite.mean()) * count  # type: ignore[arg-type]
            self.finite += count


@dataclass
class _View:
    unmatched: int = 0
    expired: int = 0
    ages: list[np.ndarray[Any, np.dtype[np.int64]]] = field(default_factory=list)


class Profiler:
    """Takes in the blocks of a set, in order, and says what its features look like.

    Args:
        types: `view:feature` → type, in order.
        rows: Rows of the whole set.
    """

    def __init__(self, types: Mapping[str, pl.DataType], rows: int) -> None:
        self._rows, self._seen = rows, 0
        self._stride = max(1, -(-rows // SAMPLE))
        self._columns = {name: _Column(dtype) for name, dtype in types.items()}
        self._views: dict[str, _View] = {}

    def add(self, block: Joined) -> None:
        """Take in the next block."""
        height = block.features.height
        first = -self._seen % self._stride
        sampled = pl.Series(np.arange(first, height, self._stride, dtype=np.uint32))
        self._seen += height
        for name, column in self._columns.items():
            column.add(block.features[name], sampled)
        for found in block.found:
            view = self._views.setdefault(found.view, _View())
            view.unmatched += int(np.count_nonzero(found.status == UNMATCHED))
            view.expired += int(np.count_nonzero(found.status == EXPIRED))
            ages = found.age_us[first :: self._stride]
            view.ages.append(ages[ages >= 0])

    def profile(self) -> dict[str, FeatureProfile]:
        """Return `view:feature` → what it looks like."""
        ages = {name: _quantiles(view.ages) for name, view in self._views.items()}
        return {
            name: self._of(name, column, ages.get(name.partition(":")[0], {}))
            for name, column in self._columns.items()
        }

    def _of(self, name: str, column: _Column, ages: Mapping[str, float]) -> FeatureProfile:
        view = self._views.get(name.partition(":")[0], _View())
        sample = pl.concat(column.samples) if column.samples else pl.Series([], dtype=column.dtype)
        values, edges, counts, top = _distribution(column, sample, self._seen)
        return FeatureProfile(
            rows=self._seen,
            nulls=column.nulls,
            unmatched=view.unmatched,
            expired=view.expired,
            age_seconds=ages,
            values=values,
            edges=edges,
            counts=counts,
            top=top,
        )


def _quantiles(ages: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> dict[str, float]:
    known = np.concatenate(ages) if ages else np.empty(0, dtype=np.int64)
    if not len(known):
        return {}
    found = np.quantile(known, QUANTILES, method="lower") / _SECOND
    return {f"{share:g}": float(age) for share, age in zip(QUANTILES, found, strict=True)}


def _distribution(
    column: _Column, sample: pl.Series, rows: int
) -> tuple[ColumnProfile, list[float], list[int], list[str]]:
    if column.dtype.is_numeric():
        numbers = sample.cast(pl.Float64).fill_nan(None).drop_nulls()
        finite = np.sort(numbers.filter(numbers.is_finite()).to_numpy())
        values = ColumnProfile(
            rows,
            column.missing,
            minimum=column.low,
            maximum=column.high,
            mean=column.total / column.finite if column.finite else None,
            sketch=sketch_of(finite),
            nulls=column.nulls,
            nans=column.missing - column.nulls,
        )
        if not len(finite):
            return values, [], [], []
        # What lies beyond the first and last percent is in the outer bins.
        low, high = (finite[int(share * (len(finite) - 1))] for share in (0.01, 0.99))
        counts, edges = np.histogram(np.clip(finite, low, high), BINS, (low, high))
        return values, [float(edge) for edge in edges], [int(count) for count in counts], []
    if isinstance(column.dtype, pl.String | pl.Boolean):
        counted = sample.drop_nulls().cast(pl.String).value_counts(name="n")
        ranked = counted.sort(["n", sample.name], descending=[True, False]).head(50)
        share = rows / len(sample) if len(sample) else 0.0
        scaled = {value: round(count * share) for value, count in ranked.iter_rows()}
        shown = ranked.head(TOP)
        values = ColumnProfile(rows, column.missing, counts=scaled, nulls=column.nulls)
        return values, [], shown["n"].to_list(), shown[sample.name].to_list()
    return ColumnProfile(rows, column.missing, nulls=column.nulls), [], [], []


def identifying(views: Mapping[str, FeatureView], features: Iterable[str]) -> list[str]:
    """Return those of the features that identify people; one that is no longer declared may."""
    found = []
    for name in features:
        view, feature = split_feature(name)
        declared = views.get(view)
        known = declared.contract.features.get(feature) if declared else None
        if known is None or known.pii:
            found.append(name)
    return found


def without_values(
    profile: Mapping[str, FeatureProfile], hidden: Collection[str]
) -> dict[str, FeatureProfile]:
    """Return a profile in which the hidden features have shares and ages, and no values."""
    return {
        name: replace(
            found,
            values=counts_of(found.values),
            edges=(),
            counts=(),
            top=(),
        )
        if name in hidden
        else found
        for name, found in profile.items()
    }


def profile_warnings(
    profile: Mapping[str, FeatureProfile], unbuilt: Iterable[str] = ()
) -> list[str]:
    """Return a sentence per feature that is mostly null or mostly expired.

    Args:
        unbuilt: Views that were never materialized, which is told elsewhere.
    """
    silent = set(unbuilt)
    said = []
    for name, found in profile.items():
        if name.partition(":")[0] in silent or not found.rows:
            continue
        if found.expired_share > MOSTLY:
            said.append(
                f"{name} has expired in {found.expired_share:.1%} of the rows: its view's ttl is "
                "short for this spine, or days are missing."
            )
        elif found.null_share > MOSTLY:
            said.append(
                f"{name} is null in {found.null_share:.1%} of the rows: {found.unmatched_share:.1%}"
                f" have no row of the view, {found.expired_share:.1%} an expired one."
            )
    return said
