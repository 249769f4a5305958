"""Three windows in a row: which features have been over their drift limit, and since when.

Nothing is counted as it happens. A streak is read from what the committed days' verdicts say, in
the order of the days; so reruns, restarts and the order of runs can't change it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from lockstep.drift import Exceeded, exceeded
from lockstep.lake import Lake
from lockstep.schema import Contract, Feature
from lockstep.stores.day_index import DayRecord
from lockstep.view import FeatureView

WINDOWS: Final = 3
"""Committed days in a row over the limit, from which on it is told to people."""


@dataclass(frozen=True)
class Streak:
    """The committed days in a row over the limit that end with the newest committed day.

    Attributes:
        feature: `view:feature`.
        days: Ascending; empty if the newest committed day is not over the limit.
        exceeded: What was over its limit on each of these days: PSI, KL, or both.
        first: The first of the days: with the feature it names the episode. None if there is none.
    """

    feature: str
    days: Sequence[date]
    exceeded: Sequence[Sequence[Exceeded]]
    first: date | None

    @property
    def alerting(self) -> bool:
        """Whether it has lasted long enough to be told."""
        return len(self.days) >= WINDOWS


def streaks(lake: Lake, view: FeatureView) -> dict[str, Streak]:
    """Return `view:feature` → streak, for each feature with a limit; days may be none.

    A day that is not committed (quarantined, or never computed) neither breaks nor lengthens a
    streak; one that had no reference, or no rows, breaks it.

    Raises:
        StoreError: The lake does not answer.
    """
    head = lake.table(view).head_or_none()
    records = head.days if head else {}
    notes = {day: drift_numbers(record.note) for day, record in records.items()}
    return fold(view, notes)


def fold(view: FeatureView, numbers: Mapping[date, Mapping[str, float]]) -> dict[str, Streak]:
    """Return the streaks of committed days → the numbers of their drift verdicts."""
    newest_first = sorted(numbers, reverse=True)
    found = {}
    for name, feature in view.contract.features.items():
        if not any(_limits(feature, numbers[newest_first[0]] if newest_first else {})):
            continue
        days: list[date] = []
        over: list[Sequence[Exceeded]] = []
        for day in newest_first:
            what = _exceeded(feature, numbers[day])
            if not what:
                break
            days.insert(0, day)
            over.insert(0, what)
        first = days[0] if days else None
        streak = Streak(f"{view.name}:{name}", tuple(days), tuple(over), first)
        found[streak.feature] = streak
    return found


def over_limit(contract: Contract, records: Mapping[date, DayRecord]) -> dict[date, frozenset[str]]:
    """Return committed day → the features that were over their limit when it was judged."""
    found = {}
    for day, record in records.items():
        numbers = drift_numbers(record.note)
        features = contract.features.items()
        found[day] = frozenset(name for name, of in features if _exceeded(of, numbers))
    return found


def drift_numbers(note: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the numbers of the drift verdict in what was recorded with a commit."""
    for verdict in note.get("verdicts", ()):
        if verdict["check"] == "drift":
            numbers: Mapping[str, float] = verdict["numbers"]
            return numbers
    return {}


def _limits(feature: Feature, numbers: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Return the limits of PSI and KL that a day was judged by; of a day that says none, today's.

    A day that says one of them had no other.
    """
    psi, kl = (numbers.get(f"limit:{word}:{feature.name}") for word in ("psi", "kl"))
    return (feature.max_psi, feature.max_kl) if psi is None and kl is None else (psi, kl)


def _exceeded(feature: Feature, numbers: Mapping[str, float]) -> Sequence[Exceeded]:
    psi, kl = (numbers.get(f"{word}:{feature.name}") for word in ("psi", "kl"))
    max_psi, max_kl = _limits(feature, numbers)
    return exceeded(psi, max_psi, kl, max_kl)
