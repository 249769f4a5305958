"""Landing zone → bronze: types and zone enforced, duplicates dropped, broken files held whole."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.crash import crash_point
from lockstep.day_shape import HOURS, LAG, hours_of, lag_of
from lockstep.erasure.holdback import Erasures
from lockstep.hashing import canonical, content_hash
from lockstep.lake import Lake, LedgerEntry
from lockstep.landing import ARRIVED, Landed, LandedFile, look, read_arrived, read_landed
from lockstep.late import DUPLICATES, delivered, late_note, late_rows
from lockstep.outcome import DayOutcome
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.sources import Snapshot, Source
from lockstep.stores.day_index import DayRecord
from lockstep.stores.proposal import Committed, Proposal
from lockstep.time import SNAPSHOT_DAY, as_of, assign_days, day_start

CHUNK_DAYS = 31
"""Days per commit: bounds memory, and what a crash repeats."""


@dataclass(frozen=True)
class _Ready:
    """One day's rows, ready to be committed."""

    proposal: Proposal
    counts: Mapping[str, int]
    files: str


def refresh_quarantine(
    lake: Lake, of: Source | Snapshot, landed: Landed, now: datetime
) -> list[Quarantined]:
    """Bring the quarantine in line with the refused files; return those that are held.

    A released file is ignored, an item whose file was fixed or removed is closed.
    """
    quarantine = Quarantine(lake.quarantine)
    known = {item.item: item for item in quarantine.items(of.name) if item.kind == "file"}
    refused = {_item_name(file): file for file in landed.refused}
    for name, item in known.items():
        if name not in refused and item.closed is None:
            quarantine.close(item, "the file was replaced or removed", now)
    held: list[Quarantined] = []
    for name, file in refused.items():
        found = known.get(name)
        if found is None or found.closed is not None:
            found = Quarantined(
                kind="file",
                name=of.name,
                item=name,
                reason=file.problem or "",
                days=None if file.days is None else list(file.days),
                found_at=now.isoformat(),
                details={"path": file.path, "stamp": file.stamp, "rows": file.rows},
            )
            quarantine.put(found)
        if found.released is None:
            held.append(found)
    return held


def _item_name(file: LandedFile) -> str:
    digest = hashlib.sha256(f"{file.path}@{file.stamp}".encode()).hexdigest()[:8]
    name = file.path.rpartition("/")[2].removesuffix(".parquet").replace("\\", "_")
    return f"file-{name}-{digest}"


def held_days(lake: Lake, of: Source | Snapshot) -> dict[date, str]:
    """Return the days that a refused file may touch → why.

    A file whose event times can't be read may touch any day; days that are committed already
    keep what was certified, so such a file holds only days not yet committed.
    """
    open_files = [
        item
        for item in Quarantine(lake.quarantine).items(of.name)
        if item.kind == "file" and item.open
    ]
    return {day: item.reason for item in open_files for day in item.touches}


def ingest(
    lake: Lake,
    source: Source,
    days: Collection[date],
    *,
    now: Callable[[], datetime],
    run_id: str = "",
) -> Iterator[DayOutcome]:
    """Commit the days of a source from what has landed, oldest first; yield each day's outcome.

    A broken file is quarantined whole and the days it touches are refused; other days go on. Rows
    that are equal in `unique_by` count once, the last delivered one.
    """
    lake.require_safe_commits()
    zone = lake.project.zone
    landed = look(lake.landing, lake.landing_cache, source, zone)
    held = refresh_quarantine(lake, source, landed, now())
    fingerprints = landed.fingerprints()
    table = lake.table(source)
    table.create()
    ordered = sorted(days)
    for start in range(0, len(ordered), CHUNK_DAYS):
        chunk = ordered[start : start + CHUNK_DAYS]
        committed = table.head().days
        refused = dict(_refusals(source, chunk, held, fingerprints, committed, now(), zone))
        wanted = [day for day in chunk if day not in refused]
        ready = _read_days(lake, source, landed, wanted, committed, fingerprints, run_id, now())
        results = table.commit([day.proposal for day in ready], now=now) if ready else []
        crash_point("committed")
        _record(lake, source.name, ready, results, run_id, now())
        by_day = {
            day.proposal.day: (day, result) for day, result in zip(ready, results, strict=True)
        }
        for day in chunk:
            if day in refused:
                yield DayOutcome(source.name, day, "refused", refused[day])
            else:
                yield _outcome(source.name, *by_day[day])


