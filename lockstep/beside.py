"""What is in quarantine beside what was certified: each feature's profile, side by side.

Built from profiles alone, the frame is not read. The feature that differs most comes first: those
that break a promise, then by how far their distribution, fill rate or mean has moved.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from statistics import median
from typing import Final

import numpy as np

from lockstep.drift import REACH_DAYS, Drift, Over, compared_with, measure, reference_of
from lockstep.episodes import over_limit
from lockstep.lake import Lake
from lockstep.profile import ColumnProfile, EntityCounts, TrainedOn, profile
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.schema import Contract, Feature
from lockstep.view import FeatureView

QUANTILES: Final[Mapping[str, float]] = {
    "p5": 0.05,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p95": 0.95,
}
TOP: Final = 5
_MOVED: Final = 0.5
"""Standard deviations by which a mean must have moved to be worth a sentence."""
_REFILLED: Final = 0.01


@dataclass(frozen=True)
class Side:
    """One feature on one side. Values are None for a feature that identifies people.

    Attributes:
        of: What it is of, e.g. "quarantined", "2026-03-02, revision 1", "28 earlier days".
        rows: Of one day; the median where it is of several.
        quantiles: Name → value, of all rows together.
        top: The most frequent values of a string or boolean, with their share of the rows.
    """

    of: str
    rows: float
    fill_rate: float
    minimum: float | None
    mean: float | None
    maximum: float | None
    quantiles: Mapping[str, float]
    distinct: float | None
    top: Mapping[str, float]


@dataclass(frozen=True)
class Beside:
    """One feature of a quarantined frame beside what was certified.

    Attributes:
        sides: The quarantined one; the last certified day; the reference. The latter two only if
            there is one.
        drift: How far it is from the reference; None if there is none.
        differs: Sentences, the gravest first. None of them holds a value that identifies people.
        broken: How many of them are broken promises.
        moved: How far it has moved, for the order: the largest of PSI, the change of fill rate in
            tenths, and that of the mean in standard deviations.
    """

    feature: str
    pii: bool
    sides: Sequence[Side]
    drift: Drift | None
    differs: Sequence[str]
    broken: int
    moved: float


def beside(lake: Lake, view: FeatureView, item: Quarantined) -> list[Beside]:
    """Return every feature of a quarantined frame, the one that differs most first.

    The last certified day is the newest committed one up to the item's, that day itself included.

    Raises:
        StoreError: The lake does not answer.
    """
    (day,) = item.touches
    seen = _profile_of(lake, view, item)
    head = lake.table(view).head_or_none()
    committed = {d: r.revision for d, r in head.days.items() if d <= day} if head else {}
    last = max(committed, default=None)
    reach = day - timedelta(days=REACH_DAYS)
    near = {d: revision for d, revision in committed.items() if d >= reach or d == last}
    known = lake.profiles(view.name, near)
    trained = lake.training_reference(view.name)
    over = over_limit(view.contract, {d: head.days[d] for d in near} if head else {})
    certified = known.get(last, {}) if last is not None else {}
    label = f"{last}, revision {committed[last]}" if last is not None else ""
    found = [
        compared(
            view.contract, name, seen[name], day, known, trained, certified.get(name), label, over
        )
        for name in view.contract.features
        if name in seen
    ]
    return sorted(found, key=lambda one: (-one.broken, -one.moved))


def entities_of(item: Quarantined) -> EntityCounts | None:
    """Return how many entities the frame has, and how many came and went; None if not recorded."""
    said = item.details.get("entities")
    return EntityCounts(**said) if said else None


def _profile_of(lake: Lake, view: FeatureView, item: Quarantined) -> dict[str, ColumnProfile]:
    """Return what was recorded of the frame; of an item of an earlier release, it made now."""
    if kept := item.details.get("profile"):
        return {name: ColumnProfile.from_json(data) for name, data in kept.items()}
    frame = Quarantine(lake.quarantine).frame(item)
    present = {n: f for n, f in view.contract.features.items() if n in frame.columns}
    return profile(frame, replace(view.contract, features=present))


def compared(
    contract: Contract,
    name: str,
    seen: ColumnProfile,
    day: date,
    days: Mapping[date, Mapping[str, ColumnProfile]],
    trained: Mapping[str, TrainedOn],
    certified: ColumnProfile | None,
    label: str,
    over: Over,
) -> Beside:
    """Return one feature beside the last certified day and the reference of its day. Pure."""
    feature = contract.features[name]
    before, against = compared_with(contract, name, day, days, trained, over)
    reference = reference_of(contract, name, day, days, trained, over)
    drift = measure(name, seen, reference) if reference is not None else None
    sides = [_side("quarantined", [seen], feature)]
    if certified is not None:
        sides.append(_side(label, [certified], feature))
    if before:
        sides.append(_side(against, before, feature))
    broken = list(_broken(feature, seen))
    moved = list(_moved(seen, certified, feature)) if certified is not None else []
    far_off = " and ".join(str(each) for each in drift.exceeded) if drift is not None else ""
    too_far = [f"{far_off} against {drift.against}"] if drift is not None and far_off else []
    far = max([drift.psi or 0.0 if drift else 0.0, *(by for by, _ in moved)])
    words = [words for by, words in sorted(moved, reverse=True)]
    return Beside(name, feature.pii, sides, drift, [*broken, *too_far, *words], len(broken), far)


def _broken(feature: Feature, seen: ColumnProfile) -> Iterator[str]:
    """Yield a sentence per promise about the feature that its profile shows to be broken."""
    low, high, least, most = seen.minimum, seen.maximum, feature.at_least, feature.at_most
    if low is not None and least is not None and low < least:
        yield f"least value {_value(low, feature)}below the promised {least:g}"
    if high is not None and most is not None and high > most:
        yield f"greatest value {_value(high, feature)}above the promised {most:g}"
    if not feature.nullable and seen.missing:
        yield f"{seen.missing:,} rows without a value, and it is not nullable"
    if feature.fill_rate is not None and seen.fill_rate < feature.fill_rate:
        yield f"filled {seen.fill_rate:.1%}, less than the promised {feature.fill_rate:.1%}"
    if feature.one_of is not None and seen.counts:
        allowed = {str(value) for value in feature.one_of}
        others = [value for value in seen.counts if value not in allowed]
        if others:
            rows = sum(seen.counts[value] for value in others)
            yield f"{rows:,} rows with one of {len(others)} values that are not allowed"


def _value(number: float, feature: Feature) -> str:
    return "" if feature.pii else f"{number:.4g} "


def _moved(
    seen: ColumnProfile, before: ColumnProfile, feature: Feature
) -> Iterator[tuple[float, str]]:
    """Yield how far and in words, against the last certified day."""
    gap = seen.fill_rate - before.fill_rate
    if abs(gap) >= _REFILLED:
        yield abs(gap) * 10, f"filled {seen.fill_rate:.1%}, was {before.fill_rate:.1%}"
    if seen.mean is None or before.mean is None or feature.pii:
        return
    spread = before.std or abs(before.mean) or 1.0
    steps = abs(seen.mean - before.mean) / spread
    if steps >= _MOVED:
        yield steps, f"mean {seen.mean:.4g}, was {before.mean:.4g}"


def _side(of: str, columns: Sequence[ColumnProfile], feature: Feature) -> Side:
    """Return the rows of some profiles together, as one side."""
    rows = sum(column.rows for column in columns)
    present = rows - sum(column.missing for column in columns)
    distinct = [column.distinct for column in columns if column.distinct is not None]
    shown = [] if feature.pii else columns
    least = [c.minimum for c in shown if c.minimum is not None]
    most = [c.maximum for c in shown if c.maximum is not None]
    return Side(
        of,
        rows=median(column.rows for column in columns),
        fill_rate=present / rows if rows else 0.0,
        minimum=min(least, default=None),
        mean=_mean(shown),
        maximum=max(most, default=None),
        quantiles=_quantiles(shown),
        distinct=median(distinct) if distinct else None,
        top=_top(shown, rows),
    )


def _mean(columns: Sequence[ColumnProfile]) -> float | None:
    known = [(c.mean, c.rows - c.missing) for c in columns if c.mean is not None]
    weight = sum(rows for _, rows in known)
    return sum(mean * rows for mean, rows in known) / weight if weight else None


def _quantiles(columns: Sequence[ColumnProfile]) -> dict[str, float]:
    sketched = [column for column in columns if len(column.sketch)]
    if not sketched:
        return {}
    points = np.concatenate([column.points for column in sketched])
    each = [len(column.points) for column in sketched]
    weights = np.repeat([(c.rows - c.missing) / len(c.points) for c in sketched], each)
    order = np.argsort(points, kind="stable")
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, reached[-1] * np.array(list(QUANTILES.values())))
    values = points[order][np.minimum(at, len(points) - 1)]
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def _top(columns: Sequence[ColumnProfile], rows: int) -> dict[str, float]:
    counts: dict[str, int] = {}
    for column in columns:
        for value, count in column.counts.items():
            counts[value] = counts.get(value, 0) + count
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {value: count / rows for value, count in ranked}
