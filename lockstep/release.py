"""A person certifies what failed, by name and with a reason, while nothing has moved since."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

import polars as pl

from lockstep.compute import inputs_of
from lockstep.errors import InputError, LockstepError, StoreError
from lockstep.hashing import content_hash
from lockstep.lake import Lake, LedgerEntry
from lockstep.profile import ColumnProfile, EntityCounts, profile
from lockstep.quality import Verdict
from lockstep.quarantine import Quarantine, Quarantined, released_already
from lockstep.reader import Reader
from lockstep.stores.proposal import Committed, Proposal
from lockstep.view import FeatureView


def release_file(
    lake: Lake, item: Quarantined, reason: str, *, now: Callable[[], datetime]
) -> None:
    """Let ingestion go on without a refused file: its rows stay out, its days are free.

    Raises:
        InputError: No reason is given, or the item is closed or released. Nothing is changed.
    """
    _require_waiting(item, reason)
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

    What a person wants is recorded before the commit, and that it was done after it. A crash
    between leaves an open item: a rerun that computes this very content, or a second release,
    completes it; anything else that comes of the day ends it.

    Raises:
        ConflictError: Others certified the day while it was being committed. Nothing is written.
        InputError: No reason is given, the item is closed or released, its keys are null or
            repeated, its rows are not those that failed, or the head revision or the inputs are no
            longer those seen at quarantine. Nothing is written.
    """
    _require_waiting(item, reason)
    _require_keys(item)
    lake.require_safe_commits()
    (day,) = item.touches
    quarantine = Quarantine(lake.quarantine)
    frame = quarantine.frame(item)
    _require_whole(item, frame)
    said = _died_after(lake, view, item)
    if said is None:
        _require_unmoved(lake, view, item, reader)
        said = quarantine.intend(item, reason, now())
        try:
            # As late as can be: reading the rows takes a while, and so may the person.
            _require_unmoved(lake, view, item, reader.anew())
            result = _commit(lake, view, item, frame, said, now, run_id)
        except StoreError:
            raise  # whether it was written may not be known: as after a crash
        except LockstepError:
            quarantine.take_back(item)
            raise
    else:
        result = _commit(lake, view, item, frame, said, now, run_id)
    lake.keep_superseded(view, [day])
    lake.record([_entry(item, result, now(), run_id)])
    _record_profiles(lake, view, item, frame, (day, result.revision))
    quarantine.mark_released(item, reason, now(), said)
    return result


def _commit(
    lake: Lake,
    view: FeatureView,
    item: Quarantined,
    frame: pl.DataFrame,
    said: Mapping[str, str],
    now: Callable[[], datetime],
    run_id: str,
) -> Committed:
    """Commit the frame on top of the revision that was the head when it failed, and no other."""
    details = item.details
    note = {name: details[name] for name in ("code_version", "inputs", "data_through", "closed")}
    note |= {"run_id": run_id, "verdicts": _verdicts(item)}
    note |= {"released": said["reason"], "released_by": said["by"]}
    (day,) = item.touches
    onto = details["head_revision"]
    proposal = Proposal(day, frame, details["content_hash"], note, onto=onto)
    (result,) = lake.table(view).commit([proposal], now=now)
    return result


def _verdicts(item: Quarantined) -> list[dict[str, Any]]:
    return [
        {**Verdict.from_json(verdict).to_json(), "released": not verdict["passed"]}
        for verdict in item.details["verdicts"]
    ]


def _entry(item: Quarantined, result: Committed, now: datetime, run_id: str) -> LedgerEntry:
    return LedgerEntry(
        view=item.name,
        day=result.day,
        revision=result.revision,
        outcome="released",
        recorded_at=now,
        run_id=run_id,
        code_version=item.details["code_version"],
        content_hash=item.details["content_hash"],
        inputs=item.details["inputs"],
        verdicts=_verdicts(item),
    )


def _died_after(lake: Lake, view: FeatureView, item: Quarantined) -> Mapping[str, str] | None:
    """Return what was recorded by a release that died after its commit; None if none did."""
    (day,) = item.touches
    head = lake.table(view).head().days.get(day)
    if head is None or head.revision <= item.details["head_revision"]:
        return None
    return item.releasing if head.content_hash == item.details["content_hash"] else None


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


def _require_unmoved(lake: Lake, view: FeatureView, item: Quarantined, reader: Reader) -> None:
    (day,) = item.touches
    record = lake.table(view).head().days.get(day)
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


def _require_whole(item: Quarantined, frame: pl.DataFrame) -> None:
    """Refuse rows that nobody audited: the head would name a content that it does not have."""
    if (found := content_hash(frame)) != item.details["content_hash"]:
        (day,) = item.touches
        raise InputError(
            f"The rows of {item.name} {item.item} are not those that failed.",
            expected=f"content {item.details['content_hash']}",
            got=f"content {found}",
            fix=f"Materialize the day again: lockstep materialize {item.name} --days {day}",
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


def _require_waiting(item: Quarantined, reason: str) -> None:
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
    if item.released is not None:
        raise released_already(item, item.released)
