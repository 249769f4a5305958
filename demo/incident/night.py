"""The platform of one night: sensors and the daily run, as calls with a clock that is passed in.

What Dagster does is to call the same functions of the engine when it is time. What it adds, runs
and their logs, is not played.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import polars as pl

from demo.incident.base import LAST, NEXT, Clock, NightStore, landed_at, project_in
from lockstep.affected import affected_days
from lockstep.catalog import Catalog
from lockstep.ingest import days_to_ingest, held_days, ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.push import push
from lockstep.stores.server import EmbeddedServer
from lockstep.time import as_of, contiguous, days_between, last_full_day
from lockstep.view import FeatureView

SENSOR_OF_FILES: Final = timedelta(seconds=30)
"""Between two ticks of the sensor `new_files`."""
DAILY: Final = timedelta(hours=2)
"""After midnight: the run `daily_after_landing`."""

Change = Callable[[pl.DataFrame], pl.DataFrame]


class PowerCutError(Exception):
    """A process ended here."""


@dataclass
class Night:
    """One copy of the base, with everything pushed, on the morning after its last day.

    Attributes:
        folder: Of this copy: `lake`, and what lands next in `next`.
        day: The day whose files land in the present night.
        ran: Days whose daily run was.
        outcomes: Every day that a run has dealt with, in order, with the instant of it.
    """

    folder: Path
    store: NightStore
    clock: Clock
    day: date = NEXT
    ran: set[date] = field(default_factory=set)
    outcomes: list[tuple[datetime, DayOutcome]] = field(default_factory=list)

    @classmethod
    def of(cls, base: Path, folder: Path, url: str, chosen: Catalog) -> "Night":
        """Copy the base into a new folder, empty the online server and push everything."""
        _copy(base, folder)
        clock = Clock(landed_at(LAST) + SENSOR_OF_FILES)
        project = project_in(folder, url, "lockstep:incident")
        night = cls(folder, NightStore(project, clock, chosen), clock)
        night.store.online_store.ask("FLUSHALL")
        for view in night.store.views.values():
            push(night.store.lake, night.store.online_store, view, now=clock)
        return night

    def view(self, name: str) -> FeatureView:
        """Return a view."""
        return self.store.catalog.view(name)

    def at(self, hours: float, day: date | None = None) -> None:
        """Move the clock to so many hours after the end of the night's day, never back."""
        self.clock.now = max(self.clock.now, self.instant(hours, day))

    def instant(self, hours: float, day: date | None = None) -> datetime:
        """Return the instant so many hours after the end of the night's day, or of another."""
        return as_of(day or self.day, self.store.project.zone) + timedelta(hours=hours)

    # What upstream does

    def next_file(self, source: str, day: date | None = None) -> pl.DataFrame:
        """Return what lands in this night, or in that of another day."""
        return pl.read_parquet(self._next(source, day or self.day))

    def land(self, source: str, change: Change | None = None, day: date | None = None) -> None:
        """Land a night's file of a source, changed if somebody broke it."""
        frame = self.next_file(source, day)
        name = self._next(source, day or self.day).stem
        self.deliver(source, name, frame if change is None else change(frame))

    def deliver(self, source: str, name: str, frame: pl.DataFrame) -> None:
        """Put a file into the landing zone, now."""
        path = Path(self.store.project.landing) / source / f"{name}.parquet"
        path.unlink(missing_ok=True)  # of the base it is a link
        frame.write_parquet(path)

    def landed(self, source: str, day: date) -> pl.DataFrame:
        """Return the file of an earlier day."""
        return pl.read_parquet(Path(self.store.project.landing) / source / f"{day}.parquet")

    def _next(self, source: str, day: date) -> Path:
        of_day = self.folder / "next" / source / f"{day}.parquet"
        return of_day if of_day.exists() else of_day.with_stem(source)

    # What the platform does

    def new_files(self, *, pushing: bool = True) -> list[DayOutcome]:
        """Do what the sensor `new_files` has done: ingest what landed, and compute what reads it.

        Args:
            pushing: Without it the run ends before anything is pushed.
        """
        self.clock.now += SENSOR_OF_FILES
        store, done = self.store, list[DayOutcome]()
        newest = last_full_day(self.clock.now, store.project.zone)
        for source in store.catalog.sources.values():
            waiting = days_to_ingest(store.lake, source, self.clock.now)
            held = held_days(store.lake, source)
            ready = [day for day in waiting if day <= newest and day not in held]
            for first, last in contiguous(ready):
                days = days_between(first, last)
                done += ingest(store.lake, source, days, now=self.clock, run_id=self._run("new"))
                affected = affected_days(store.views.values(), {source.name: days}, newest)
                done += self.compute(affected, pushing=pushing)
        self._note(done)
        return done

    def daily(self) -> list[DayOutcome]:
        """Do what `daily_after_landing` has done: the day that ended, at two.

        What the sensor has had computed is left out: the run would find it unchanged.
        """
        self.at(DAILY / timedelta(hours=1))
        store, run = self.store, self._run("daily")
        day = last_full_day(self.clock.now, store.project.zone)
        done = [
            ingest_snapshot(store.lake, of, now=self.clock, run_id=run)
            for of in store.catalog.snapshots.values()
        ]
        for source in store.catalog.sources.values():
            done += ingest(store.lake, source, [day], now=self.clock, run_id=run)
        views = store.views.values()
        done += self.compute(
            {view.name: {day} for view in views if day not in store.committed(view)}
        )
        self._note(done)
        return done

    def two_o_clock(self) -> None:
        """Do the daily run of this night, unless it was."""
        if self.day not in self.ran:
            self.daily()

    def next_night(self) -> None:
        """Go on with the day after."""
        self.two_o_clock()
        self.day += timedelta(days=1)

    def compute(
        self, days: Mapping[str, Collection[date]], *, pushing: bool = True
    ) -> list[DayOutcome]:
        """Materialize days of views, in reading order, and push those that are certified."""
        done: list[DayOutcome] = []
        for view in self.store.views.values():
            wanted = sorted(day for day in days.get(view.name, ()) if self._has_window(view, day))
            if not wanted:
                continue
            found = list(
                materialize(
                    self.store.lake,
                    view,
                    wanted,
                    self.store.reader(),
                    now=self.clock,
                    run_id=self._run("view"),
                )
            )
            done += found
            certified = [outcome.day for outcome in found if outcome.certified]
            if certified and pushing:
                self.push(view.name, certified)
        return done

    def push(self, name: str, days: Sequence[date] | None = None, *, cut: int = 0) -> None:
        """Push days of a view.

        Args:
            cut: The process ends after so many acknowledged calls.
        """
        acknowledged = 0

        def on_rows(_: int) -> None:
            nonlocal acknowledged
            acknowledged += 1
            if cut and acknowledged == cut:
                raise PowerCutError

        store = self.store
        with suppress(PowerCutError):
            push(
                store.lake,
                store.online_store,
                self.view(name),
                days,
                now=self.clock,
                on_rows=on_rows,
            )

    def _has_window(self, view: FeatureView, day: date) -> bool:
        """Whether the base holds the whole window: days before it were never computed."""
        committed = self.store.committed(view)
        return day >= min(committed, default=day)

    def _note(self, outcomes: Collection[DayOutcome]) -> None:
        self.outcomes += [(self.clock.now, outcome) for outcome in outcomes]

    def _run(self, of: str) -> str:
        return f"{of}-{self.clock.now:%Y%m%dT%H%M%S}"