def _refusals(
    source: Source,
    days: Sequence[date],
    held: Sequence[Quarantined],
    fingerprints: Mapping[date, str],
    committed: Collection[date],
    now: datetime,
    zone: ZoneInfo,
) -> Iterator[tuple[date, str]]:
    """Yield the days that can't be ingested, each with the reason and the fix."""
    for day in days:
        touching = [
            item
            for item in held
            if day in item.touches or (item.days is None and day not in committed)
        ]
        if day < source.start:
            yield day, f"{source.name} starts on {source.start}. {day} was not written."
        elif as_of(day, zone) > now:
            yield day, f"{day} has not ended. {source.name} of it was not written."
        elif touching:
            yield day, _held_back(source, day, touching[0])
        elif day not in fingerprints and not source.may_be_empty:
            yield day, _nothing_landed(source, day)


def _held_back(source: Source, day: date, item: Quarantined) -> str:
    return (
        f"{item.reason} The file is quarantined whole and {source.name} of {day} was not written. "
        "Deliver it again as declared, or go on without it: "
        f"lockstep quarantine release {source.name} {item.item} --reason …"
    )


def _nothing_landed(source: Source, day: date) -> str:
    return (
        f"No row of {source.name} has landed for {day}. If that is right, declare "
        "may_be_empty=True; if not, wait for the delivery. Nothing was written."
    )


def _read_days(
    lake: Lake,
    source: Source,
    landed: Landed,
    days: Sequence[date],
    committed: Mapping[date, DayRecord],
    fingerprints: Mapping[date, str],
    run_id: str,
    now: datetime,
) -> list[_Ready]:
    if not days:
        return []
    zone, wanted = lake.project.zone, frozenset(days)
    files = [file for file in landed.good if file.touches & wanted]
    within = pl.col("event_time").is_between(
        pl.lit(day_start(min(days), zone)), pl.lit(as_of(max(days), zone)), closed="left"
    )
    rows = read_arrived(lake.landing, files, source, within)
    rows = Erasures(lake.place).hold_back(rows)
    rows = canonical(rows).with_columns(assign_days(rows["event_time"], zone))
    # Delivery order decides which of two equal keys counts: the frame is in that order here.
    unique = rows.unique(["day", *source.key], keep="last", maintain_order=True)
    unique = unique.sort(source.order)
    parts = unique.partition_by("day", as_dict=True, maintain_order=True)
    landed_rows = dict(rows.group_by("day").len().iter_rows())
    table, ready = lake.table(source), []
    for day in days:
        part = parts.get((day,), unique.clear())
        frame = part.drop("day", ARRIVED).rechunk()
        digest = content_hash(frame)
        touching = [file for file in files if day in file.touches]
        counts = {
            "rows": frame.height,
            "duplicates_dropped": landed_rows.get(day, 0) - frame.height,
            "files": len(touching),
            "nonexistent_times": sum(file.nonexistent for file in touching),
            "ambiguous_times": sum(file.ambiguous for file in touching),
            "late_rows": late_rows(table, committed.get(day), digest, frame, source.key),
            **Counter(f"undeclared:{name}" for file in touching for name in file.undeclared),
        }
        note = {
            "run_id": run_id,
            "counts": counts,
            HOURS: hours_of(part["event_time"], zone),
            LAG: lag_of(part["event_time"], part[ARRIVED]),
            **late_note(committed.get(day), counts["late_rows"], now),
            DUPLICATES: counts["duplicates_dropped"],
        }
        ready.append(_Ready(Proposal(day, frame, digest, note), counts, fingerprints.get(day, "")))
    return ready


