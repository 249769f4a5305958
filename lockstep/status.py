"""What is true of a project now, as data: per view, per source, and of the online store.

Nothing here writes to the lake, except the cache of what was learnt of landed files.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar

from lockstep.compute import inputs_of
from lockstep.errors import ContractChangedError, OnlineError
from lockstep.freshness import Freshness, freshness
from lockstep.lake import Lake, LedgerEntry, Produced
from lockstep.landing import look
from lockstep.parity import unsealed_days
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.reader import Reader
from lockstep.sources import Readable, Snapshot, Source
from lockstep.stores.delta import DayRecord
from lockstep.stores.redis import OnlineStore, ServerInfo
from lockstep.time import days_between
from lockstep.view import FeatureView

_Noted = TypeVar("_Noted", LedgerEntry, Produced)


@dataclass(frozen=True)
class FeatureFacts:
    """One feature as declared."""

    name: str
    type: str
    description: str
    unit: str | None
    pii: bool


@dataclass(frozen=True)
class DayFacts:
    """The newest recomputation of a day, whatever came of it.

    Attributes:
        outcome: "committed", "unchanged", "released" or "quarantined".
        revision: What the day had afterwards; 0 if it has none.
        verdicts: The checks as JSON-able mappings: check, passed, message, numbers, severity.
    """

    day: date
    outcome: str
    revision: int
    recorded_at: datetime
    verdicts: Sequence[Mapping[str, object]]

    @property
    def failed(self) -> list[str]:
        """The checks that failed, warnings included, released ones not."""
        return [str(v["check"]) for v in self.verdicts if not (v["passed"] or v.get("released"))]


@dataclass(frozen=True)
class ViewFacts:
    """One view: what it promises, what is committed, and what somebody should look at.

    Attributes:
        days: Committed days, in order.
        gaps: Days between the first and the last that are not committed.
        last: The newest attempt at the newest day; None if there was none.
        code_versions: Version of the code → the days whose content it last produced.
        outdated: Days that another version than the declared one last produced.
        stale: Days of which an input has another revision now than when they were last computed.
        quarantined: Open items of the quarantine.
        contract_changed: Why the table refuses the declared contract; None if it does not.
        soda: The Soda file beside the view file and its checks, in words; empty if there is none.
    """

    name: str
    description: str
    owner: str
    entity: str
    keys: Sequence[str]
    features: Sequence[FeatureFacts]
    file: str
    code_version: str
    freshness: Freshness
    days: Sequence[date]
    gaps: Sequence[date]
    last: DayFacts | None
    code_versions: Mapping[str, Sequence[date]]
    outdated: Sequence[date]
    stale: Sequence[date]
    quarantined: Sequence[str]
    contract_changed: str | None
    soda: str = ""


@dataclass(frozen=True)
class HeldFile:
    """A landed file that breaks its schema and holds back the days it may touch (None: any)."""

    path: str
    reason: str
    days: Sequence[str] | None


@dataclass(frozen=True)
class SourceFacts:
    """One source or snapshot: what has landed and what of it is committed.

    Attributes:
        kind: "source" or "snapshot".
        files: Landed files that keep the schema.
        held: Refused files that wait for a fix or a release.
        days: Committed days, in order; of a snapshot none or the one it is stored under.
        gaps: Days between the first and the last that are not committed.
        waiting: Days with files that the committed day was not read from; ingest them.
        waits: Whether anything waits to be ingested (a snapshot has no days to name).
    """

    name: str
    kind: str
    owner: str
    description: str
    files: int
    held: Sequence[HeldFile]
    days: Sequence[date]
    gaps: Sequence[date]
    waiting: Sequence[date]
    waits: bool


@dataclass(frozen=True)
class OnlineFacts:
    """The online store: what it says of itself, or why it does not answer."""

    address: str
    namespace: str
    server: ServerInfo | None
    problem: str | None


@dataclass(frozen=True)
class SealFacts:
    """Which committed days of a view the online store has not sealed; None if it does not say."""

    view: str
    committed: int
    unsealed: Sequence[date] | None


def view_facts(lake: Lake, view: FeatureView, reader: Reader, now: datetime) -> ViewFacts:
    """Return the facts of one view at an instant, from the lake alone."""
    records = reader.head(view).days
    ledger = lake.latest_entries(view.name) if records else {}
    versions = code_versions(records, ledger)
    contract = view.contract
    return ViewFacts(
        name=view.name,
        description=view.description,
        owner=contract.owner,
        entity=contract.entity.name,
        keys=contract.keys,
        features=[
            FeatureFacts(f.name, str(f.type), f.description, f.unit, f.pii)
            for f in contract.features.values()
        ],
        file=str(view.file),
        code_version=view.code_version,
        freshness=freshness(lake, view, now),
        days=sorted(records),
        gaps=gaps(records),
        last=_last(lake, view),
        code_versions=versions,
        outdated=sorted(
            day
            for version, days in versions.items()
            if version != view.code_version
            for day in days
        ),
        stale=stale_days(view, records, ledger, reader),
        quarantined=[item.item for item in _open_items(lake, view)],
        contract_changed=_contract_changed(lake, view),
        soda=f"{view.soda.name}: {', '.join(view.soda.checks)}" if view.soda else "",
    )


def gaps(days: Collection[date]) -> list[date]:
    """Return the days between the first and the last that are missing, in order."""
    if not days:
        return []
    return [day for day in days_between(min(days), max(days)) if day not in days]


def code_versions(
    records: Mapping[date, DayRecord], ledger: Mapping[date, _Noted]
) -> dict[str, list[date]]:
    """Return version → the committed days whose content that code last produced, in order.

    A recomputation that changed nothing counts: its code gives the same content.
    """
    found: dict[str, list[date]] = {}
    for day in sorted(records):
        entry = _entry(records[day], ledger.get(day))
        noted = str(records[day].note.get("code_version", ""))
        found.setdefault(entry.code_version if entry else noted, []).append(day)
    return found


def stale_days(
    view: FeatureView,
    records: Mapping[date, DayRecord],
    ledger: Mapping[date, LedgerEntry],
    reader: Reader,
) -> list[date]:
    """Return the committed days of which some input has another revision now, in order."""
    stale = []
    for day in sorted(records):
        entry = _entry(records[day], ledger.get(day))
        read = entry.inputs if entry else records[day].note.get("inputs", {})
        if dict(read) != inputs_of(view, day, reader):
            stale.append(day)
    return stale


def _entry(record: DayRecord, entry: _Noted | None) -> _Noted | None:
    """Return the ledger's entry if it speaks of the certified content: a crash may leave it out."""
    return entry if entry is not None and entry.content_hash == record.content_hash else None


