"""One incident from beginning to end: broken, noticed, explained, mended, well again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Protocol

from demo.incident.incident import Entity, Incident
from demo.incident.night import Night
from demo.incident.served import Served, served, served_to_all
from demo.incident.watch import Sight, Watch
from lockstep.errors import StoreError
from lockstep.why.answer import Explanation, explain

Hashes = Mapping[tuple[str, date], str]
_WELL: Final = "online equals offline, no page is open."


class Teller(Protocol):
    """Hears the story while it happens."""

    def begins(self, incident: Incident) -> None:
        """An incident begins."""

    def says(self, label: str, sentence: str) -> None:
        """One step of it."""

    def explains(self, found: Explanation, entity: Entity) -> None:
        """`why` has answered."""


@dataclass(frozen=True)
class Played:
    """What came of one incident.

    Attributes:
        sights: Everything that anybody saw before it was mended, in order.
        caught_by: What noticed it first, of what may; empty if nothing did.
        after: How long after the fault was within reach of the platform, in its own clock.
        how: The same in words.
        paged: When somebody was woken, after the fault; None if nobody was.
        named: What `why` called it.
        well: What is still not as it should be once it was mended; empty if all is well.
        seconds: How long the playing took.
    """

    incident: Incident
    entity: Entity
    sights: Sequence[Sight]
    caught_by: str
    after: timedelta | None
    how: str
    paged: timedelta | None
    before: Served
    meanwhile: Served
    afterwards: Served
    named: str
    explanation: Explanation
    mended: str
    well: Sequence[str]
    seconds: float = field(default=0.0)

    @property
    def caught(self) -> bool:
        """Whether it was noticed; of a quiet one, whether nobody was woken."""
        return self.paged is None if self.incident.quiet else bool(self.caught_by)

    @property
    def named_right(self) -> bool:
        """Whether `why` named the cause."""
        return self.named == self.incident.cause

    @property
    def holds(self) -> bool:
        """Whether it was caught, named, and mended for good."""
        return self.caught and self.named_right and not self.well


def play(incident: Incident, night: Night, clean: Hashes, teller: Teller) -> Played:
    """Play one incident on a night of its own.

    Args:
        clean: (view, day) → content hash on a night on which nothing broke.

    Raises:
        StoreError: Something is wrong before anything was broken.
    """
    began, watch = time.perf_counter(), Watch(night)
    if wrong := watch.settle():
        raise StoreError(
            f"{incident.title} cannot begin: {wrong[0].sentence}",
            fix="The base of the incidents is not clean: correct the check that says so.",
        )
    teller.begins(incident)
    start, known = night.clock.now, served_to_all(night, incident.feature)
    since = incident.breaks(night)
    sights = list(incident.notices(watch))
    entity = incident.whose(night)
    before = known.get(
        tuple(entity.values()), Served(start, incident.feature, None, "missing", None)
    )
    caught, paged = _first(sights, incident.catchers), _first_page(sights)
    how = _how(caught, since)
    _tell_sights(teller, incident, sights, since)
    if incident.asks is not None:
        night.two_o_clock()
        night.at(incident.asks)
    meanwhile = served(night, entity, incident.feature)
    teller.says("Served meanwhile", f"{meanwhile.words} (before: {before.words}).")
    found = explain(night.store, dict(entity), incident.feature)
    teller.explains(found, entity)
    mended = incident.mends(watch)
    teller.says("Mended", mended)
    afterwards = served(night, entity, incident.feature)
    well = _unwell(watch, incident, entity, clean)
    teller.says("Well again", "; ".join(well) or f"{afterwards.words}; {_WELL}")
    return Played(
        incident=incident,
        entity=entity,
        sights=sights,
        caught_by=caught.by if caught else "",
        after=caught.at - since if caught else None,
        how=how,
        paged=paged.at - since if paged else None,
        before=before,
        meanwhile=meanwhile,
        afterwards=afterwards,
        named=found.cause,
        explanation=found,
        mended=mended,
        well=well,
        seconds=time.perf_counter() - began,
    )


def hashes(night: Night) -> dict[tuple[str, date], str]:
    """Return (view, day) → content hash of everything that is committed."""
    return {
        (view.name, day): record.content_hash
        for view in night.store.views.values()
        for day, record in night.store.committed(view).items()
    }


def _first(sights: Sequence[Sight], catchers: frozenset[str]) -> Sight | None:
    return next((sight for sight in sights if sight.by in catchers), None)


def _first_page(sights: Sequence[Sight]) -> Sight | None:
    return next((sight for sight in sights if sight.page), None)


def _how(caught: Sight | None, since: datetime) -> str:
    if caught is None:
        return "nobody noticed"
    after = length(caught.at - since)
    if caught.blocks:
        return f"{after}, in the audit, before anything was written"
    if caught.by == "status":
        return f"{after}: it shows wherever the status is shown"
    nights = (caught.at - since).days
    if nights:
        return f"{after}, {nights} {'night' if nights == 1 else 'nights'} after the first"
    warns = caught.by.startswith("check ") and caught.by != "check parity"
    return f"{after}, in the audit, as a warning" if warns else f"{after}, at its next tick"


def length(time_: timedelta) -> str:
    """Return a duration for people: `30 s`, `10 min`, `3 h 31 min`."""
    minutes, seconds = divmod(round(time_.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = {"h": hours, "min": minutes, "s": 0 if hours else seconds}
    return " ".join(f"{count} {unit}" for unit, count in parts.items() if count) or "0 s"


def _tell_sights(
    teller: Teller, incident: Incident, sights: Sequence[Sight], since: datetime
) -> None:
    seen: set[str] = set()
    for sight in sights:
        if sight.by not in seen:
            seen.add(sight.by)
            woken = " (wakes somebody)" if sight.page else ""
            when = f"{length(sight.at - since)} later, {sight.by}{woken}"
            teller.says("Noticed", f"{when}: {sight.sentence}")
    if incident.quiet and not any(sight.page for sight in sights):
        teller.says("Nobody is woken", "No alert of the kind that pages was opened.")
    elif not sights:
        teller.says("Noticed", "by nobody.")


def _unwell(watch: Watch, incident: Incident, entity: Entity, clean: Hashes) -> list[str]:
    """Return what is still wrong after it was mended, a sentence each."""
    night = watch.night
    wrong = [found.sentence for found in night.store.parity() if not found.holds]
    list(watch.alerted())
    if not incident.quiet:
        pages = [each for each in watch.open_problems if each.severity == "page"]
        wrong += [f"Still open: {each.sentence}" for each in pages]
    found = explain(night.store, dict(entity), incident.feature)
    if found.cause != "as it should be":
        wrong.append(f"`why` still says {found.cause}: {found.sentence}")
    if incident.as_if_nothing:
        now = hashes(night)
        other = sorted(
            f"{view} {day}" for (view, day) in clean if now.get((view, day)) != clean[view, day]
        )
        if other:
            wrong.append(f"Another content than on a clean night: {', '.join(other)}.")
    return wrong
