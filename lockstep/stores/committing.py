"""How audited days become one commit, or several: decided here, written by `stores/delta.py`."""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, Protocol

from lockstep.errors import ConflictError, LockstepError, StoreError
from lockstep.stores.causes import cause_of, fix_of
from lockstep.stores.day_index import Head
from lockstep.stores.delta_log import DayChange, LogCommit
from lockstep.stores.proposal import (
    Committed,
    Proposal,
    certified_at,
    change_of,
    landed,
    unchanged,
)

LOST_RACES: Final = 50


class DayWriter(Protocol):
    """One table, held at the version it was last opened at."""

    def head(self) -> Head:
        """Return what is certified at the version held."""

    def commits(self, after: int) -> list[LogCommit]:
        """Return the commits after that version, up to the one held."""

    def revision(self, day: date) -> int:
        """Return the day's transaction version at the version held; 0 if it never had one."""

    def write(
        self, chunk: Sequence[Proposal], changes: Sequence[DayChange], attempt: str
    ) -> Exception | None:
        """Write the days as one commit on top of the version held; return what went wrong."""

    def reopen(self) -> None:
        """Hold the newest version."""


def commit_days(
    table: DayWriter,
    name: str,
    proposals: Sequence[Proposal],
    notes: Mapping[date, Any],
    now: Callable[[], datetime],
    lost_race: Callable[[Exception], bool],
) -> list[Committed]:
    """Commit the days as one commit; after a lost race decide each again, one day per commit.

    A failed write may have arrived, so that after each failure the log decides what is done. What
    may replace one revision only is checked before each write; a write on top of another is lost.

    Raises:
        ConflictError: Others kept winning, or certified another revision than a day may replace.
        StoreError: The store failed, or the table contradicts its log.
    """
    pending = {proposal.day: proposal for proposal in proposals}
    done: dict[date, Committed] = {}
    attempt, start = uuid.uuid4().hex, table.head().version
    failure: Exception | None = None
    lost, alone = 0, False
    while True:
        head = table.head()
        done |= unchanged(head, pending) | landed(table.commits(start), attempt)
        pending = {day: pending[day] for day in pending if day not in done}
        if not pending:
            return [done[proposal.day] for proposal in proposals]
        _require_onto(name, head, pending.values(), done)
        if failure is not None and not (lost_race(failure) and lost <= LOST_RACES):
            raise _gave_up(name, failure, pending, done, race=lost_race(failure)) from None
        chunk = list(pending.values())[: 1 if alone else None]
        known_at = certified_at(now(), (head.days.get(item.day) for item in chunk))
        changes = [
            change_of(
                item,
                revision=_next_revision(table, name, head, item.day),
                known_at=known_at,
                note=notes[item.day],
            )
            for item in chunk
        ]
        failure = table.write(chunk, changes, attempt)
        if failure is None:
            lost = 0
        else:
            lost, alone = lost + 1, True
            table.reopen()


def _require_onto(
    name: str, head: Head, pending: Collection[Proposal], done: Collection[date]
) -> None:
    """Return if every day has the revision that its proposal may replace, or it may replace any."""
    for item in pending:
        there = head.days[item.day].revision if item.day in head.days else 0
        if item.onto is not None and item.onto != there:
            raise ConflictError(
                f"Others certified {item.day} of {name} meanwhile.",
                expected=f"revision {item.onto}",
                got=f"revision {there}",
                fix="Look at what is certified now, and decide again.",
                effect=_effect(done, [proposal.day for proposal in pending]),
            )


def _next_revision(table: DayWriter, name: str, head: Head, day: date) -> int:
    stored = table.revision(day)
    record = head.days.get(day)
    if record is not None and record.revision != stored:
        raise StoreError(
            f"The table of {name} contradicts its log about {day}.",
            expected=f"revision {record.revision}",
            got=f"transaction version {stored}",
            fix=f"Rebuild it with `lockstep materialize {name} --rebuild`.",
            effect="Nothing was written.",
        )
    return stored + 1


def _gave_up(
    name: str,
    failure: Exception,
    pending: Collection[date],
    done: Collection[date],
    *,
    race: bool,
) -> LockstepError:
    left = ", ".join(sorted(map(str, pending)))
    effect = _effect(done, pending)
    cause = cause_of(failure)
    if race:
        return ConflictError(
            f"Others kept changing {name} while {left} was being committed.",
            got=cause,
            fix="Run fewer writers of the same days, then run again.",
            effect=effect,
        )
    return StoreError(
        f"The days {left} of {name} could not be written.",
        got=cause,
        fix=fix_of(cause),
        effect=effect,
    )


def _effect(done: Collection[date], pending: Collection[date]) -> str:
    certified, left = (", ".join(sorted(map(str, days))) for days in (done, pending))
    return f"Certified: {certified or 'no day'}. Not written: {left}."
