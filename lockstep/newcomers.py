"""How many entities came and went: ids that exploded, or were renamed, show here first.

A number for people and dashboards. It depends on which day was committed before when the day was
computed, so nothing may be decided by it; what cannot be read leaves it out.
"""

from dataclasses import dataclass, field
from datetime import date

import polars as pl

from lockstep.errors import StoreError
from lockstep.profile import EntityCounts
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable
from lockstep.view import FeatureView

__all__ = ["EntityCounts", "Newcomers"]

_UNREADABLE = (StoreError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass
class Newcomers:
    """The keys of the day before, for the days of one run in ascending order.

    The day before a day is the newest earlier one that is committed, or that this run commits. Of
    committed days only the key columns are read, and of a range of days only the first one's.

    Args:
        head: What was committed when the run began; None if nothing was.
    """

    view: FeatureView
    table: DayTable
    head: Head | None
    _last: tuple[date, pl.DataFrame] | None = field(default=None, init=False)

    def counts(self, day: date, frame: pl.DataFrame) -> EntityCounts | None:
        """Return how many entities the day has, and how many came and went since the day before.

        None if there is no day before, or if it cannot be read.
        """
        before = self._before(day)
        if before is None:
            return None
        both = _shared(frame.select(self.view.contract.keys), before)
        return EntityCounts(frame.height, frame.height - both, before.height - both)

    def rate(self, day: date, frame: pl.DataFrame) -> float | None:
        """Return the share of the frame's rows whose key the day before did not have.

        None if there is no day before, if it cannot be read, or if the frame has no rows.
        """
        counts = self.counts(day, frame) if frame.height else None
        return counts.new_rate if counts else None

    def passed(self, day: date, frame: pl.DataFrame) -> None:
        """Take a day that this run commits; its keys are those before the next one."""
        self._last = day, frame.select(self.view.contract.keys)

    def _before(self, day: date) -> pl.DataFrame | None:
        committed = max((d for d in self.head.days if d < day), default=None) if self.head else None
        if self._last is not None and (committed is None or committed <= self._last[0] < day):
            return self._last[1]
        if committed is None or self.head is None:
            return None
        try:
            keys = self.table.scan([committed], version=self.head.version)
            return keys.select(self.view.contract.keys).collect(engine="in-memory")
        except _UNREADABLE:  # whoever needs its rows will say so
            return None


def _shared(keys: pl.DataFrame, before: pl.DataFrame) -> int:
    """Return how many keys both have; each comes once, and both are sorted as days always are."""
    first, *more = keys.columns
    if more:
        both = keys.lazy().join(before.lazy(), on=keys.columns, how="semi").select(pl.len())
    else:  # several times as fast as a join
        merged = keys.lazy().merge_sorted(before.lazy(), first)
        both = merged.select((pl.col(first) == pl.col(first).shift()).sum())
    count: int = both.collect(engine="in-memory").item()
    return count
