"""Days of the real data on which nothing breaks: whoever is woken then is woken for naught.

Every view of the project is computed, audited, committed and pushed day by day, each in its own
night, with a clock that is passed in. Everybody who could wake somebody looks twice a day, after
the run and just before the next files land, when everything is oldest: the sensor `reconcile`, the
scheduled check `parity` over every entity, and the sensor `alerts`. A run that fails wakes
somebody, too. The clocks change meanwhile.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from demo.incident.base import ROOT, Clock, NightStore, landed_at, project_in, the_project
from demo.incident.night import Night, online_server
from demo.incident.watch import Sight, Watch
from demo.replay import land
from lockstep.catalog import Catalog, discover
from lockstep.cli.console import err, out, say, table
from lockstep.errors import LockstepError
from lockstep.ingest import ingest
from lockstep.time import days_between

FIRST: Final = date(2026, 8, 13)
HISTORY: Final = timedelta(days=90)
"""What the longest window needs before the first day."""
LAST_LOOK: Final = 24.4
"""Hours after midnight: the next files land at 24.5."""
RESULTS: Final = ROOT / "benchmarks" / "results" / "clean_days.json"
"""What docs/incidents.md shows."""
HEADS: Final = (
    *("days", "days of views judged", "looks", "failed runs", "pages", "tickets"),
    *("warnings of an audit", "days kept back"),
)


@dataclass
class Tally:
    """What was seen.

    Attributes:
        pages: Everything that would have woken somebody, failed runs among it.
        tickets: Everything that would have waited for the morning.
        warnings: Check → day-views that it warned of and let through.
        blocked: What was said of days that were not committed.
        failed: Runs that ended with an error.
        looks: How often everybody looked.
        judged: Day-views that were audited.
    """

    pages: list[Sight] = field(default_factory=list)
    tickets: list[Sight] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    blocked: list[str] = field(default_factory=list)
    failed: int = 0
    looks: int = 0
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
    every = days_between(FIRST, FIRST + timedelta(days=days - 1))
    tally = Tally()
    columns = (TextColumn("clean days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with clean_world(home, every) as watch, Progress(*columns, console=err()) as progress:
        for day in progress.track(every):
            play_day(tally, watch, day)
            tally.seconds = time.perf_counter() - began
            if file:  # whoever stops it has what was seen until then
                file.write_text(json.dumps(as_json(tally), indent=1) + "\n", encoding="utf-8")
    _show(tally, days)
    return not tally.pages and not tally.blocked


@contextmanager
def clean_world(
    home: Path,
    days: Sequence[date],
    *,
    chosen: Catalog | None = None,
    history: timedelta = HISTORY,
) -> Iterator[Watch]:
    """Give who watches a lake that holds the history only, and stage what will land.

    Args:
        chosen: The declarations; those of the whole project if not given.
        history: So much of the sources is there before the first of the days.
    """
    with online_server(home, "clean") as (work, url):
        clock = Clock(landed_at(days[0] - timedelta(days=1)))
        project = project_in(work / "days", url, "lockstep:clean")
        store = NightStore(project, clock, chosen or discover(the_project()))
        before = days_between(days[0] - history, days[0] - timedelta(days=1))
        try:
            land(Path(project.landing), before[0], before[-1])
            for source in store.catalog.sources.values():
                list(ingest(store.lake, source, before, now=clock))
            land(_staged(work / "days"), days[0], days[-1])
            yield Watch(Night(work / "days", store, clock))
        finally:
            shutil.rmtree(work / "days", ignore_errors=True)


def play_day(tally: Tally, watch: Watch, day: date) -> None:
    """Let a day's files land, do its run, and look twice."""
    night = watch.night
    night.day = day
    night.at(0.5)
    for source in night.store.catalog.sources:
        delivered = _staged(night.folder) / source / f"{day}.parquet"
        if delivered.exists():
            delivered.rename(Path(night.store.project.landing) / source / delivered.name)
    try:
        night.daily()
    except LockstepError as error:
        tally.failed += 1
        tally.pages.append(Sight(night.clock.now, "run failed", str(day), str(error), page=True))
    everybody_looks(tally, watch)
    night.at(LAST_LOOK)
    everybody_looks(tally, watch)
    tally.days += 1


def everybody_looks(tally: Tally, watch: Watch) -> None:
    """Count what whoever could wake somebody sees now, and what the runs since have said."""
    tally.looks += 1
    for seen in (watch.reconciled(), watch.compared()):
        tally.pages += [replace(sight, page=True) for sight in seen]
    for sight in watch.alerted():
        (tally.pages if sight.page else tally.tickets).append(sight)
    for _, outcome in watch.night.outcomes:
        tally.judged += bool(outcome.verdicts)
        tally.blocked += [] if outcome.certified else [outcome.message]
        tally.warnings.update(
            verdict.check for verdict in outcome.verdicts if not (verdict.passed or verdict.blocks)
        )
    watch.night.outcomes.clear()


def _staged(folder: Path) -> Path:
    return folder / "staged"


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


def as_json(tally: Tally) -> dict[str, Any]:
    """Return what is kept of it, for programs and for docs/incidents.md."""
    return {
        "days": tally.days,
        "first": str(FIRST),
        "last": str(FIRST + timedelta(days=tally.days - 1)),
        "day_views": tally.judged,
        "looks": tally.looks,
        "failed_runs": tally.failed,
        "pages": [f"{_told(sight)}: {sight.sentence}" for sight in tally.pages],
        "tickets": [f"{_told(sight)}: {sight.sentence}" for sight in tally.tickets],
        "warnings": dict(tally.warnings),
        "blocked": tally.blocked,
        "seconds": round(tally.seconds, 1),
    }


def _told(sight: Sight) -> str:
    return f"{sight.at.isoformat()} {sight.by} {sight.subject}"


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the table of docs/incidents.md, from what `as_json` kept."""
    seen = ("pages", "tickets", "blocked")
    pages, tickets, blocked = (len(found[name]) for name in seen)
    cells = (
        *(found["days"], found["day_views"], found["looks"], found["failed_runs"]),
        *(pages, tickets, sum(found["warnings"].values()), blocked),
    )
    lines = (HEADS, ["---"] * len(HEADS), [f"{cell:,}" for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
