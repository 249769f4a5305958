"""A person certifies what failed, by name and with a reason, while nothing has moved since."""

from collections.abc import Callable
from datetime import datetime

from lockstep.compute import inputs_of
from lockstep.errors import InputError
from lockstep.lake import Lake, LedgerEntry
from lockstep.quality import Verdict
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.reader import Reader
from lockstep.stores.proposal import Committed, Proposal
from lockstep.view import FeatureView


def release_file(
    lake: Lake, item: Quarantined, reason: str, *, now: Callable[[], datetime]
) -> None:
    """Let ingestion go on without a refused file: its rows stay out, its days are free."""
    _require_reason(item, reason)
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
        InputError: No reason is given, the item is closed, or the head revision or the inputs are
            no longer those seen at quarantine. Nothing is written then.
    """
    _require_reason(item, reason)
    (day,) = item.touches
    table = lake.table(view)
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
    quarantine = Quarantine(lake.quarantine)
    frame = quarantine.frame(item)
    # Marked first: a crash before the commit leaves a rerun that passes the audit, marked so.
    quarantine.mark_released(item, reason, now())
    verdicts = [
        {**Verdict.from_json(verdict).to_json(), "released": not verdict["passed"]}
        for verdict in item.details["verdicts"]
    ]
    note = {
        name: item.details[name] for name in ("code_version", "inputs", "data_through", "closed")
    }
    (result,) = table.commit(
        [
            Proposal(
                day,
                frame,
                item.details["content_hash"],
                {**note, "run_id": run_id, "verdicts": verdicts, "released": reason},
            )
        ],
        now=now,
    )
    lake.record(
        [
            LedgerEntry(
                view=view.name,
                day=day,
                revision=result.revision,
                outcome="released",
                recorded_at=now(),
                run_id=run_id,
                code_version=item.details["code_version"],
                content_hash=item.details["content_hash"],
                inputs=item.details["inputs"],
                verdicts=verdicts,
            )
        ]
    )
    return result


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
