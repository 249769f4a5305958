"""What may be committed to the offline store and what came of it: checks and decisions, no I/O."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl

from lockstep.errors import ConfigError, ContractChangedError, InputError, StoreError
from lockstep.stores.day_index import DayRecord, Head
from lockstep.stores.delta_log import DataFile, DayChange, LogCommit
from lockstep.types import type_problem

UTC_INSTANT: Final = pl.Datetime("us", "UTC")
DAY: Final = "day"
KNOWN_AT: Final = "known_at"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NOTHING_WRITTEN: Final = "Nothing was written."


@dataclass(frozen=True)
class Proposal:
    """One audited day: `frame` has exactly the declared columns, sorted by key and canonical.

    `content_hash` is `lockstep.hashing.content_hash(frame)`; `note` must be JSON-able.
    `onto` is the only revision of the day that it may replace (0: none); None replaces any.
    """

    day: date
    frame: pl.DataFrame
    content_hash: str
    note: Mapping[str, Any]
    onto: int | None = None


@dataclass(frozen=True)
class Committed:
    """What a commit made of one day; `changed` is False when the content was there already."""

    day: date
    revision: int
    version: int
    known_at: datetime
    changed: bool


@dataclass(frozen=True)
class Live:
    """A table as of `head.version`: every file it consists of, and the transaction versions."""

    head: Head
    files: Sequence[DataFile]
    revisions: Mapping[date, int]


def stored_schema(columns: Mapping[str, pl.DataType]) -> pl.Schema:
    """Return what a table of days stores: the declared columns, `known_at`, `day`."""
    return pl.Schema({**columns, KNOWN_AT: UTC_INSTANT, DAY: pl.Date()})


def stamped(proposal: Proposal, known_at: datetime) -> pl.DataFrame:
    """Return the proposal's rows, in order, with `known_at` and `day` added."""
    return proposal.frame.with_columns(
        pl.lit(known_at, UTC_INSTANT).alias(KNOWN_AT), pl.lit(proposal.day, pl.Date).alias(DAY)
    )


def unchanged(head: Head, pending: Mapping[date, Proposal]) -> dict[date, Committed]:
    """Return the days whose content is certified already, as they are."""
    same = [
        head.days[day]
        for day, proposal in pending.items()
        if day in head.days and head.days[day].content_hash == proposal.content_hash
    ]
    return {
        record.day: Committed(
            record.day, record.revision, record.version, record.known_at, changed=False
        )
        for record in same
    }


def landed(commits: Iterable[LogCommit], attempt: str) -> dict[date, Committed]:
    """Return the days that one call committed, whatever answer it got."""
    return {
        change.day: Committed(
            change.day, change.revision, commit.version, change.known_at, changed=True
        )
        for commit in commits
        if commit.attempt == attempt
        for change in commit.changes
    }


def change_of(
    proposal: Proposal, *, revision: int, known_at: datetime, note: Mapping[str, Any]
) -> DayChange:
    """Return what the log will say about the day."""
    return DayChange(
        day=proposal.day,
        revision=revision,
        content_hash=proposal.content_hash,
        known_at=known_at,
        rows=proposal.frame.height,
        note=note,
    )


def certified_at(now: datetime, replaced: Iterable[DayRecord | None]) -> datetime:
    """Return `now` in UTC, but later than each `known_at` that it replaces.

    Raises:
        InputError: `now` has no zone.
    """
    if now.utcoffset() is None:
        raise InputError("A clock without a zone was passed.", expected="UTC", got=str(now))
    after = [record.known_at + timedelta(microseconds=1) for record in replaced if record]
    return max([now.astimezone(UTC), *after])


