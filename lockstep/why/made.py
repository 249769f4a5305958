"""How committed days came about: run, code, inputs, verdicts, and what has changed since."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import date

from lockstep.compute import inputs_of, left_days
from lockstep.lake import LedgerEntry
from lockstep.reader import Reader
from lockstep.stores.causes import answering
from lockstep.stores.day_index import DayRecord, Head, History
from lockstep.time import decode_revisions
from lockstep.why.facts import Cell, Made, Since
from lockstep.why.offline import Asked
from lockstep.why.recompute import recomputed
from lockstep.why.upstream import revisions_of


def made_now(
    asked: Asked, head: Head, days: Sequence[date], reader: Reader, *, refused: bool
) -> Iterator[Made]:
    """Yield how committed days came about, and whether code and inputs would give the same now.

    Args:
        refused: The table refuses the declared contract: nothing can be compared with it.
    """
    view = asked.view
    entries = asked.lake.latest_entries(view.name, days) if days else {}
    for day in days:
        record = head.days[day]
        entry = entries.get(day)
        # A crash between commit and ledger leaves an entry of earlier content.
        known = entry if entry and entry.content_hash == record.content_hash else None
        made = _made(asked, record, known)
        if refused:
            yield replace(made, declared=made.code_version)
            continue
        restated = revisions_of(made.inputs, inputs_of(view, day, reader))
        made = replace(made, restated=restated)
        with answering(f"The table {asked.table.uri}"):
            rows = asked.table.scan([day], version=head.version).filter(asked.matches).collect()
        yield replace(made, recomputed=recomputed(asked, made, asked.value_in(rows), reader))


def made_then(
    asked: Asked, history: History, known: Cell, now: Cell, there: Collection[date]
) -> tuple[list[Made], Since]:
    """Return how the day of a past answer came about, and what was learnt of it since.

    Args:
        known: What could be answered then.
        now: What is answered for that instant today.
        there: The days of which something was known then.
    """
    days = sorted({day for day in (known.day, now.day) if day is not None})
    attempts = asked.lake.attempts(asked.view.name, days) if days else []
    by_revision = {(entry.day, entry.revision): entry for entry in attempts if _certifies(entry)}
    made = []
    before = _record_of(history, known)
    if before is not None:
        entry = by_revision.get((before.day, before.revision))
        found = _made(asked, before, entry)
        made = [replace(found, declared=found.code_version)]
    differs = _told(known) != _told(now)
    after = _successor(history, before, now)
    if after is None:
        return made, Since(now, differs)
    old = made[0] if made and made[0].day == after.day else None
    new = _made(asked, after, by_revision.get((after.day, after.revision)))
    return made, Since(
        replace(now, day=after.day),
        differs,
        corrected=after.day in there,
        known_at=after.known_at,
        other_code=old is not None and old.code_version != new.code_version,
        restated={} if old is None else revisions_of(old.inputs, new.inputs),
    )


def _made(asked: Asked, record: DayRecord, entry: LedgerEntry | None) -> Made:
    note = record.note
    noted = str(note.get("code_version", ""))
    inputs: dict[str, str] = dict(entry.inputs if entry else note.get("inputs", {}))
    left = {item.name: day for item, day in left_days(asked.view, record.day)}
    return Made(
        day=record.day,
        revision=record.revision,
        version=record.version,
        known_at=record.known_at,
        run_id=str(note.get("run_id") or (entry.run_id if entry else "")),
        code_version=entry.code_version if entry else noted,
        declared=asked.view.code_version,
        content_hash=record.content_hash,
        inputs=inputs,
        restated={},
        verdicts=list(entry.verdicts if entry else note.get("verdicts", ())),
        outcome=entry.outcome if entry else "committed",
        closing={n: left[n] for n in inputs if left.get(n) in decode_revisions(inputs[n])},
    )


def _certifies(entry: LedgerEntry) -> bool:
    return entry.outcome != "quarantined"


def _record_of(history: History, cell: Cell) -> DayRecord | None:
    if cell.day is None:
        return None
    return next((r for r in history.days[cell.day] if r.revision == cell.revision), None)


def _successor(history: History, before: DayRecord | None, now: Cell) -> DayRecord | None:
    """Return the newest record of the day that gives another answer today; None if it is none."""
    day = now.day or (before.day if before else None)
    if day is None:
        return None
    records = history.days[day]
    same = before is not None and before.day == day and records[-1].revision == before.revision
    return None if same else records[-1]


def _told(cell: Cell) -> tuple[bool, str]:
    """What a reader is told; NaN is NaN."""
    valid = cell.status in {"present", "null"}
    return valid, repr(cell.value) if valid else ""