def _last(lake: Lake, view: FeatureView) -> DayFacts | None:
    attempts = lake.latest_attempts(view.name)
    if not attempts:
        return None
    entry = attempts[max(attempts)]
    return DayFacts(entry.day, entry.outcome, entry.revision, entry.recorded_at, entry.verdicts)


def _open_items(lake: Lake, of: Readable) -> list[Quarantined]:
    return [item for item in Quarantine(lake.quarantine).items(of.name) if item.open]


def _contract_changed(lake: Lake, view: FeatureView) -> str | None:
    table = lake.table(view)
    if not table.exists():
        return None
    try:
        table.open_for_writing()
    except ContractChangedError as error:
        return str(error)
    return None


def source_facts(lake: Lake, of: Source | Snapshot) -> SourceFacts:
    """Return what has landed of a source or snapshot, and what of it is committed."""
    landed = look(lake.landing, lake.landing_cache, of, lake.project.zone)
    table = lake.table(of)
    records = table.head().days if table.exists() else {}
    read = lake.latest_entries(of.name)
    if isinstance(of, Snapshot):
        seen = {entry.inputs["files"] for entry in read.values()}
        waiting: list[date] = []
        waits = bool(landed.good) and landed.fingerprint() not in seen
    else:
        waiting = sorted(
            day
            for day, files in landed.fingerprints().items()
            if day >= of.start and (day not in read or read[day].inputs["files"] != files)
        )
        waits = bool(waiting)
    released = {
        item.details["path"]: item.details["stamp"]
        for item in Quarantine(lake.quarantine).items(of.name)
        if item.kind == "file" and item.released is not None
    }
    return SourceFacts(
        name=of.name,
        kind="snapshot" if isinstance(of, Snapshot) else "source",
        owner=of.owner,
        description=of.description,
        files=len(landed.good),
        held=[
            HeldFile(file.path, file.problem or "", file.days)
            for file in landed.refused
            if released.get(file.path) != file.stamp
        ],
        days=sorted(records),
        gaps=gaps(records),
        waiting=waiting,
        waits=waits,
    )


def online_facts(online: OnlineStore) -> OnlineFacts:
    """Return what the online store says of itself, or why it does not answer."""
    namespace = online.names.namespace
    try:
        return OnlineFacts(online.address, namespace, online.info(), None)
    except OnlineError as error:
        return OnlineFacts(online.address, namespace, None, str(error))


def seal_facts(lake: Lake, online: OnlineStore | None, view: FeatureView) -> SealFacts:
    """Return which committed days are not sealed.

    Args:
        online: None if it does not answer.

    Raises:
        OnlineError: The online store does not answer after all.
    """
    table = lake.table(view)
    committed = len(table.head().days) if table.exists() else 0
    if not committed:
        return SealFacts(view.name, 0, [])
    behind = None if online is None else unsealed_days(lake, online, view)
    return SealFacts(view.name, committed, behind)
