"""How far a day's features are from what they were: PSI and KL between profiles. Pure.

Nothing here reads a frame: a profile that was made against a reference holds the counts of the
reference's bins, and the numbers of any day can be found again from what is kept.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
import polars as pl

from lockstep.profile import TOP_VALUES, ColumnProfile, Floats, TrainedOn
from lockstep.schema import Contract, Feature

REFERENCE_DAYS: Final = 28
REACH_DAYS: Final = 2 * REFERENCE_DAYS
"""No day before these is compared with."""
LEAST_REFERENCE_DAYS: Final = 7
LEAST_WEEKDAYS: Final = 2
"""Of the same weekday; four are as long as the reference days."""
BINS: Final = 10
LEAST_IN_BIN: Final = 20
"""Rows of a usual day in a bin. With fewer, chance alone moves PSI by as much as limits allow."""
SMALLEST_SHARE: Final = 1e-4
"""Stands in for an empty bin, whose logarithm would be infinite; of few rows, half a row does."""
Over: TypeAlias = Mapping[date, Collection[str]]
"""Committed day → the features that were over their limit when it was judged."""
_NONE: Final[Over] = MappingProxyType({})
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Bin:
    """One bin of a comparison.

    Attributes:
        label: A range of numbers, a value, "other values", or "missing".
        expected: Share of the reference's rows, as it was counted.
        actual: Share of the day's rows, as it was counted.
        psi: What the bin adds to PSI.
    """

    label: str
    expected: float
    actual: float
    psi: float


@dataclass(frozen=True)
class Exceeded:
    """A number that is over its limit."""

    word: Literal["PSI", "KL"]
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.word} {self.value:.2f} (limit {self.limit:g})"


@dataclass(frozen=True)
class Drift:
    """How far one feature of one day is from its reference.

    Attributes:
        psi: Population stability index; None if the day has no rows, or none that can be binned.
        kl: Kullback-Leibler divergence of the day from the reference, in nats.
        limit: The PSI above which it is too far; None if the contract sets none.
        against: The reference in words, e.g. "28 earlier days".
        bins: Every bin, in order, missing values last.
        kl_limit: The divergence above which it is too far; None if the contract sets none.
    """

    feature: str
    psi: float | None
    kl: float | None
    limit: float | None
    against: str
    bins: Sequence[Bin] = ()
    kl_limit: float | None = None

    @property
    def exceeded(self) -> Sequence[Exceeded]:
        """What is over its limit: PSI, KL, both, or nothing."""
        return exceeded(self.psi, self.limit, self.kl, self.kl_limit)

    @property
    def over(self) -> bool:
        """Whether a limit is exceeded."""
        return bool(self.exceeded)


def exceeded(
    psi: float | None, max_psi: float | None, kl: float | None, max_kl: float | None
) -> tuple[Exceeded, ...]:
    """Return which of the two numbers are over their limits, PSI first."""
    found: list[Exceeded] = []
    if psi is not None and max_psi is not None and psi > max_psi:
        found.append(Exceeded("PSI", psi, max_psi))
    if kl is not None and max_kl is not None and kl > max_kl:
        found.append(Exceeded("KL", kl, max_kl))
    return tuple(found)


@dataclass(frozen=True)
class Reference:
    """What one feature of a day is compared with.

    Attributes:
        against: It in words.
        numeric: Whether bins are ranges of numbers; else a bin is a value.
        edges: Ascending; bin `i` holds what is above `edges[i - 1]` and at most `edges[i]`.
        values: A bin each, the most frequent first; all others share one.
        expected: Share of the reference's rows per bin, missing values last; they sum to one.
        rows: Of the reference.
        max_psi: The contract's limit.
        max_kl: The contract's limit.
    """

    against: str
    numeric: bool
    edges: Sequence[float]
    values: Sequence[str]
    expected: Sequence[float]
    rows: int
    max_psi: float | None = None
    max_kl: float | None = None

    @cached_property
    def labels(self) -> Sequence[str]:
        """The name of every bin."""
        if not self.edges and not self.values:
            return ("any value", "missing")
        if not self.numeric:
            return (*self.values, "other values", "missing")
        said = [f"{edge:.4g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(said)]
        return (f"≤ {said[0]}", *between, f"> {said[-1]}", "missing")


def reference_of(
    contract: Contract,
    feature: str,
    day: date,
    days: Mapping[date, Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
    over: Over = _NONE,
) -> Reference | None:
    """Return what a feature of a day is compared with; None if there is none, or not enough.

    Args:
        days: Day → feature → profile. Of these only the 56 days before the day count, whatever
            else is there.
        trained: Feature → what it looked like in the newest training set that is kept.
        over: Days on which the feature was over its limit are left out, as long as enough others
            are there: a fault that lasts must not become what it is compared with.
    """
    columns, against = compared_with(contract, feature, day, days, trained, over)
    return _reference(columns, contract.features[feature], against) if columns else None


def compared_with(
    contract: Contract,
    feature: str,
    day: date,
    days: Mapping[date, Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
    over: Over = _NONE,
) -> tuple[list[ColumnProfile], str]:
    """Return the profiles that make the reference, and it in words; none if there is none."""
    declared = contract.features[feature]
    if not _comparable(declared):
        return [], ""
    found = trained.get(feature)
    if contract.reference in ("auto", "training") and found and _usable(found.profile, declared):
        return [found.profile], f"the training set {found.name}"
    if contract.reference == "training":
        return [], ""
    before = _days_before(contract, day, days)
    there = [d for d in before if (column := days[d].get(feature)) and column.rows]
    calm = [d for d in there if feature not in over.get(d, ())]
    chosen = (calm if len(calm) >= _least(contract) else there)[: _most(contract)]
    if len(chosen) < _least(contract):
        return [], ""
    kind = f"the {len(chosen)} {_WEEKDAYS[day.weekday()]}s before"
    against = kind if contract.reference == "weekday" else f"{len(chosen)} earlier days"
    skipped = chosen != there[: len(chosen)]
    said = f"{against} within the limit" if skipped else against
    return [days[d][feature] for d in chosen], said


def references_of(
    contract: Contract,
    day: date,
    days: Mapping[date, Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
    over: Over = _NONE,
) -> dict[str, Reference]:
    """Return feature → what it is compared with, for the features that have a reference."""
    found = {
        name: reference_of(contract, name, day, days, trained, over) for name in contract.features
    }
    return {name: reference for name, reference in found.items() if reference is not None}


def no_reference(
    contract: Contract, day: date, days: Mapping[date, Mapping[str, ColumnProfile]]
) -> str:
    """Return one sentence that says what a view whose features have no reference lacks."""
    if contract.reference == "training":
        return "No reference yet: no training set with these features is kept."
    number = len(_days_before(contract, day, days))
    if contract.reference == "weekday":
        which = f"{_WEEKDAYS[day.weekday()]}s"
        return f"No reference yet: {number} of {LEAST_WEEKDAYS} earlier {which}."
    return f"No reference yet: {number} of {LEAST_REFERENCE_DAYS} earlier days."


def measure(feature: str, profile: ColumnProfile, reference: Reference) -> Drift:
    """Return how far a day's profile is from a reference.

    PSI is the sum over bins of (actual - expected) * ln(actual / expected), KL that of
    actual * ln(actual / expected), missing values in a bin of their own. Shares are at least
    `SMALLEST_SHARE`, and that of half a row, and then scaled to sum to one. Bins are counted if the
    profile was made against the same ones; else numbers are estimated from its quantiles.
    """
    counts = _counts(profile, reference)
    none = Drift(
        feature, None, None, reference.max_psi, reference.against, kl_limit=reference.max_kl
    )
    if counts is None:
        return none
    actual = counts / profile.rows
    least = max(SMALLEST_SHARE, 0.5 / min(profile.rows, reference.rows))
    there, here = _floored(np.asarray(reference.expected), least), _floored(actual, least)
    logs = np.log(here / there)
    parts = (here - there) * logs
    bins = zip(
        reference.labels,
        reference.expected,
        actual.tolist(),
        parts.tolist(),
        strict=True,
    )
    return replace(
        none,
        psi=float(parts.sum()),
        kl=max(0.0, float((here * logs).sum())),  # rounding may leave the least negative number
        bins=tuple(Bin(*one) for one in bins),
    )


def _floored(shares: Floats, least: float) -> Floats:
    raised = np.maximum(shares, least)
    found: Floats = raised / raised.sum()
    return found


def _counts(profile: ColumnProfile, reference: Reference) -> Floats | None:
    """Return the profile's rows per bin of the reference, missing values last."""
    if not profile.rows:
        return None
    present = profile.rows - profile.missing
    if not reference.numeric:
        known = [float(profile.counts.get(value, 0)) for value in reference.values]
        others = max(0.0, present - sum(known))
        return np.array([*known, others, profile.missing], dtype=np.float64)
    if profile.histogram and tuple(profile.edges) == tuple(reference.edges):
        return np.array([*profile.histogram, profile.missing], dtype=np.float64)
    if not reference.edges or not present:
        empty = [0.0] * len(reference.edges)
        return np.array([present, *empty, profile.missing], dtype=np.float64)
    if not len(profile.points):
        return None
    at = np.searchsorted(reference.edges, profile.points)
    spread = np.bincount(at, minlength=len(reference.edges) + 1) * (present / len(profile.points))
    return np.append(spread, profile.missing)


