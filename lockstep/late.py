"""Late and duplicate events of a source: how many, whether that is usual, and what got stale.

When late rows came stands in the note of the commit that brought them: a run that finds a day as it
was commits nothing, and so makes no old row late again, however the ledger counts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl

from lockstep.affected import affected_days
from lockstep.lake import Lake, LedgerEntry
from lockstep.reader import Reader
from lockstep.sources import Source
from lockstep.status import stale_days
from lockstep.stores.causes import answering
from lockstep.stores.day_index import DayRecord
from lockstep.stores.delta import DayTable
from lockstep.time import span
from lockstep.view import FeatureView

LATE: Final = "late"
CAME: Final = "late_came"
"""In the note of a day: date (UTC) → how many late rows came then; those of the last weeks."""
DUPLICATES: Final = "duplicates"
LAST_DAYS: Final = 7
USUAL_DAYS: Final = 28
MORE_THAN_USUAL: Final = 3.0
TOLERATED: Final = 0.01
"""A share of the rows that is never more than usual."""
LEAST_ROWS: Final = 10
"""Fewer rows than these are never more than usual."""


@dataclass(frozen=True)
class LateAndDuplicate:
    """What came late or twice to a source lately.

    Attributes:
        rows: Rows of the last seven committed days.
        late: Rows that came to certified days within the last week.
        late_days: The days that they belong to.
        usual_late: Such rows per week in the four weeks before.
        duplicates: Rows of the last seven committed days that were delivered again.
        usual_duplicates: Such rows per seven days in the four weeks before.
        stale: View → its committed days that have not been computed with the late rows.
    """

    source: str
    rows: int
    late: int
    late_days: Sequence[date]
    usual_late: float
    duplicates: int
    usual_duplicates: float
    stale: Mapping[str, Sequence[date]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether neither is more than usual."""
        return not (self._much(self.late, self.usual_late) or self.much_duplicated)

    @property
    def much_duplicated(self) -> bool:
        """Whether more rows than usual were delivered again."""
        return self._much(self.duplicates, self.usual_duplicates)

    def _much(self, count: int, usual: float) -> bool:
        tolerated = max(MORE_THAN_USUAL * usual, TOLERATED * self.rows, LEAST_ROWS)
        return count > tolerated

    @property
    def sentence(self) -> str:
        """The result in one sentence, and what to do if it is more than usual."""
        late = f"{self.late} rows came late{_days(self.late_days)} within a week"
        twice = f"{self.duplicates} of the last {LAST_DAYS} days were delivered again"
        usual = f"(usual: {self.usual_late:g} and {self.usual_duplicates:g})"
        stale = ", ".join(f"{view} {span(days)}" for view, days in self.stale.items() if days)
        waits = f" Not computed with them yet: {stale}." if stale else ""
        if self.holds:
            return f"{self.source}: {late}, {twice} {usual}.{waits}"
        asks = "Ask its owner what changed in the delivery."
        return f"{self.source}: {late}, {twice}: more than usual {usual}.{waits} {asks}"


def _days(days: Sequence[date]) -> str:
    return f" to {span(days)}" if days else ""


def late_rows(
    table: DayTable,
    record: DayRecord | None,
    content_hash: str,
    frame: pl.DataFrame,
    key: Sequence[str],
) -> int:
    """Return how many rows of a day came after it was first certified, earlier ones included.

    Args:
        record: What is certified of the day; None if nothing is, and nothing can be late.
        content_hash: Of the frame.
        frame: All rows of the day, one per key.
        key: The columns that identify a row.
    """
    if record is None:
        return 0
    before = _count_of(record)
    if record.content_hash == content_hash:
        return before
    with answering(f"The table {table.uri}"):
        known = table.scan([record.day]).select(key).collect(engine="in-memory")
    return before + frame.join(known, on=list(key), how="anti").height