def check_proposals(
    name: str, proposals: Sequence[Proposal], columns: Mapping[str, pl.DataType]
) -> dict[date, Any]:
    """Return day → note, as the log will give it back, if every proposal fits.

    Raises:
        InputError: A day is proposed twice, a frame has other columns, a note is not JSON.
    """
    seen: set[date] = set()
    for proposal in proposals:
        if proposal.day in seen or isinstance(proposal.day, datetime):
            raise InputError(
                f"The day {proposal.day} of {name} cannot be committed.",
                expected="a date that is proposed once",
                effect=_NOTHING_WRITTEN,
            )
        seen.add(proposal.day)
        check_frame(f"{name} for {proposal.day}", proposal.frame, columns)
    return {proposal.day: _jsonable(name, proposal.note) for proposal in proposals}


def check_frame(what: str, frame: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> None:
    """Return if the frame has exactly these columns: the writer would cast without a word.

    Raises:
        InputError: A column is missing, extra, elsewhere or of another type.
    """
    if frame.schema != pl.Schema(columns):
        raise InputError(
            f"The rows of {what} do not have the declared columns.",
            expected=str(dict(columns)),
            got=str(dict(frame.schema)),
            effect=_NOTHING_WRITTEN,
        )


def check_columns(
    name: str, columns: Mapping[str, pl.DataType], *, reserved: Collection[str]
) -> None:
    """Return if a table of that name and columns comes back from Delta as it went in.

    Raises:
        ConfigError: With every problem.
    """
    problems = [f"'{column}' is added by the store." for column in columns if column in reserved]
    if not _NAME.fullmatch(name):
        problems.append("A name is lower-case letters, digits and '_', 63 at most.")
    if not columns:
        problems.append("There is no column.")
    problems += filter(None, (type_problem(column, dtype) for column, dtype in columns.items()))
    if problems:
        raise ConfigError(
            f"The table {name!r} cannot be stored. {' '.join(problems)}", effect=_NOTHING_WRITTEN
        )


def check_fixed(uri: str, declared: Mapping[str, str], stored: Mapping[str, str]) -> None:
    """Return if the properties fixed at creation are those declared now.

    Raises:
        ConfigError: One differs, for instance the partition time zone.
    """
    for key, value in declared.items():
        if stored.get(key) != value:
            raise ConfigError(
                f"The table {uri} was created with another {key.removeprefix('lockstep.')}.",
                expected=repr(value),
                got=repr(stored.get(key)),
                fix="Set it back, or rebuild: `lockstep materialize VIEW --rebuild`.",
                effect=_NOTHING_WRITTEN,
            )


def check_contract(
    name: str,
    *,
    declared: pl.Schema,
    stored: pl.Schema,
    contract: str | None = None,
    stored_contract: str | None = None,
) -> None:
    """Return if a table was built by the declared contract.

    Raises:
        ContractChangedError: Columns were added, removed, retyped or moved, or the text differs.
    """
    if stored == declared and contract == stored_contract:
        return
    differences = [
        *(f"{column} added" for column in declared if column not in stored),
        *(f"{column} removed" for column in stored if column not in declared),
        *(
            f"{column} was {stored[column]}, is {dtype}"
            for column, dtype in declared.items()
            if column in stored and stored[column] != dtype
        ),
    ]
    if not differences:
        moved = list(stored) != list(declared)
        differences = [
            f"order was {', '.join(stored)}" if moved else f"{stored_contract} became {contract}"
        ]
    raise ContractChangedError(
        f"The contract of {name} is not the one its table was built by: {'; '.join(differences)}.",
        fix=f"Build a new table with `lockstep materialize {name} --rebuild`.",
        effect=_NOTHING_WRITTEN,
    )


def damaged_day(name: str, record: DayRecord, got: str) -> StoreError:
    """Return the error about a day whose rows are not those that were certified."""
    return StoreError(
        f"The rows of {name} for {record.day} are not those that were certified.",
        expected=f"content {record.content_hash} of revision {record.revision}",
        got=got,
        fix="Restore the day's file from a backup, or rebuild the view.",
        effect="Nothing was written or served from it.",
    )


def _jsonable(name: str, note: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(dict(note), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The note of {name} cannot be written to the log.",
            expected="JSON without NaN",
            got=str(error),
            effect=_NOTHING_WRITTEN,
        ) from error