def _comparable(feature: Feature) -> bool:
    return feature.numeric or feature.type in (pl.String, pl.Boolean)


def _usable(profile: ColumnProfile, feature: Feature) -> bool:
    """Whether a training set's profile has values of the feature's present type."""
    return bool(profile.sketch if feature.numeric else profile.counts)


def _step(contract: Contract) -> int:
    return 7 if contract.reference == "weekday" else 1


def _days_before(contract: Contract, day: date, days: Mapping[date, object]) -> list[date]:
    """Return the days that may be compared with, the newest first."""
    last, step = day.toordinal(), _step(contract)
    near = [date.fromordinal(last - n) for n in range(step, REACH_DAYS + 1, step)]
    return [d for d in near if d in days]


def _most(contract: Contract) -> int:
    return REFERENCE_DAYS // _step(contract)


def _least(contract: Contract) -> int:
    return LEAST_WEEKDAYS if contract.reference == "weekday" else LEAST_REFERENCE_DAYS


def _reference(columns: Sequence[ColumnProfile], feature: Feature, against: str) -> Reference:
    """Return the rows of some profiles as one reference."""
    total, missing = sum(c.rows for c in columns), sum(c.missing for c in columns)
    # A training set has the rows of many days, and says nothing of how many one has.
    least = LEAST_IN_BIN * len(columns) if len(columns) > 1 else 0
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    # A bin of a feature that identifies people would name them, also where an old profile does.
    if feature.pii:
        counts = np.array([total - missing], dtype=np.float64)
    elif feature.numeric:
        edges, counts = _deciles(columns, total - missing, least)
    else:
        values, counts = _most_frequent(columns, total - missing, least)
    return Reference(
        against,
        feature.numeric,
        edges,
        values,
        tuple((np.append(counts, missing) / total).tolist()),
        total,
        feature.max_psi,
        feature.max_kl,
    )