def late_note(record: DayRecord | None, late: int, now: datetime) -> dict[str, Any]:
    """Return what a commit notes of a day's late rows: their number, and when they came.

    Args:
        record: What is certified of the day.
        late: What `late_rows` says of the rows to commit.
    """
    came = {} if record is None else dict(_came(record))
    today, fresh = now.astimezone(UTC).date(), late - _count_of(record)
    if fresh > 0:
        came[today] = came.get(today, 0) + fresh
    oldest = today - timedelta(days=LAST_DAYS + USUAL_DAYS)
    kept = {str(day): count for day, count in sorted(came.items()) if day > oldest}
    return {LATE: late, CAME: kept} if late else {LATE: 0}


def _count_of(record: DayRecord | None) -> int:
    return 0 if record is None else int(record.note.get(LATE, 0))


def _came(record: DayRecord) -> dict[date, int]:
    """Return date (UTC) → late rows that came then; all at once where only a number was noted."""
    late, came = _count_of(record), record.note.get(CAME)
    if came is None:
        return {record.known_at.astimezone(UTC).date(): late} if late else {}
    return {date.fromisoformat(day): int(count) for day, count in came.items()}


def delivered(counts: Mapping[str, int]) -> dict[str, str]:
    """Return what the ledger keeps of a delivery: also of one that changed nothing."""
    if "late_rows" not in counts:
        return {}
    return {LATE: str(counts["late_rows"]), DUPLICATES: str(counts["duplicates_dropped"])}


def late_and_duplicate(
    lake: Lake,
    source: Source,
    now: datetime,
    views: Sequence[FeatureView] = (),
    reader: Reader | None = None,
) -> LateAndDuplicate | None:
    """Return what came late or twice to a source lately; None if nothing of it is committed.

    Args:
        views: All views, each after those it reads.
        reader: Tells which days of them are stale; without it nothing is said of that.
    """
    head = lake.table(source).head_or_none()
    if head is None or not head.days:
        return None
    days = sorted(head.days)[-(LAST_DAYS + USUAL_DAYS) :]
    entries = lake.latest_entries(source.name, days)
    last, before = days[-LAST_DAYS:], days[:-LAST_DAYS]
    fresh = now.astimezone(UTC).date() - timedelta(days=LAST_DAYS)
    month = fresh - timedelta(days=USUAL_DAYS)
    came = [(at, day, n) for day, rec in head.days.items() for at, n in _came(rec).items()]
    lately = sorted({day for at, day, _ in came if at > fresh})
    weeks = USUAL_DAYS / LAST_DAYS
    twice = {day: _count(entries.get(day), DUPLICATES) for day in days}
    return LateAndDuplicate(
        source=source.name,
        rows=sum(head.days[day].rows for day in last),
        late=sum(count for at, _, count in came if at > fresh),
        late_days=lately,
        usual_late=sum(count for at, _, count in came if month < at <= fresh) / weeks,
        duplicates=sum(twice[day] for day in last),
        usual_duplicates=sum(twice[d] for d in before) * LAST_DAYS / len(before) if before else 0,
        stale=_stale(lake, source, lately, views, reader) if lately and reader else {},
    )


def _count(entry: LedgerEntry | None, word: str) -> int:
    """Return what the ledger says; entries that were written before it was kept say nothing."""
    return 0 if entry is None else int(entry.inputs.get(word, 0))


def _stale(
    lake: Lake,
    source: Source,
    late: Sequence[date],
    views: Sequence[FeatureView],
    reader: Reader,
) -> dict[str, Sequence[date]]:
    """Return view → the committed days that read a late day and have not been computed since."""
    built = {view.name: reader.head(view).days for view in views}
    newest = max((day for days in built.values() for day in days), default=max(late))
    reached = affected_days(views, {source.name: late}, newest)
    found: dict[str, Sequence[date]] = {}
    for view in views:
        days = reached.get(view.name, set())
        records = {day: record for day, record in built[view.name].items() if day in days}
        if records:
            ledger = lake.latest_entries(view.name, days)
            if stale := stale_days(view, records, ledger, reader):
                found[view.name] = stale
    return found
