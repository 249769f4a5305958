"""Three windows in a row: which features have been over their drift limit, and since when.

Nothing is counted as it happens. A streak is read from what the committed days' verdicts say, in
the order of the days; so reruns, restarts and the order of runs can't change it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from lockstep.lake import Lake
from lockstep.view import FeatureView

WINDOWS: Final = 3
"""Committed days in a row over the limit, from which on it is told to people."""


@dataclass(frozen=True)
class Streak:
    """The committed days in a row over the limit that end with the newest committed day.

    Attributes:
        feature: `view:feature`.
        days: Ascending; empty if the newest committed day is not over the limit.
        psi: The index of each of these days.
        limit: Of the newest committed day.
        first: The first of the days: with the feature it names the episode. None if there is none.
    """

    feature: str
    days: Sequence[date]
    psi: Sequence[float]
    limit: float
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
        limit = _limit(name, feature.max_psi, (numbers[day] for day in newest_first[:1]))
        if limit is None:
            continue
        days: list[date] = []
        for day in newest_first:
            if not _over(name, numbers[day], feature.max_psi):
                break
            days.insert(0, day)
        found[f"{view.name}:{name}"] = Streak(
            f"{view.name}:{name}",
            tuple(days),
            tuple(numbers[day][f"psi:{name}"] for day in days),
            limit,
            days[0] if days else None,
        )
    return found


def drift_numbers(note: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the numbers of the drift verdict in what was recorded with a commit."""
    for verdict in note.get("verdicts", ()):
        if verdict["check"] == "drift":
            numbers: Mapping[str, float] = verdict["numbers"]
            return numbers
    return {}


def _limit(
    name: str, declared: float | None, numbers: Iterable[Mapping[str, float]]
) -> float | None:
    """Return the limit that a day was judged by; what is declared now if it does not say."""
    return next((of.get(f"limit:psi:{name}", declared) for of in numbers), declared)


def _over(name: str, numbers: Mapping[str, float], declared: float | None) -> bool:
    psi, limit = numbers.get(f"psi:{name}"), _limit(name, declared, [numbers])
    if psi is None:
        return False
    kl, most = numbers.get(f"kl:{name}"), numbers.get(f"limit:kl:{name}")
    return (limit is not None and psi > limit) or (
        kl is not None and most is not None and kl > most
    )
