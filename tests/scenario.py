"""A small project with awkward data, opened on a folder of its own; almost no fixtures.

Why each part is there:
- `events` has naive local times, so a dropped zone conversion moves rows to other days;
- `amount` has NaN and null, `kind` has hostile strings;
- `spend_3d` is windowed and closes; `profile` keeps its last row for ever; `pace` reads a view.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import polars as pl

from lockstep import Entity, Feature, Features, Snapshot, Source, feature_view
from lockstep.catalog import Catalog
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.project import Project
from lockstep.push import Pushed, push
from lockstep.store import Store
from lockstep.time import as_of, days_between
from lockstep.view import FeatureView

ZONE = ZoneInfo("America/New_York")
START = date(2026, 3, 1)
SPRING = date(2026, 3, 8)
"""A day of 23 hours in the zone."""
AUTUMN = date(2026, 11, 1)
"""A day of 25 hours in the zone."""

USER = Entity("user", {"user_id": pl.Int64}, "Somebody.", buckets=4)

EVENTS = Source(
    "events",
    {
        "event_id": pl.String,
        "user_id": pl.Int64,
        "amount": pl.Float64,
        "kind": pl.String,
        "at": pl.Datetime("us"),
    },
    event_time="at",
    time_zone="America/New_York",
    unique_by=["event_id"],
    start=START,
    may_be_empty=True,
    description="What somebody did.",
)

PEOPLE = Snapshot(
    "people",
    {"user_id": pl.Int64, "country": pl.String},
    key="user_id",
    valid_from="always",
    description="Who somebody is.",
)


@dataclass(frozen=True)
class Views:
    """The views of the scenario, made anew so that a test may make other ones beside them."""

    spend_3d: FeatureView
    profile: FeatureView
    pace: FeatureView

    @property
    def all(self) -> list[FeatureView]:
        return [self.spend_3d, self.profile, self.pace]


def make_views(*, fill_rate: float | None = None, min_rows: int = 0) -> Views:
    """Return the three views; `fill_rate` and `min_rows` limit `spend_3d`."""

    class Spend3d(
        Features,
        entity=USER,
        owner="team:tests",
        ttl=timedelta(days=2),
        when_absent="empty",
        min_rows=min_rows,
    ):
        """What somebody spent in three days."""

        amount_3d = Feature(
            pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0, fill_rate=fill_rate
        )
        events_3d = Feature(pl.Int64, "Events.", at_least=0, empty=0)

    @feature_view(Spend3d, inputs=[EVENTS.trailing(days=3)])
    def spend_3d(events: pl.LazyFrame) -> pl.LazyFrame:
        return events.group_by("user_id").agg(
            amount_3d=pl.col("amount").sum(), events_3d=pl.len().cast(pl.Int64)
        )

    class Profile(Features, entity=USER, owner="team:tests", ttl=None, min_rows=0):
        """Who somebody is."""

        country = Feature(pl.String, "Where from.", pii=True)

    @feature_view(Profile, inputs=[PEOPLE.latest()])
    def profile(people: pl.LazyFrame) -> pl.LazyFrame:
        return people.select("user_id", "country")

    class Pace(Features, entity=USER, owner="team:tests", ttl=timedelta(days=2), min_rows=0):
        """Spend per event."""

        per_event = Feature(pl.Float64, "Mean spend.")

    @feature_view(Pace, inputs=[spend_3d.same_day()])
    def pace(spend_3d: pl.LazyFrame) -> pl.LazyFrame:
        mean = pl.col("amount_3d") / pl.col("events_3d")
        return spend_3d.select("user_id", per_event=pl.when(pl.col("events_3d") > 0).then(mean))

    return Views(spend_3d, profile, pace)


def catalog_of(views: Sequence[FeatureView]) -> Catalog:
    return Catalog(
        entities={USER.name: USER},
        sources={EVENTS.name: EVENTS},
        snapshots={PEOPLE.name: PEOPLE},
        views={view.name: view for view in views},
        feature_sets={},
        broken={},
    )


@dataclass
class Clock:
    """The present instant, moved by the test."""

    now: datetime = field(default_factory=lambda: as_of(date(2026, 3, 31), ZONE))

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """A store on a folder, its clock and its views."""

    store: Store
    clock: Clock
    views: Views

    def land(self, name: str, rows: Iterable[Mapping[str, Any]], file: str) -> Path:
        """Write a parquet file into the landing folder of a source or snapshot."""
        of = EVENTS if name == "events" else PEOPLE
        types = of.file_types if isinstance(of, Source) else of.columns
        path = Path(self.store.project.landing) / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(list(rows), schema=types).write_parquet(path)
        return path

    def ingest(self, first: date, last: date) -> list[DayOutcome]:
        days = days_between(first, last)
        return list(ingest(self.store.lake, EVENTS, days, now=self.clock, run_id="test"))

    def ingest_people(self) -> DayOutcome:
        return ingest_snapshot(self.store.lake, PEOPLE, now=self.clock, run_id="test")

    def build(self, view: FeatureView, first: date, last: date | None = None) -> list[DayOutcome]:
        days = days_between(first, last or first)
        reader = self.store.reader()
        run = materialize(self.store.lake, view, days, reader, now=self.clock, run_id="test")
        return list(run)

    def push(self, view: FeatureView, days: Sequence[date] | None = None) -> Pushed:
        return push(self.store.lake, self.store.online_store, view, days, now=self.clock)

    def restart(self) -> "World":
        """Return the same world as a new process would open it: nothing remembered."""
        store = Store(self.store.project, now=self.clock)
        store.__dict__["catalog"] = self.store.catalog
        return World(store, self.clock, self.views)

    def rows(self, view: FeatureView, day: date) -> pl.DataFrame:
        """Return the committed rows of a day, without bookkeeping."""
        return self.store.lake.table(view).read_day(day).drop("known_at", "day")


def world(
    folder: Path,
    *,
    redis_url: str | None = None,
    views: Views | None = None,
    now: Callable[[], datetime] | None = None,
    namespace: str | None = None,
) -> World:
    """Open a store on a folder; nothing is written before the first use."""
    project = Project(
        folder=folder,
        views="views",
        root=str(folder / "lake"),
        zone=ZONE,
        namespace=namespace or f"test:{uuid4().hex}",
        redis_url=redis_url or "redis://127.0.0.1:1/0",
        land=None,
    )
    clock = now if isinstance(now, Clock) else Clock()
    chosen = views or make_views()
    store = Store(project, now=clock)
    store.__dict__["catalog"] = catalog_of(chosen.all)
    return World(store, clock, chosen)


def event(
    event_id: str, user_id: int, day: date, amount: float | None = 1.0, *, hour: int = 12
) -> dict[str, Any]:
    """Return one event at a local hour of a day."""
    return {
        "event_id": event_id,
        "user_id": user_id,
        "amount": amount,
        "kind": "buy",
        "at": datetime(day.year, day.month, day.day, hour),
    }


def instant(day: date, hour: int = 0) -> datetime:
    """Return a local hour of a day, in UTC."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=ZONE).astimezone(UTC)
