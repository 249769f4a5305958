"""Committed days of the lake, as one computation sees them: pinned, each day read once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date

import polars as pl

from lockstep.errors import StoreError
from lockstep.sources import Readable
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable

_NOTHING = Head(table_id="", version=-1, days={}, digest="")


class Reader:
    """Reads sources, snapshots and views at the version each had when first asked for.

    Args:
        table_of: Where a readable is stored.
        held_days: Days of a source that a refused file may touch → why; they count as missing.
    """

    def __init__(
        self,
        table_of: Callable[[Readable], DayTable],
        held_days: Callable[[Readable], Mapping[date, str]],
    ) -> None:
        self._table_of = table_of
        self._held_days = held_days
        self._heads: dict[str, Head] = {}
        self._held: dict[str, Mapping[date, str]] = {}
        self._frames: dict[str, dict[date, pl.DataFrame]] = {}

    def anew(self) -> "Reader":
        """Return one that has pinned nothing yet: it sees what was committed since."""
        return Reader(self._table_of, self._held_days)

    def head(self, of: Readable) -> Head:
        """Return the pinned head; a table that does not exist has no days."""
        if of.name not in self._heads:
            self._heads[of.name] = self._table_of(of).head_or_none() or _NOTHING
        return self._heads[of.name]

    def held(self, of: Readable) -> Mapping[date, str]:
        """Return the days that a refused file may touch, with the reason."""
        if of.name not in self._held:
            self._held[of.name] = self._held_days(of)
        return self._held[of.name]

    def load(self, of: Readable, days: Collection[date]) -> None:
        """Read the committed ones of `days` that are not in memory, in one scan."""
        frames = self._frames.setdefault(of.name, {})
        head = self.head(of)
        missing = [day for day in days if day in head.days and day not in frames]
        if not missing:
            return
        table = self._table_of(of)
        with answering(f"The table {table.uri}"):
            found = table.scan(missing, version=head.version).collect(engine="in-memory")
        parts = found.partition_by("day", as_dict=True, maintain_order=True)
        for day in missing:
            part = parts.get((day,), found.clear())
            if part.height != head.days[day].rows:
                raise StoreError(
                    f"{of.name} of {day} is damaged.",
                    expected=f"{head.days[day].rows} rows, as committed",
                    got=f"{part.height} rows",
                    fix="Restore the table's files, or rebuild the day from its source.",
                    effect="Nothing was computed from it.",
                )
            frames[day] = part.drop("known_at").sort(of.order)

    def rows(self, of: Readable, days: Sequence[date]) -> pl.DataFrame:
        """Return the rows of the days, in day order and each day's total order, one chunk."""
        self.load(of, days)
        frames = self._frames[of.name]
        if not days:
            return pl.DataFrame(schema={**of.columns, "day": pl.Date})
        return pl.concat([frames[day] for day in days]).rechunk()

    def keep(self, of: Readable, days: Collection[date]) -> None:
        """Drop the frames of other days from memory."""
        frames = self._frames.get(of.name, {})
        self._frames[of.name] = {day: frames[day] for day in days if day in frames}