@contextmanager
def online_server(home: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Give a new folder and the URL of an online server in it, which ends with the block."""
    home.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(prefix=f"{name}-", dir=home))
    redis = EmbeddedServer(work / "redis", settings={"appendonly": "no"})
    try:
        yield work, redis.start()
    finally:
        redis.stop()
        shutil.rmtree(work / "redis", ignore_errors=True)
        if not any(work.iterdir()):
            work.rmdir()


def _copy(base: Path, folder: Path) -> None:
    """Copy the base, its landed files as links: a copied file would count as a new delivery."""

    def but_landed(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "landing" and Path(parent).name == "lake"]

    shutil.copytree(base, folder, ignore=but_landed)
    for file in (base / "lake" / "landing").rglob("*.parquet"):
        link = folder / file.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


@contextmanager
def nights(
    base: Path, work: Path, url: str, chosen: Catalog, *, keep: bool = False
) -> Iterator[Callable[[str], Night]]:
    """Give a function that makes a night by name.

    Args:
        keep: Do not remove the copies at the end.
    """
    made: list[Path] = []

    def night(name: str) -> Night:
        made.append(work / name)
        return Night.of(base, made[-1], url, chosen)

    try:
        yield night
    finally:
        for folder in () if keep else made:
            shutil.rmtree(folder, ignore_errors=True)