def ingest_snapshot(
    lake: Lake, snapshot: Snapshot, *, now: Callable[[], datetime], run_id: str = ""
) -> DayOutcome:
    """Commit the whole snapshot from what has landed; the last delivered row per key counts."""
    lake.require_safe_commits()
    landed = look(lake.landing, lake.landing_cache, snapshot, lake.project.zone)
    held = refresh_quarantine(lake, snapshot, landed, now())
    if held:
        return DayOutcome(
            snapshot.name,
            SNAPSHOT_DAY,
            "refused",
            f"{held[0].reason} The file is quarantined whole; {snapshot.name} keeps what it had. "
            "Deliver it again as declared, or go on without it: "
            f"lockstep quarantine release {snapshot.name} {held[0].item} --reason …",
        )
    if not landed.good:
        return DayOutcome(
            snapshot.name,
            SNAPSHOT_DAY,
            "refused",
            f"No file has landed in {lake.landing.path(snapshot.name)}. Nothing was written.",
        )
    landed_rows = read_landed(lake.landing, landed.good, snapshot)
    rows = canonical(Erasures(lake.place).hold_back(landed_rows))
    frame = rows.unique(snapshot.order, keep="last", maintain_order=True)
    frame = frame.sort(snapshot.order).rechunk()
    counts = {"rows": frame.height, "duplicates_dropped": rows.height - frame.height}
    note = {"run_id": run_id, "counts": counts, "assumes": _assumption(snapshot)}
    ready = _Ready(
        Proposal(SNAPSHOT_DAY, frame, content_hash(frame), note), counts, landed.fingerprint()
    )
    table = lake.table(snapshot)
    table.create()
    results = table.commit([ready.proposal], now=now)
    _record(lake, snapshot.name, [ready], results, run_id, now())
    return _outcome(snapshot.name, ready, results[0])


def _assumption(snapshot: Snapshot) -> str:
    if snapshot.valid_from == "always":
        return "today's rows always held: the table has no history"
    return f"a row holds from its {snapshot.valid_from}"


def _outcome(name: str, ready: _Ready, result: Committed) -> DayOutcome:
    return DayOutcome(
        name,
        result.day,
        "committed" if result.changed else "unchanged",
        revision=result.revision,
        version=result.version,
        content_hash=ready.proposal.content_hash,
        rows=ready.proposal.frame.height,
        frame=ready.proposal.frame,
        counts=ready.counts,
    )


def _record(
    lake: Lake,
    name: str,
    ready: Sequence[_Ready],
    results: Sequence[Committed],
    run_id: str,
    now: datetime,
) -> None:
    lake.record(
        LedgerEntry(
            view=name,
            day=result.day,
            revision=result.revision,
            outcome="committed" if result.changed else "unchanged",
            recorded_at=now,
            run_id=run_id,
            code_version="",
            content_hash=day.proposal.content_hash,
            inputs={"files": day.files, **delivered(day.counts)},
            verdicts=(),
        )
        for day, result in zip(ready, results, strict=True)
    )


def days_to_ingest(lake: Lake, source: Source, now: datetime) -> dict[date, str]:
    """Return the days for which files have landed that bronze has not seen → those files' hash.

    Days before the source's start are left out. A refused file is listed in quarantine, not here.
    """
    lake.require_safe_commits()
    landed = look(lake.landing, lake.landing_cache, source, lake.project.zone)
    refresh_quarantine(lake, source, landed, now)
    seen = lake.latest_entries(source.name)
    return {
        day: files
        for day, files in sorted(landed.fingerprints().items())
        if day >= source.start and (day not in seen or seen[day].inputs["files"] != files)
    }
