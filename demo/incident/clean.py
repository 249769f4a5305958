"""Days of the real data on which nothing breaks: whoever is woken then is woken for naught.

Every view of the project is computed, audited, committed and pushed day by day, each in its own
night, with a clock that is passed in. Owners' problems are looked for twice a day: after the run,
and just before the next files land, when everything is oldest. The clocks change meanwhile.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from demo.incident.base import Clock, NightStore, landed_at, project_in, the_project
from demo.incident.night import Night, online_server
from demo.incident.watch import Sight, Watch
from demo.replay import land
from lockstep.catalog import discover
from lockstep.cli.console import err, out, say, table
from lockstep.ingest import ingest
from lockstep.time import days_between

FIRST: Final = date(2026, 8, 13)
HISTORY: Final = timedelta(days=90)
"""What the longest window needs before the first day."""
LAST_LOOK: Final = 24.4
"""Hours after midnight: the next files land at 24.5."""


@dataclass
class Tally:
    """What was seen.

    Attributes:
        pages: Everything that would have woken somebody.
        tickets: Everything that would have waited for the morning.
        warnings: Check → day-views that it warned of and let through.
        judged: Day-views that were audited.
    """

    pages: list[Sight] = field(default_factory=list)
    tickets: list[Sight] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    blocked: list[str] = field(default_factory=list)
    days: int = 0
    judged: int = 0
    seconds: float = 0.0


def clean_days(days: int, home: Path, file: Path | None = None) -> bool:
    """Play that many days on which nothing breaks; whether nobody was woken.

    Args:
        home: Where the lake is kept meanwhile.
        file: Where the numbers are written, after every day.

    Raises:
        LockstepError: The lake or the online store does not answer.
    """
    began = time.perf_counter()
    with _world(home) as (night, staged):
        tally = _play(night, staged, days_between(FIRST, FIRST + timedelta(days=days - 1)), file)
    tally.seconds = time.perf_counter() - began
    _show(tally, days)
    if file:
        file.write_text(json.dumps(as_json(tally), indent=2) + "\n", encoding="utf-8")
    return not tally.pages and not tally.blocked


@contextmanager
def _world(home: Path) -> Iterator[tuple[Night, Path]]:
    """Give a night without anything but the history, and the folder of what will land."""
    with online_server(home, "clean") as (work, url):
        clock = Clock(landed_at(FIRST - timedelta(days=1)))
        project = project_in(work / "days", url, "lockstep:clean")
        store = NightStore(project, clock, discover(the_project()))
        before = days_between(FIRST - HISTORY, FIRST - timedelta(days=1))
        try:
            land(Path(project.landing), before[0], before[-1])
            for source in store.catalog.sources.values():
                list(ingest(store.lake, source, before, now=clock))
            yield Night(work / "days", store, clock), work / "days" / "staged"
        finally:
            shutil.rmtree(work / "days", ignore_errors=True)


def _play(night: Night, staged: Path, days: Sequence[date], file: Path | None) -> Tally:
    land(staged, days[0], days[-1])
    tally, watch = Tally(), Watch(night)
    columns = (TextColumn("clean days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err()) as progress:
        for day in progress.track(days):
            night.day = day
            night.at(0.5)
            for source in night.store.catalog.sources:
                delivered = staged / source / f"{day}.parquet"
                if delivered.exists():
                    delivered.rename(Path(night.store.project.landing) / source / delivered.name)
            night.daily()
            _count(tally, watch, night)
            night.at(LAST_LOOK)
            _count(tally, watch, night)
            tally.days += 1
            if file:  # whoever stops it has what was seen until then
                file.write_text(json.dumps(as_json(tally), indent=2) + "\n", encoding="utf-8")
    return tally


def _count(tally: Tally, watch: Watch, night: Night) -> None:
    for sight in watch.alerted():
        (tally.pages if sight.page else tally.tickets).append(sight)
    for _, outcome in night.outcomes:
        tally.judged += bool(outcome.verdicts)
        tally.blocked += [outcome.message] if outcome.status in {"quarantined", "refused"} else []
        tally.warnings.update(
            verdict.check for verdict in outcome.verdicts if not (verdict.passed or verdict.blocks)
        )
    night.outcomes.clear()


def _show(tally: Tally, days: int) -> None:
    woken = "Nobody was woken" if not tally.pages else f"{len(tally.pages)} FALSE PAGES"
    say(
        f"{days} days from {FIRST} on, {tally.judged:,} days of views judged, in "
        f"{tally.seconds:.0f} s. {woken}; {len(tally.tickets)} tickets; {len(tally.blocked)} days "
        "kept from being committed."
    )
    rows: list[tuple[object, ...]] = [("warned", check, n) for check, n in tally.warnings.items()]
    tickets = Counter(sight.by for sight in tally.tickets)
    rows += [("ticket", by, count) for by, count in tickets.items()]
    rows += [
        ("PAGE", f"{sight.at:%Y-%m-%d %H:%M} {sight.by}", sight.sentence) for sight in tally.pages
    ]
    rows += [("BLOCKED", "", sentence) for sentence in tally.blocked]
    if rows:
        out().print(table(("what", "by", "how often"), rows))


def as_json(tally: Tally) -> dict[str, object]:
    """Return what is kept of it, for programs."""
    return {
        "days": tally.days,
        "first": str(FIRST),
        "day_views": tally.judged,
        "pages": [f"{sight.at.isoformat()} {sight.by} {sight.subject}" for sight in tally.pages],
        "tickets": [
            f"{sight.at.isoformat()} {sight.by} {sight.subject}: {sight.sentence}"
            for sight in tally.tickets
        ],
        "warnings": dict(tally.warnings),
        "blocked": tally.blocked,
        "seconds": round(tally.seconds, 1),
    }
