"""The write protocol of a view: compute, audit, quarantine or commit, record. Online comes after.

Days are committed in chunks. A crash anywhere loses nothing acknowledged; a rerun completes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from lockstep.compute import Computed, compute_day, load_inputs
from lockstep.crash import crash_point
from lockstep.errors import IncompleteWindowError
from lockstep.hashing import content_hash
from lockstep.lake import Lake, LedgerEntry
from lockstep.outcome import DayOutcome
from lockstep.overflow import told_of
from lockstep.profile import EntityCounts
from lockstep.quality import Audit, audit
from lockstep.quarantine import Quarantine, Quarantined, frame_item
from lockstep.reader import Reader
from lockstep.references import References
from lockstep.soda import SodaSession
from lockstep.stores.proposal import Committed, Proposal
from lockstep.time import as_of
from lockstep.view import FeatureView

CHUNK_DAYS = 16
"""Days per commit: bounds memory, and what a crash repeats."""

Released = Mapping[tuple[date, str], Mapping[str, str]]


@dataclass(frozen=True)
class Judged:
    """One computed and audited day; nothing is written yet.

    Attributes:
        entities: How many came and went since the day before; None if that can't be told.
    """

    computed: Computed
    audit: Audit
    content_hash: str
    entities: EntityCounts | None = None

    @property
    def day(self) -> date:
        """The day."""
        return self.computed.day


def preview(view: FeatureView, day: date, lake: Lake, reader: Reader) -> Judged:
    """Compute and audit one day as a run would, and write nothing.

    Raises:
        DeclarationError: The Soda file beside the view file is nothing that Soda can evaluate.
        IncompleteWindowError: A day of a window is missing.
        InputError: The function returned other columns than it promised.
    """
    load_inputs(view, [day], reader)
    soda = SodaSession()
    try:
        _require_soda_file(view, soda)
        computed = compute_day(view, day, reader, lake.project.zone)
        released = Quarantine(lake.quarantine).released_hashes(view.name)
        references = References.of(lake, view, [day])
        return _judge(view, computed, references, soda, released)
    finally:
        soda.close()


def materialize(
    lake: Lake,
    view: FeatureView,
    days: Collection[date],
    reader: Reader,
    *,
    now: Callable[[], datetime],
    run_id: str = "",
) -> Iterator[DayOutcome]:
    """Compute, audit and commit the days, oldest first; yield each day's outcome as it is certain.

    A day that fails a blocking check is quarantined and changes nothing else. A day whose window is
    incomplete is skipped, naming the missing days.

    Raises:
        ContractChangedError: The table was built by another contract; nothing was computed.
        DeclarationError: The Soda file beside the view file is nothing that Soda can evaluate;
            nothing was computed.
        InputError: The function returned other columns than it promised.
        StoreError: Commits would not be safe in the lake's store; nothing was written.
    """
    lake.require_safe_commits()
    table = lake.table(view)
    table.create()
    ordered = sorted(days)
    references = References.of(lake, view, ordered)
    soda = SodaSession()
    try:
        _require_soda_file(view, soda)
        for start in range(0, len(ordered), CHUNK_DAYS):
            chunk = ordered[start : start + CHUNK_DAYS]
            yield from _chunk(lake, view, chunk, reader, references, soda, now, run_id)
    finally:
        soda.close()


def _require_soda_file(view: FeatureView, soda: SodaSession) -> None:
    """Try hand-written checks on no rows: a slip of the pen is no fault of any day."""
    if view.soda is not None:
        soda.require(view.contract, view.soda)


def _chunk(
    lake: Lake,
    view: FeatureView,
    days: Sequence[date],
    reader: Reader,
    references: References,
    soda: SodaSession,
    now: Callable[[], datetime],
    run_id: str,
) -> Iterator[DayOutcome]:
    skipped: dict[date, str] = {}
    waiting: dict[date, Future[Judged]] = {}
    released = Quarantine(lake.quarantine).released_hashes(view.name)
    load_inputs(view, days, reader)
    # One auditor, so that days are judged in order, each against the profiles of those before.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit") as auditor:
        for day in days:
            if as_of(day, lake.project.zone) > now():
                skipped[day] = f"{view.name} of {day} was skipped: the day has not ended."
                continue
            try:
                computed = compute_day(view, day, reader, lake.project.zone)
            except IncompleteWindowError as error:
                skipped[day] = str(error)
                continue
            waiting[day] = auditor.submit(_judge, view, computed, references, soda, released)
    judged = {day: found.result() for day, found in waiting.items()}
    crash_point("computed")
    failed = [found for found in judged.values() if not found.audit.passed]
    good = [found for found in judged.values() if found.audit.passed]
    head = lake.table(view).head()
    for found in failed:
        _put_in_quarantine(lake, view, found, head.days, now(), run_id)
    results = _commit(lake, view, good, now, run_id)
    _close_quarantined(lake, view, good, results, now())
    for day in days:
        if day in skipped:
            yield DayOutcome(view.name, day, "skipped", skipped[day])
        elif judged[day].audit.passed:
            yield _certified(view, judged[day], results[day])
        else:
            yield _quarantined(view, judged[day])


def _judge(
    view: FeatureView,
    computed: Computed,
    references: References,
    soda: SodaSession,
    released: Released,
) -> Judged:
    """Audit a computed day; if it passes, it counts as a reference for the days after it."""
    frame = computed.frame
    earlier = references.earlier(computed)
    verdicts = told_of(audit(frame, view.contract, earlier, soda, view.soda), computed.wrapped)
    found = Judged(computed, verdicts, content_hash(frame), earlier.entities)
    found = _with_release(found, released)
    if found.audit.passed:
        references.passed(computed, found.audit, found.content_hash)
    return found


def _with_release(found: Judged, released: Mapping[tuple[date, str], Mapping[str, str]]) -> Judged:
    """Mark failed verdicts as released if a person certified this very content."""
    said = released.get((found.day, found.content_hash))
    if said is None or found.audit.passed:
        return found
    words = f" Released by {said['by']}: {said['reason']}"
    verdicts = [
        verdict
        if verdict.passed
        else replace(verdict, released=True, message=verdict.message + words)
        for verdict in found.audit.verdicts
    ]
    return replace(found, audit=replace(found.audit, verdicts=verdicts))


def _note(view: FeatureView, found: Judged, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "code_version": view.code_version,
        "inputs": dict(found.computed.inputs),
        "data_through": found.computed.data_through.isoformat(),
        "closed": found.computed.closed,
        "verdicts": [verdict.to_json() for verdict in found.audit.verdicts],
    }


def _commit(
    lake: Lake,
    view: FeatureView,
    good: Sequence[Judged],
    now: Callable[[], datetime],
    run_id: str,
) -> dict[date, Committed]:
    """Commit the audited days in one transaction, then record them; return day → result."""
    if not good:
        return {}
    proposals = [
        Proposal(found.day, found.computed.frame, found.content_hash, _note(view, found, run_id))
        for found in good
    ]
    results = {result.day: result for result in lake.table(view).commit(proposals, now=now)}
    crash_point("committed")
    # Of the unchanged ones too: an earlier run may have died just before this.
    if restated := {day for day, result in results.items() if result.revision > 1}:
        lake.keep_superseded(view, restated)
    crash_point("kept")
    unprofiled = _without_profile(lake, view, results)
    lake.record_profiles(
        view.name,
        {
            (found.day, results[found.day].revision): found.audit.profile
            for found in good
            if found.day in unprofiled
        },
        {
            (found.day, results[found.day].revision): found.entities
            for found in good
            if found.day in unprofiled and found.entities is not None
        },
    )
    lake.record(
        _entry(view, found, results[found.day].revision, outcome, now(), run_id)
        for found in good
        for outcome in [_outcome_of(found, results[found.day])]
    )
    crash_point("recorded")
    return results


def _without_profile(lake: Lake, view: FeatureView, results: Mapping[date, Committed]) -> set[date]:
    """Return the days whose profile is not recorded: new ones, and those of a run that died."""
    known = {day: result.revision for day, result in results.items() if not result.changed}
    return results.keys() - lake.profiles(view.name, known).keys()


def _outcome_of(found: Judged, result: Committed) -> Any:
    if any(verdict.released for verdict in found.audit.verdicts):
        return "released"
    return "committed" if result.changed else "unchanged"


def _entry(
    view: FeatureView, found: Judged, revision: int, outcome: Any, now: datetime, run_id: str
) -> LedgerEntry:
    return LedgerEntry(
        view=view.name,
        day=found.day,
        revision=revision,
        outcome=outcome,
        recorded_at=now,
        run_id=run_id,
        code_version=view.code_version,
        content_hash=found.content_hash,
        inputs=found.computed.inputs,
        verdicts=[verdict.to_json() for verdict in found.audit.verdicts],
    )


def _put_in_quarantine(
    lake: Lake,
    view: FeatureView,
    found: Judged,
    head: Mapping[date, Any],
    now: datetime,
    run_id: str,
) -> None:
    revision = head[found.day].revision if found.day in head else 0
    item = Quarantined(
        kind="frame",
        name=view.name,
        item=frame_item(found.day, found.content_hash),
        reason=" ".join(v.message for v in found.audit.verdicts if v.blocks),
        days=[str(found.day)],
        found_at=now.isoformat(),
        details={
            "content_hash": found.content_hash,
            "head_revision": revision,
            "rows": found.computed.frame.height,
            "profile": {name: p.to_json() for name, p in found.audit.profile.items()},
            "entities": found.entities.to_json() if found.entities else None,
            **_note(view, found, run_id),
        },
    )
    quarantine = Quarantine(lake.quarantine)
    quarantine.put_frame(found.computed.frame, item)
    crash_point("quarantining")
    quarantine.put(item)
    for earlier in quarantine.items(view.name):
        if earlier.open and earlier.touches == item.touches and earlier.item != item.item:
            quarantine.close(earlier, f"a later attempt failed: {item.item}", now)
    lake.record([_entry(view, found, revision, "quarantined", now, run_id)])


def _close_quarantined(
    lake: Lake,
    view: FeatureView,
    good: Sequence[Judged],
    results: Mapping[date, Committed],
    now: datetime,
) -> None:
    """Close what was quarantined of days that are certified now."""
    quarantine = Quarantine(lake.quarantine)
    hashes = {found.day: found.content_hash for found in good}
    for item in quarantine.items(view.name) if results else []:
        for day in item.touches & results.keys():
            if item.open:
                reason = f"revision {results[day].revision} was certified"
                quarantine.settle(item, hashes[day], reason, now)


def _certified(view: FeatureView, found: Judged, result: Committed) -> DayOutcome:
    return DayOutcome(
        view.name,
        found.day,
        "committed" if result.changed else "unchanged",
        revision=result.revision,
        version=result.version,
        content_hash=found.content_hash,
        code_version=view.code_version,
        rows=found.computed.frame.height,
        verdicts=found.audit.verdicts,
        profile=found.audit.profile,
        frame=found.computed.frame,
        counts={"closing_rows": found.computed.closed},
        drift=found.audit.drift,
    )


def _quarantined(view: FeatureView, found: Judged) -> DayOutcome:
    reasons = " ".join(v.message for v in found.audit.verdicts if v.blocks)
    item = frame_item(found.day, found.content_hash)
    return DayOutcome(
        view.name,
        found.day,
        "quarantined",
        f"{reasons} The day was quarantined as {item}; what was certified before stays. "
        f"Look: lockstep quarantine show {view.name} {item}",
        content_hash=found.content_hash,
        code_version=view.code_version,
        rows=found.computed.frame.height,
        verdicts=found.audit.verdicts,
        profile=found.audit.profile,
        frame=found.computed.frame,
        failing_rows=found.audit.failing_rows,
        drift=found.audit.drift,
    )
