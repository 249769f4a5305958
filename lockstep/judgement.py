"""What the seals of one view say, held against Delta and against what was seen before. Pure.

A seal lies in its bucket's slot, so that rows and seal are lost or rolled back together. What seals
can't show, rows that were evicted or changed under them, a sample of the rows does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from lockstep.last_look import Seen
from lockstep.layout import Seal
from lockstep.stores.day_index import Head
from lockstep.time import decode_revisions, span

Code: TypeAlias = Literal[
    "unreadable",  # a seal is not one that this release can read
    "wiping",  # the view is being removed, and nobody finishes it
    "foreign",  # rows of another Delta table
    "ahead",  # a seal of a version that Delta does not have
    "lost",  # buckets that had a seal have none
    "rolled_back",  # buckets have an older seal than before
    "unfinished",  # some buckets have no seal and nobody pushes
    "schema",  # rows cannot be decoded: their schema is gone
    "rows",  # rows are gone or changed under an intact seal
    "marked",  # it was marked not ready before, and nothing removed the mark
    "behind",  # committed days are not pushed
]

# A run that commits and pushes, or somebody's rebuild, goes through these by itself.
PATIENCE: Final[Mapping[Code, timedelta]] = {
    "foreign": timedelta(seconds=15),
    "wiping": timedelta(seconds=60),
    "unfinished": timedelta(seconds=60),
    "behind": timedelta(minutes=10),
}


@dataclass(frozen=True)
class Sealed:
    """What Redis says of one view.

    Attributes:
        seals: The seal of every bucket; None where there is none.
        tables: The Delta tables that its buckets belong to; `wiping <table>` during a wipe.
    """

    seals: Mapping[int, Seal | None]
    tables: frozenset[str]

    @property
    def empty(self) -> list[int]:
        """Buckets without a seal."""
        return [bucket for bucket, seal in self.seals.items() if seal is None]

    @property
    def there(self) -> list[Seal]:
        """The seals that are there."""
        return [seal for seal in self.seals.values() if seal is not None]

    @cached_property
    def revisions(self) -> Sequence[Mapping[date, int]]:
        """Day → sealed revision, of each bucket, those that say the same once."""
        texts = {seal.days if seal else "" for seal in self.seals.values()}
        return [decode_revisions(text) for text in sorted(texts)]

    @property
    def progress(self) -> str:
        """Changes with every seal that is set."""
        text = "\n".join(seal.text if seal else "" for seal in self.seals.values())
        return sha256(f"{text}\n{sorted(self.tables)}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Suspicion:
    """What is wrong with the seals of a view, in one sentence without names of entities."""

    code: Code
    sentence: str

    @property
    def patience(self) -> timedelta:
        """How long it may last, without any progress, before it is a finding."""
        return PATIENCE.get(self.code, timedelta(0))


def judge(sealed: Sealed, head: Head, ended: Mapping[date, int], seen: Seen) -> Suspicion | None:
    """Return what is wrong with the seals of one view; None if they are as they should be.

    Args:
        sealed: What Redis said, before `head` was read: so no seal is ahead of it by chance.
        head: What is committed.
        ended: Committed days that have ended → revision; the others are not pushed.
        seen: What the last look saw.
    """
    before = seen.version >= 0 and seen.table_id == head.table_id
    return (
        _of_another_table(sealed, head, before=before)
        or _too_new(sealed, head)
        or _gone(sealed, seen, before=before)
        or _too_old(sealed, ended)
    )


def _of_another_table(sealed: Sealed, head: Head, *, before: bool) -> Suspicion | None:
    if any(table.startswith("wiping ") for table in sealed.tables):
        return Suspicion("wiping", "It is being removed online, and pushes are refused meanwhile.")
    if sealed.tables - {head.table_id} or any(s.table_id != head.table_id for s in sealed.there):
        code: Code = "rolled_back" if before else "foreign"
        return Suspicion(code, "Rows of another Delta table than the committed one are online.")
    return None


def _too_new(sealed: Sealed, head: Head) -> Suspicion | None:
    newest = max((seal.version for seal in sealed.there), default=-1)
    if newest <= head.version:
        return None
    return Suspicion(
        "ahead", f"It is sealed at version {newest}, but Delta has only {head.version}."
    )


def _gone(sealed: Sealed, seen: Seen, *, before: bool) -> Suspicion | None:
    count = f"{len(sealed.empty)} of {len(sealed.seals)} buckets"
    if before and sealed.empty:
        return Suspicion("lost", f"{count} have lost their seal, and so perhaps their rows.")
    oldest = min((seal.version for seal in sealed.there), default=-1)
    if before and oldest < seen.version:
        return Suspicion(
            "rolled_back",
            f"It is sealed at version {oldest}, but was at {seen.version}: the server was rolled "
            "back.",
        )
    if sealed.empty and sealed.there:
        return Suspicion("unfinished", f"{count} have no seal, and nothing is being pushed.")
    return None


def _too_old(sealed: Sealed, ended: Mapping[date, int]) -> Suspicion | None:
    behind = {
        day
        for known in sealed.revisions
        for day, revision in ended.items()
        if known.get(day) != revision
    }
    if not behind:
        return None
    return Suspicion("behind", f"Committed but not pushed: {span(behind)}.")
