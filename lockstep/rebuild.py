"""Every committed day of a view anew, by the contract that is declared now: all of them or none.

The days are computed and audited as ever, but into a table beside the live one; one commit then
puts it in the live one's place. Until then everybody reads what was certified before.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from lockstep.errors import InputError, NotCertifiedError
from lockstep.lake import Lake, LedgerEntry
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.profile import ColumnProfile, EntityCounts
from lockstep.reader import Reader
from lockstep.sources import Readable
from lockstep.stores.delta import Committed, DayTable
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from lockstep.view import FeatureView


def rebuild(
    lake: Lake,
    view: FeatureView,
    reader: Reader,
    *,
    now: Callable[[], datetime],
    run_id: str = "",
) -> Iterator[DayOutcome]:
    """Build the committed days of a view anew, oldest first, and swap the table at the end.

    Yields each day's outcome once it is staged; the swap happens when the iterator is exhausted.
    Interrupted, it leaves the table as it was; run again, staged days are not written twice.

    Raises:
        InputError: The view has no committed day.
        NotCertifiedError: A day fails its audit, or lacks an input; the table is as it was.
        ConflictError: Others kept committing to the view.
    """
    lake.require_safe_commits()
    live = lake.table(view)
    days = sorted(live.head().days) if live.exists() else []
    if not days:
        raise InputError(
            f"{view.name} has no committed day, so there is nothing to rebuild.",
            fix=f"Materialize it: lockstep materialize {view.name} --days …",
        )
    staging = start_rebuild(live)
    beside = _Beside(lake, view, staging)
    failed: dict[date, str] = {}
    seen: dict[date, Mapping[str, ColumnProfile]] = {}
    for outcome in materialize(beside, view, days, reader, now=now, run_id=run_id):
        yield outcome
        seen[outcome.day] = outcome.profile
        if not outcome.certified:
            failed[outcome.day] = outcome.message
    if failed:
        why = " ".join(f"{day}: {message}" for day, message in failed.items())
        raise NotCertifiedError(
            f"{view.name} can't be rebuilt: {len(failed)} of {len(days)} days fail. {why}",
            fix="Correct the view or the data, then run the rebuild again.",
            effect="The table is as it was; nothing of the rebuild is read by anybody.",
        )
    swapped = finish_rebuild(live, staging, days, now=now)
    lake.keep_superseded(view, days)
    revisions = {item.day: (item.day, item.revision) for item in swapped}
    lake.record_profiles(
        view.name,
        {revision: seen[day] for day, revision in revisions.items()},
        {revisions[day]: counts for day, counts in beside.entities.items() if day in revisions},
    )
    lake.record(_renumbered(beside.entries, swapped))


class _Beside(Lake):
    """The lake with the staged table in the place of the view's, and its records held back.

    A staged day's revision counts from one; what is recorded waits for those of the swap.
    """

    def __init__(self, lake: Lake, view: FeatureView, staging: DayTable) -> None:
        super().__init__(lake.project, lake.place.options)
        self._view = view
        self._staging = staging
        self.entries: dict[date, LedgerEntry] = {}
        self.entities: dict[date, EntityCounts] = {}

    def table(self, of: Readable) -> DayTable:
        return self._staging if of is self._view else super().table(of)

    def keep_superseded(self, view: Readable, days: Collection[date]) -> None:
        """Copy nothing: a staged day that was staged anew was never certified."""

    def record(self, entries: Iterable[LedgerEntry]) -> None:
        self.entries.update({entry.day: entry for entry in entries})

    def record_profiles(
        self,
        view: str,  # noqa: ARG002 - one view is rebuilt
        profiles: Mapping[tuple[date, int], Mapping[str, ColumnProfile]],  # noqa: ARG002 - told
        entities: Mapping[tuple[date, int], EntityCounts] | None = None,
    ) -> None:
        """Keep the entity counts, and record nothing: revisions are known after the swap."""
        self.entities.update({day: counts for (day, _), counts in (entities or {}).items()})

    def profiles(
        self,
        view: str,  # noqa: ARG002 - the rebuilt days are the only reference
        revisions: Mapping[date, int],  # noqa: ARG002
    ) -> dict[date, dict[str, ColumnProfile]]:
        """Return none: drift is measured against the days as they are rebuilt."""
        return {}


def _renumbered(
    entries: Mapping[date, LedgerEntry], swapped: Sequence[Committed]
) -> list[LedgerEntry]:
    return [
        replace(
            entries[item.day],
            revision=item.revision,
            outcome="committed" if item.changed else "unchanged",
        )
        for item in swapped
    ]
