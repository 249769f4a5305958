"""A day computed anew: from the inputs that it was computed from, and from those of today."""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, Final

import polars as pl

from lockstep.compute import compute_day, load_inputs
from lockstep.lake import Lake
from lockstep.reader import Reader
from lockstep.sources import Readable
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.time import decode_revisions
from lockstep.view import FeatureView
from lockstep.why.facts import Made, Recomputed
from lockstep.why.offline import Asked

MOST_ROWS: Final = 5_000_000
"""Rows of inputs beyond which nothing is computed anew: somebody waits for the answer."""


class AsItWas(Reader):
    """Reads inputs at the revisions that a day was computed from.

    Args:
        lake: Where they are.
        read: Name of an input's table → day → revision; other inputs are read as they are now.
    """

    def __init__(self, lake: Lake, read: Mapping[str, Mapping[date, int]]) -> None:
        super().__init__(lake.table, lambda _: {})
        self._lake = lake
        self._read = read
        self._now: dict[str, Head] = {}

    def head(self, of: Readable) -> Head:
        """Return the days that were read, with the revisions that were read."""
        if of.name not in self._heads:
            found = super().head(of)
            self._now[of.name] = found
            if of.name in self._read:
                self._heads[of.name] = self._as_read(of, found)
        return self._heads[of.name]

    def _as_read(self, of: Readable, now: Head) -> Head:
        read = self._read[of.name]
        past = None
        days = {}
        for day, revision in read.items():
            record = now.days.get(day)
            if record is None or record.revision != revision:
                past = past or self._lake.table(of).history(now.version)
                record = next((r for r in past.days.get(day, ()) if r.revision == revision), None)
            if record is not None:
                days[day] = record
        return Head(now.table_id, now.version, days, now.digest, now.past, now.eras)

    def load(self, of: Readable, days: Collection[date]) -> None:
        """Read what was superseded by revision, and the rest in one scan."""
        head, table = self.head(of), self._lake.table(of)
        frames = self._frames.setdefault(of.name, {})
        now = self._now[of.name]
        superseded = [
            day
            for day in days
            if day in head.days
            and day not in frames
            and (day not in now.days or now.days[day].revision != head.days[day].revision)
        ]
        if superseded:
            frames.update(_superseded(table, of, head, superseded))
        super().load(of, days)


def _superseded(
    table: DayTable, of: Readable, head: Head, days: Collection[date]
) -> dict[date, pl.DataFrame]:
    reader = SliceReader(table, head.version)
    columns = [*of.columns, "day"]
    return {day: reader.rows(day, head.days[day].revision, columns).sort(of.order) for day in days}


def recomputed(asked: Asked, made: Made, committed: tuple[bool, Any], reader: Reader) -> Recomputed:
    """Return whether code and inputs of today give what is committed of the entity's feature.

    What need not be asked is not computed: a day whose code and inputs are those of today is what
    they give.

    Args:
        committed: Whether the committed day has a row of the entity, and the feature in it.
        reader: Reads what is committed now.
    """
    if not (made.by_other_code or made.restated):
        return Recomputed()
    names = {item.name: item.of.name for item in asked.view.inputs}
    read: dict[str, dict[date, int]] = {}
    for name, text in made.inputs.items():
        read.setdefault(names.get(name, name), {}).update(decode_revisions(text))
    if _rows(asked.view, made.day, reader) > MOST_ROWS:
        return Recomputed(problem="its inputs have too many rows to be read while you wait")
    same = today = None
    try:
        if made.by_other_code:
            was = _value(asked, made.day, AsItWas(asked.lake, read))
            same = _equal(was, committed)
            today = same
        if made.restated:
            today = _equal(_value(asked, made.day, reader), committed)
    except Exception as error:  # noqa: BLE001 - a view's function: whatever it raises is its own
        return Recomputed(same, None, problem=f"{type(error).__name__}: {error}")
    return Recomputed(same, today)


def _rows(view: FeatureView, day: date, reader: Reader) -> int:
    total = 0
    for item in view.inputs:
        days = reader.head(item.of).days
        live = min(days, default=day)
        total += sum(days[d].rows for d in item.days_read(day, live=live) if d in days)
    return total


def _value(asked: Asked, day: date, reader: Reader) -> tuple[bool, Any]:
    load_inputs(asked.view, [day], reader)
    computed = compute_day(asked.view, day, reader, asked.lake.project.zone)
    return asked.value_in(computed.frame)


def _equal(one: tuple[bool, Any], other: tuple[bool, Any]) -> bool:
    """Whether two cells are the same; NaN is NaN."""
    return repr(one) == repr(other)
