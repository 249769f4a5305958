"""The places of one lake: a table per source, snapshot and view, the ledger and the profiles."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from lockstep.profile import ColumnProfile, EntityCounts, TrainedOn
from lockstep.project import Project
from lockstep.set_folder import MANIFEST, in_set
from lockstep.sources import Readable, Snapshot, Source
from lockstep.stores.append_log import AppendLog
from lockstep.stores.causes import answering
from lockstep.stores.delta import DayTable
from lockstep.stores.files import Place, open_place, probe_conditional_put
from lockstep.superseded import keep_superseded
from lockstep.time import INSTANT

Outcome: TypeAlias = Literal["committed", "unchanged", "quarantined", "released"]
_CERTIFIED: Final[Sequence[Outcome]] = ("committed", "unchanged", "released")

LEDGER_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "view": pl.String(),
    "day": pl.Date(),
    "revision": pl.Int64(),
    "outcome": pl.String(),
    "recorded_at": INSTANT,
    "run_id": pl.String(),
    "code_version": pl.String(),
    "content_hash": pl.String(),
    "inputs": pl.String(),
    "verdicts": pl.String(),
}
PROFILE_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "view": pl.String(),
    "day": pl.Date(),
    "revision": pl.Int64(),
    "feature": pl.String(),
    "profile": pl.String(),
}
TRAINING_PROFILE_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "view": pl.String(),
    "feature": pl.String(),
    "name": pl.String(),
    "created_at": INSTANT,
    "profile": pl.String(),
}

_ENTITIES: Final = ""
"""Stands for a feature's name in the row of `profiles/` that holds a day's entity counts."""

LEAST_TRAINING_ROWS: Final = 1_000
"""Fewer rows of a training set say little of how a feature is distributed."""


@dataclass(frozen=True)
class LedgerEntry:
    """One recomputation of one day, also one that changed nothing.

    Attributes:
        revision: The revision that the day had afterwards; 0 if it has none.
        inputs: Parameter → days and revisions read (a view), or files read (a source).
    """

    view: str
    day: date
    revision: int
    outcome: Outcome
    recorded_at: datetime
    run_id: str
    code_version: str
    content_hash: str
    inputs: Mapping[str, str]
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Produced:
    """Which version of the code last produced which content of one day."""

    content_hash: str
    code_version: str


class Lake:
    """Opens the tables of a project's lake, on the local disk and on S3 alike."""

    def __init__(self, project: Project, options: Mapping[str, str] | None = None) -> None:
        self.project = project
        self.place = open_place(project.root, options)
        self._recorded_at = datetime.min.replace(tzinfo=UTC)

    def table(self, of: Readable) -> DayTable:
        """Return the table of a source or snapshot (bronze) or of a view (offline)."""
        bronze = isinstance(of, (Source, Snapshot))
        types = {name: str(dtype) for name, dtype in of.columns.items()}
        return DayTable(
            self.place.path(f"{'bronze' if bronze else 'offline'}/{of.name}"),
            of.columns,
            name=of.name,
            zone=self.project.zone.key,
            contract=json.dumps(types),
            options=self.place.options,
        )

    def keep_superseded(self, view: Readable, days: Collection[date]) -> None:
        """Copy what was superseded of a view's days beside its table, unless it is there already.

        Raises:
            ConflictError: Others kept changing the copies.
            StoreError: The store failed; the next call makes up for it.
        """
        keep_superseded(self.table(view), days)

    def require_safe_commits(self) -> None:
        """Return if the store lets one of two writers of the same version win; else raise.

        Asked once per process and place; on a local disk there is nothing to ask.

        Raises:
            StoreError: The store ignores If-None-Match, refuses, or does not answer. Nothing was
                written.
        """
        if self.place.remote:
            _probe_once(self.place.uri, tuple(sorted(self.place.options.items())))

    @property
    def landing(self) -> Place:
        """The landing zone."""
        return open_place(self.project.landing, self.place.options)

    @property
    def landing_cache(self) -> Place:
        """What was learnt of landed files."""
        return self.place.join("bronze/_landing")

    @property
    def quarantine(self) -> Place:
        """Where frames and files that failed go; nothing reads it but people."""
        return self.place.join("quarantine")

    @cached_property
    def _ledger(self) -> AppendLog:
        return AppendLog(self.place.path("ledger"), LEDGER_COLUMNS, options=self.place.options)

    @cached_property
    def _profiles(self) -> AppendLog:
        return AppendLog(self.place.path("profiles"), PROFILE_COLUMNS, options=self.place.options)

    @cached_property
    def _training_profiles(self) -> AppendLog:
        place = self.place.path("training_profiles")
        return AppendLog(place, TRAINING_PROFILE_COLUMNS, options=self.place.options)

    def record(self, entries: Iterable[LedgerEntry]) -> None:
        """Append to the ledger."""
        entries = [replace(entry, recorded_at=self._after(entry.recorded_at)) for entry in entries]
        rows = [
            {
                **vars(entry),
                "inputs": json.dumps(dict(entry.inputs)),
                "verdicts": json.dumps([dict(verdict) for verdict in entry.verdicts]),
            }
            for entry in entries
        ]
        if rows:
            self._ledger.append(pl.DataFrame(rows, schema=dict(LEDGER_COLUMNS)))

    def _after(self, instant: datetime) -> datetime:
        """Return the instant, or just after the last one recorded if that is later: no ties."""
        self._recorded_at = max(instant, self._recorded_at + timedelta(microseconds=1))
        return self._recorded_at

    def latest_entries(
        self, view: str, days: Collection[date] | None = None
    ) -> dict[date, LedgerEntry]:
        """Return day → the newest recomputation of it that was committed or changed nothing."""
        newest = self._latest(view, days, _CERTIFIED)
        return {row["day"]: _entry(row) for row in newest.iter_rows(named=True)}

    def latest_attempts(
        self, view: str, days: Collection[date] | None = None
    ) -> dict[date, LedgerEntry]:
        """Return day → the newest recomputation of it, whatever came of it."""
        newest = self._latest(view, days, (*_CERTIFIED, "quarantined"))
        return {row["day"]: _entry(row) for row in newest.iter_rows(named=True)}

    def attempts(self, view: str, days: Collection[date]) -> list[LedgerEntry]:
        """Return every recomputation of the days, whatever came of it, oldest first."""
        rows = self._ledger.scan().filter(pl.col("view") == view, pl.col("day").is_in(list(days)))
        with answering(f"The ledger of {self.place.uri}"):
            found = rows.sort("recorded_at").collect()
        return [_entry(row) for row in found.iter_rows(named=True)]

    def produced(self, view: str) -> dict[date, Produced]:
        """Return day → what the code last produced; reads a fifth of what `latest_entries` does."""
        columns = ["day", "revision", "recorded_at", "content_hash", "code_version"]
        newest = self._latest(view, None, _CERTIFIED, columns)
        rows = newest.select("day", "content_hash", "code_version").iter_rows()
        return {day: Produced(content, code) for day, content, code in rows}

    def _latest(
        self,
        view: str,
        days: Collection[date] | None,
        outcomes: Sequence[Outcome],
        columns: Sequence[str] = tuple(LEDGER_COLUMNS),
    ) -> pl.DataFrame:
        rows = self._ledger.scan().filter(
            pl.col("view") == view, pl.col("outcome").is_in(list(outcomes))
        )
        if days is not None:
            rows = rows.filter(pl.col("day").is_in(list(days)))
        with answering(f"The ledger of {self.place.uri}"):
            found = rows.select(columns).collect()
        return found.sort("revision", "recorded_at").unique("day", keep="last")

    def record_profiles(
        self,
        view: str,
        profiles: Mapping[tuple[date, int], Mapping[str, ColumnProfile]],
        entities: Mapping[tuple[date, int], EntityCounts] | None = None,
    ) -> None:
        """Append (day, revision) → feature → profile, and the days' entity counts, if known."""
        rows = [
            (view, day, revision, feature, json.dumps(column.to_json()))
            for (day, revision), columns in profiles.items()
            for feature, column in columns.items()
        ]
        rows += [
            (view, day, revision, _ENTITIES, json.dumps(counts.to_json()))
            for (day, revision), counts in (entities or {}).items()
        ]
        if rows:
            self._profiles.append(pl.DataFrame(rows, schema=dict(PROFILE_COLUMNS), orient="row"))

    def profiles(
        self, view: str, revisions: Mapping[date, int]
    ) -> dict[date, dict[str, ColumnProfile]]:
        """Return day → feature → profile of the given revisions; unprofiled days are absent."""
        found: dict[date, dict[str, ColumnProfile]] = {}
        kept = self._kept_of(view, revisions, pl.col("feature") != _ENTITIES)
        for day, feature, text in kept.iter_rows():
            found.setdefault(day, {})[feature] = ColumnProfile.from_json(json.loads(text))
        return found

    def entity_counts(self, view: str, revisions: Mapping[date, int]) -> dict[date, EntityCounts]:
        """Return day → entities seen, new and gone when its revision was computed.

        The first day has none, nor does one whose day before could not be read.
        """
        kept = self._kept_of(view, revisions, pl.col("feature") == _ENTITIES)
        return {
            day: EntityCounts.from_json(json.loads(text))
            for day, text in kept.select("day", "profile").iter_rows()
        }

    def _kept_of(self, view: str, revisions: Mapping[date, int], which: pl.Expr) -> pl.DataFrame:
        """Return day, feature and text of what is kept in `profiles/` of the given revisions."""
        columns = ["day", "feature", "profile"]
        if not revisions:
            return pl.DataFrame(schema={name: PROFILE_COLUMNS[name] for name in columns})
        wanted = pl.LazyFrame(
            {"day": list(revisions), "revision": list(revisions.values())},
            schema={"day": pl.Date, "revision": pl.Int64},
        )
        scan = self._profiles.scan().filter(
            pl.col("view") == view, pl.col("day").is_in(list(revisions)), which
        )
        with answering(f"The profiles of {self.place.uri}"):
            rows = scan.join(wanted, on=["day", "revision"], how="semi").collect()
        return rows.select(columns)

    def record_training_profiles(
        self, name: str, created_at: datetime, profiles: Mapping[str, ColumnProfile]
    ) -> None:
        """Append the profile of each `view:feature` of a kept training set, unless it is there."""
        there = self._training_profiles.scan().filter(
            pl.col("name") == name, pl.col("created_at") == created_at
        )
        with answering(f"The training profiles of {self.place.uri}"):
            if there.head(1).collect().height:
                return
        rows = [
            (*feature.split(":", 1), name, created_at, json.dumps(column.to_json()))
            for feature, column in profiles.items()
        ]
        if rows:
            schema = dict(TRAINING_PROFILE_COLUMNS)
            self._training_profiles.append(pl.DataFrame(rows, schema=schema, orient="row"))

    def training_reference(self, view: str) -> dict[str, TrainedOn]:
        """Return feature → its profile in the newest training set that the lake still keeps.

        What models of today were trained on: drift is measured against it. A set counts for a
        feature if at least `LEAST_TRAINING_ROWS` of its rows had a row of the view, and if the
        profile has values: that of what identifies people has none.
        """
        scan = self._training_profiles.scan().filter(pl.col("view") == view)
        with answering(f"The training profiles of {self.place.uri}"):
            rows = scan.sort("created_at", "name", descending=True).collect()
        kept = cache(self._keeps_set)
        found: dict[str, TrainedOn] = {}
        for row in rows.iter_rows(named=True):
            profile = ColumnProfile.from_json(json.loads(row["profile"]))
            enough = profile.rows >= LEAST_TRAINING_ROWS and (profile.sketch or profile.counts)
            if row["feature"] in found or not enough or not kept(row["name"], row["created_at"]):
                continue
            found[row["feature"]] = TrainedOn(row["name"], profile)
        return found

    def _keeps_set(self, name: str, created_at: datetime) -> bool:
        """Whether the lake still keeps that set: not removed, nor another of the same name."""
        content = self.place.read_if_exists(in_set(name, MANIFEST))
        try:
            said = json.loads(content or b"{}").get("created_at", "")
            return bool(datetime.fromisoformat(said) == created_at)
        except (ValueError, TypeError, AttributeError):  # removed, or damaged
            return False


@cache
def _probe_once(uri: str, options: tuple[tuple[str, str], ...]) -> None:
    probe_conditional_put(uri, dict(options))


def _entry(row: Mapping[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        **{
            **row,
            "inputs": json.loads(row["inputs"]),
            "verdicts": json.loads(row["verdicts"]),
        }
    )