def _deciles(
    columns: Sequence[ColumnProfile], present: int, least: int
) -> tuple[tuple[float, ...], Floats]:
    """Return up to nine edges that part the values into bins of equal weight, and the weights.

    Bins have no less than so many rows, as long as there are two of them.
    """
    sketched = [column for column in columns if column.sketch]
    if not sketched:
        return (), np.array([present], dtype=np.float64)
    number = BINS if not least else max(2, min(BINS, present // least))
    shares = np.arange(1, number) / number
    points = np.concatenate([column.points for column in sketched])
    each = [(column.rows - column.missing) / len(column.sketch) for column in sketched]
    weights = np.repeat(each, [len(column.sketch) for column in sketched])
    order = np.argsort(points, kind="stable")  # merges what is sorted already
    points, reached = points[order], np.cumsum(weights[order])
    # The cumulated sum may end a rounding error below the least of the last decile.
    at = np.minimum(np.searchsorted(reached, reached[-1] * shares), len(points) - 1)
    edges = list(dict.fromkeys(points[at].tolist()))
    upto = reached[np.searchsorted(points, edges, side="right") - 1]
    counts = np.empty(len(edges) + 1)
    counts[:-1], counts[-1] = upto, reached[-1]
    counts[1:] -= upto
    # Profiles without a sketch have infinite values only, which no bin can be made of.
    return tuple(edges), counts * (present / reached[-1])


def _most_frequent(
    columns: Sequence[ColumnProfile], present: int, least: int
) -> tuple[tuple[str, ...], Floats]:
    """Return the most frequent values of all profiles, and their rows, those of others last.

    Each has no less than so many rows, but for the first.
    """
    rows: dict[str, int] = {}
    for column in columns:
        for value, count in column.counts.items():
            rows[value] = rows.get(value, 0) + count
    if len(rows) > TOP_VALUES:  # most are rare, and need not be put in order
        counted = np.fromiter(rows.values(), dtype=np.int64)
        least = max(least, int(np.partition(counted, -TOP_VALUES)[-TOP_VALUES]))
    most = min(least, max(rows.values(), default=0))
    often = [(value, count) for value, count in rows.items() if count >= most]
    often.sort(key=lambda item: (-item[1], item[0]))
    ranked = often[:TOP_VALUES] if most == least else often[:1]
    counts = [float(count) for _, count in ranked]
    others = max(0.0, present - sum(counts))
    return tuple(value for value, _ in ranked), np.array([*counts, others], dtype=np.float64)
