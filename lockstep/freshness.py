"""How old the data is, by its own event time: a dead pipeline ages, an empty run resets nothing.

Unless a source says that it may be empty, and of snapshots: what comes without rows or without
event times cannot be asked how old it is.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lockstep.lake import Lake
from lockstep.sources import Source
from lockstep.stores.day_index import Head
from lockstep.view import FeatureView


@dataclass(frozen=True)
class Freshness:
    """How far a view's data lags behind an instant.

    Attributes:
        data_through: Event time up to which the newest committed day has data; None if no day is
            committed.
        limit: What the contract tolerates.
    """

    view: str
    data_through: datetime | None
    lag: timedelta | None
    limit: timedelta

    @property
    def holds(self) -> bool:
        """Whether the lag is within the contract's limit."""
        return self.lag is not None and self.lag <= self.limit

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.lag is None:
            return f"{self.view} was never computed. Run: lockstep materialize {self.view} --days …"
        words = "within" if self.holds else "over"
        return f"{self.view} lags {_hours(self.lag)}, {words} its limit of {_hours(self.limit)}."


def freshness(lake: Lake, view: FeatureView, now: datetime) -> Freshness:
    """Return the lag of the newest data of the view's committed days."""
    head = lake.table(view).head_or_none()
    through = None if head is None else data_through(head)
    lag = None if through is None else now - through
    return Freshness(view.name, through, lag, view.contract.freshness)


def data_through(head: Head) -> datetime | None:
    """Return the event time up to which the committed days have data; None if none has rows."""
    notes = (record.note for record in head.days.values() if record.rows)
    return max(
        (datetime.fromisoformat(note["data_through"]) for note in notes if "data_through" in note),
        default=None,
    )


def unasked(view: FeatureView) -> list[str]:
    """Return the sources and snapshots that may bring nothing new unnoticed, by name.

    Those that the view reads, through other views, too.
    """
    names: set[str] = set()
    for item in view.inputs:
        if isinstance(item.of, FeatureView):
            names.update(unasked(item.of))
        elif not isinstance(item.of, Source) or item.of.may_be_empty:
            names.add(item.of.name)
    return sorted(names)


def _hours(length: timedelta) -> str:
    return f"{length.total_seconds() / 3600:.1f} h"
