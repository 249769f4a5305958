"""Who looks at the platform, how often, and what they saw first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from demo.incident.night import Night
from lockstep.alerts.fold import advance
from lockstep.alerts.look import look as look_for_problems
from lockstep.alerts.problem import Problem
from lockstep.alerts.state import State
from lockstep.last_look import Memory
from lockstep.reconcile import Finding, look, mark, repair
from lockstep.status import view_facts

EVERY: Final[Mapping[str, timedelta]] = {
    "reconcile": timedelta(seconds=15),
    "alerts": timedelta(seconds=60),
    "parity": timedelta(minutes=10),
}
"""Between two ticks of the sensors and of the scheduled check."""

_SETTLED: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class Sight:
    """What somebody saw.

    Attributes:
        by: `check completeness`, `run refused`, `alert zone_shift`, `sensor reconcile`,
            `check parity` or `status`.
        page: Whether it wakes somebody.
        blocks: Whether it kept the day from being committed.
    """

    at: datetime
    by: str
    subject: str
    sentence: str
    page: bool = False
    blocks: bool = False


@dataclass
class Watch:
    """The sensors' memory of one night."""

    night: Night
    state: State = field(default_factory=State)
    memory: Memory = field(default_factory=lambda: Memory(None, "incident"))
    seen: int = 0

    def settle(self) -> list[Problem]:
        """Look once while all is well, and return what is not."""
        list(self.reconciled())
        self.seen = len(self.night.outcomes)
        list(self.alerted())
        return self.open_problems

    @property
    def open_problems(self) -> list[Problem]:
        """What owners were told and is not over."""
        return [each.problem for each in self.state.episodes.values() if each.healed is None]

    def audited(self) -> list[Sight]:
        """Return what runs have said since the last call: days quarantined, refused, warned of."""
        fresh, self.seen = self.night.outcomes[self.seen :], len(self.night.outcomes)
        sights = []
        for at, outcome in fresh:
            if outcome.status == "refused":
                sights.append(Sight(at, "run refused", outcome.name, outcome.message))
            for verdict in outcome.verdicts:
                if not verdict.passed:
                    what = f"{outcome.name} {outcome.day}"
                    by, blocks = f"check {verdict.check}", verdict.blocks
                    sights.append(Sight(at, by, what, verdict.message, blocks=blocks))
        return sights

    def until(self, end: datetime, names: tuple[str, ...] = tuple(EVERY)) -> Iterator[Sight]:
        """Yield what the status shows now, then what is seen at every tick up to an instant."""
        yield from self.asked()
        clock, begin = self.night.clock, self.night.clock.now
        settled, late = begin + _SETTLED, end - _SETTLED
        ticks = sorted((at, name) for name in names for at in _ticks(begin, end, EVERY[name]))
        for at, name in ticks:
            if name == "reconcile" and settled < at < late:
                continue  # nothing but time passes, and what it waits for takes ten minutes
            clock.now = at
            yield from _LOOKS[name](self)
        clock.now = max(clock.now, end)

    def first_minute(self, end: datetime) -> datetime:
        """Return the first tick of the alerts at which there is a problem, by halving.

        Only while nothing happens but that time passes: then a problem that is there stays.
        """
        clock, begin = self.night.clock, self.night.clock.now
        low, high = 0, (end - begin) // EVERY["alerts"]
        while low < high:
            middle = (low + high) // 2
            clock.now = begin + middle * EVERY["alerts"]
            if look_for_problems(self.night.store).problems:
                high = middle
            else:
                low = middle + 1
        return begin + low * EVERY["alerts"]

    def alerted(self) -> Iterator[Sight]:
        """Yield what the sensor `alerts` tells owners now."""
        store, now = self.night.store, self.night.clock.now
        known = set(self.state.episodes)
        self.state = advance(self.state, look_for_problems(store), now)
        for name, episode in self.state.episodes.items():
            if name not in known:
                found = episode.problem
                page = found.severity == "page"
                yield Sight(now, f"alert {found.kind}", found.subject, found.sentence, page)

    def reconciled(self) -> Iterator[Sight]:
        """Yield what the sensor `reconcile` finds now."""
        for finding in self.findings():
            yield Sight(self.night.clock.now, "sensor reconcile", finding.view, finding.sentence)

    def findings(self, *, patient: bool = True) -> list[Finding]:
        """Return what the sensor `reconcile` finds now; readers are told in the same tick."""
        store = self.night.store
        seen = look(
            store.lake,
            store.online_store,
            store.views.values(),
            now=self.night.clock,
            memory=self.memory,
            patient=patient,
        )
        return list(mark(store.online_store, seen).findings)

    def reconcile(self) -> list[str]:
        """Do what the job `reconcile` does, and say what came of it."""
        store = self.night.store
        repaired = [
            repair(
                store.lake, store.online_store, store.catalog.view(found.view), found,
                now=self.night.clock,
            )
            for found in self.findings(patient=False)
        ]  # fmt: skip
        return [each.sentence for each in repaired]

    def compared(self) -> Iterator[Sight]:
        """Yield what the scheduled check `parity` finds now."""
        for found in self.night.store.parity():
            if not found.holds and not found.waits:
                yield Sight(self.night.clock.now, "check parity", found.view, found.sentence)

    def asked(self) -> Iterator[Sight]:
        """Yield what `lockstep status` says now of code that changed."""
        store = self.night.store
        for view in store.views.values():
            facts = view_facts(store.lake, view, store.reader(), self.night.clock.now)
            if facts.outdated:
                days = f"{len(facts.outdated)} days, {facts.outdated[0]} to {facts.outdated[-1]}"
                said = f"{view.name}: {days}, were computed by other code than the declared one."
                yield Sight(self.night.clock.now, "status", view.name, said)


def _ticks(begin: datetime, end: datetime, every: timedelta) -> Iterator[datetime]:
    """Yield the instants after `begin` at whole multiples of a period, as cron and sensors have."""
    seconds = int(every.total_seconds())
    at = datetime.fromtimestamp((int(begin.timestamp()) // seconds + 1) * seconds, begin.tzinfo)
    while at <= end:
        yield at
        at += every


_LOOKS: Final[Mapping[str, Callable[[Watch], Iterator[Sight]]]] = {
    "reconcile": Watch.reconciled,
    "alerts": Watch.alerted,
    "parity": Watch.compared,
}
