"""Superseded rows are kept: what a later revision of a day replaced stays readable beside it.

A day that is restated leaves its file behind; the rows are copied into the view's sibling table, so
that `lockstep gc` may delete the file and "what was known then?" can still be answered. The copy
comes after the commit and is not part of it. While it is missing readers use the file itself, and
whoever comes next makes up for it: a rerun of the day, or gc.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from lockstep.hashing import content_hash
from lockstep.stores.day_index import DayRecord, History
from lockstep.stores.delta import DayTable
from lockstep.stores.history import SliceReader
from lockstep.stores.proposal import KNOWN_AT
from lockstep.stores.sibling import Sibling, sibling_of

CHUNK: Final = 16
"""Revisions per commit: bounds memory, as a chunk of days does."""


@dataclass(frozen=True)
class Kept:
    """What became of the superseded revisions of a table.

    Attributes:
        copied: Copied by this call.
        lost: Neither copied nor copyable: their file is gone, or is not what was certified.
    """

    copied: list[DayRecord] = field(default_factory=list)
    lost: list[DayRecord] = field(default_factory=list)


def superseded(history: History, days: Collection[date] | None = None) -> list[DayRecord]:
    """Return the revisions that are no longer current, by day (None: all of them)."""
    chosen = history.days.keys() if days is None else history.days.keys() & set(days)
    return [
        record
        for day in sorted(chosen)
        for record in history.days[day]
        if record.rows and record.revision != _current(history, day)
    ]


def not_kept(
    table: DayTable, history: History, days: Collection[date] | None = None
) -> list[tuple[Sibling, list[DayRecord]]]:
    """Return the superseded revisions that are not copied yet, by where they belong."""
    by_table: dict[str, list[DayRecord]] = {}
    for record in superseded(history, days):
        by_table.setdefault(history.table_of(record), []).append(record)
    siblings = {sibling_of(table.place, table.name, key): by_table[key] for key in by_table}
    missing = [(sibling, sibling.missing(records)) for sibling, records in siblings.items()]
    return [(sibling, records) for sibling, records in missing if records]


def keep_superseded(table: DayTable, days: Collection[date] | None = None) -> Kept:
    """Copy the superseded revisions of the days (None: of all) that are not copied yet.

    Costs one look at the index where nothing was restated. Safe to repeat, to interrupt and to run
    several times at once: each revision is there once.

    Raises:
        ConflictError: Others kept changing the sibling.
        StoreError: The store failed; what was copied stays, the rest is copied by the next call.
    """
    history = table.history()
    kept = Kept()
    for sibling, records in not_kept(table, history, days):
        reader = SliceReader(table, history.version)
        for start in range(0, len(records), CHUNK):
            found = []
            for record in records[start : start + CHUNK]:
                rows = reader.original(record)
                if rows is None or content_hash(rows.drop(KNOWN_AT)) != record.content_hash:
                    kept.lost.append(record)
                else:
                    found.append((record, rows))
            kept.copied.extend(sibling.keep(found) if found else ())
    return kept


def _current(history: History, day: date) -> int:
    return history.current[day].revision if day in history.current else 0
