"""A person certifies what failed, by name and with a reason, while nothing has moved since."""

from collections.abc import Callable
from datetime import date, datetime

import polars as pl

from lockstep.compute import inputs_of
from lockstep.errors import InputError
from lockstep.lake import Lake, LedgerEntry
from lockstep.profile import ColumnProfile, EntityCounts, profile
from lockstep.quality import Verdict
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.reader import Reader
from lockstep.stores.delta import DayTable
from lockstep.stores.proposal import Committed, Proposal
from lockstep.view import FeatureView


def release_file(
    lake: Lake, item: Quarantined, reason: str, *, now: Callable[[], datetime]
) -> None:
    """Let ingestion go on without a refused file: its rows stay out, its days are free."""
    _require_reason(item, reason)
    lake.require_safe_commits()
    Quarantine(lake.quarantine).mark_released(item, reason, now())


def release_frame(
    lake: Lake,
    view: FeatureView,
    item: Quarantined,
    reason: str,
    reader: Reader,
    *,
    now: Callable[[], datetime],
    run_id: str = "",
) -> Committed:
    """Commit a quarantined frame as it is; its content hash passes later audits, marked so.

    Raises:
        InputError: No reason is given, the item is closed, its keys are null or repeated, or the
            head revision or the inputs are no longer those seen at quarantine. Nothing is written.
    """
    _require_reason(item, reason)
    _require_keys(item)
    lake.require_safe_commits()
    (day,) = item.touches
    table = lake.table(view)
    _require_unmoved(view, day, item, table, reader)
    quarantine = Quarantine(lake.quarantine)
    frame = quarantine.frame(item)
    # Marked first: a crash before the commit leaves a rerun that passes the audit, marked so.
    said = quarantine.mark_released(item, reason, now())
    details = item.details
    verdicts = [
        {**Verdict.from_json(verdict).to_json(), "released": not verdict["passed"]}
        for verdict in details["verdicts"]
    ]
    note = {name: details[name] for name in ("code_version", "inputs", "data_through", "closed")}
    note |= {"run_id": run_id, "verdicts": verdicts, "released": reason}
    note["released_by"] = said["by"]
    proposal = Proposal(day, frame, details["content_hash"], note)
    (result,) = table.commit([proposal], now=now)
    lake.keep_superseded(view, [day])
    entry = LedgerEntry(
        view=view.name,
        day=day,
        revision=result.revision,
        outcome="released",
        recorded_at=now(),
        run_id=run_id,
        code_version=details["code_version"],
        content_hash=details["content_hash"],
        inputs=details["inputs"],
        verdicts=verdicts,
    )
    lake.record([entry])
    _record_profiles(lake, view, item, frame, (day, result.revision))
    return result


def _record_profiles(
    lake: Lake, view: FeatureView, item: Quarantined, frame: pl.DataFrame, of: tuple[date, int]
) -> None:
    """Record what the audit saw: the profile made against its reference, and entity counts."""
    known, entities = item.details.get("profile"), item.details.get("entities")
    lake.record_profiles(
        view.name,
        {
            of: profile(frame, view.contract)  # an item of an earlier release has neither
            if known is None
            else {name: ColumnProfile.from_json(column) for name, column in known.items()}
        },
        {of: EntityCounts.from_json(entities)} if entities else None,
    )


def _require_unmoved(
    view: FeatureView, day: date, item: Quarantined, table: DayTable, reader: Reader
) -> None:
    record = table.head().days.get(day)
    seen = (item.details["head_revision"], item.details["inputs"])
    found = (record.revision if record else 0, inputs_of(view, day, reader))
    if seen != found:
        raise InputError(
            f"{view.name} of {day} has moved on since it was quarantined.",
            expected=f"head revision and inputs {seen}",
            got=str(found),
            fix=f"Materialize the day again: lockstep materialize {view.name} --days {day}",
            effect="Nothing was released.",
        )


def _require_keys(item: Quarantined) -> None:
    """Refuse rows that nobody could look up: no reason makes a null or repeated key servable."""
    broken = [v for v in item.details["verdicts"] if v["check"] == "keys" and not v["passed"]]
    if broken:
        raise InputError(
            f"{item.name} {item.item} can't be released: {broken[0]['message']}",
            fix="Correct the view or its source and materialize the day again.",
            effect="Nothing was released.",
        )


def _require_reason(item: Quarantined, reason: str) -> None:
    if not reason.strip():
        raise InputError(
            f"{item.name} {item.item} can't be released without a reason.",
            fix="Say why: --reason 'known promotion, checked with the owner'.",
            effect="Nothing was released.",
        )
    if item.closed is not None:
        raise InputError(
            f"{item.name} {item.item} is closed: {item.closed['reason']}.",
            effect="Nothing was released.",
        )
