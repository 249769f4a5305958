"""A shop to break on purpose: one source, a windowed view, one that remembers, one that reads it.

    sales      shopper, sale_id, amount, at (naive, New York): must arrive every day, mostly by day
    spend_3d   what a shopper spent in three days; closed with empty values; ttl 2 days
    last_sale  a shopper's sales of the day; kept for 5 days
    share      reads spend_3d of the same day; ttl 2 days

Shoppers 1 to 20 buy on most days, 21 to 26 stopped a while ago, 27 to 30 never were there. All is
built and pushed up to `LAST`; it is the morning after.
"""

import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import polars as pl

from lockstep import Entity, Feature, Features, Source, feature_view
from lockstep.catalog import Catalog
from lockstep.ingest import ingest
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.project import Project
from lockstep.push import Pushed, push
from lockstep.store import Store
from lockstep.time import days_between
from lockstep.view import FeatureView
from tests.scenario import Clock, instant

ZONE = ZoneInfo("America/New_York")
START, LAST = date(2026, 9, 1), date(2026, 9, 18)
DAYS = days_between(START, LAST)
VIEW_DAYS = DAYS[2:]
BUYING, STOPPED, STRANGERS = range(1, 21), range(21, 27), range(27, 31)
BUCKETS = 8

SHOPPER = Entity("shopper", {"shopper": pl.Int64}, "Somebody who buys.", buckets=BUCKETS)

SALES = Source(
    "sales",
    {
        "shopper": pl.Int64,
        "sale_id": pl.String,
        "amount": pl.Float64,
        "at": pl.Datetime("us"),
    },
    event_time="at",
    time_zone="America/New_York",
    unique_by=["sale_id"],
    start=START,
    description="A sale.",
)


class Spend3d(
    Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=2), when_absent="empty"
):
    """What a shopper spent in three days."""

    spend = Feature(pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0)
    sales = Feature(pl.Int64, "Sales.", at_least=0, empty=0)


@feature_view(Spend3d, inputs=[SALES.trailing(days=3)])
def spend_3d(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.group_by("shopper").agg(
        spend=pl.col("amount").sum(), sales=pl.len().cast(pl.Int64)
    )


class LastSale(Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=5)):
    """A shopper's sales of the newest day on which there were any."""

    biggest = Feature(pl.Float64, "The biggest sale.", pii=True)


@feature_view(LastSale, inputs=[SALES.trailing(days=1)])
def last_sale(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.group_by("shopper").agg(biggest=pl.col("amount").max())


class Share(Features, entity=SHOPPER, owner="team:tests", ttl=timedelta(days=2)):
    """A sale's mean."""

    mean = Feature(pl.Float64, "Mean sale.")


@feature_view(Share, inputs=[spend_3d.same_day()])
def share(spend_3d: pl.LazyFrame) -> pl.LazyFrame:
    mean = pl.when(pl.col("sales") > 0).then(pl.col("spend") / pl.col("sales"))
    return spend_3d.select("shopper", mean=mean)


VIEWS = (spend_3d, last_sale, share)


def catalog_of(*views: FeatureView) -> Catalog:
    return Catalog(
        entities={SHOPPER.name: SHOPPER},
        sources={SALES.name: SALES},
        snapshots={},
        views={view.name: view for view in views},
        feature_sets={},
        broken={},
    )


def sale(sale_id: str, shopper: int, at: datetime, amount: float) -> dict[str, Any]:
    return {"shopper": shopper, "sale_id": sale_id, "amount": amount, "at": at}


def sales_of(day: date, rng: random.Random) -> list[dict[str, Any]]:
    """A day's sales, most of them late in the afternoon."""
    rows = []
    buyers = [who for who in BUYING if rng.random() < 0.85 or who == 1]
    if day < START + timedelta(days=9):
        buyers += STOPPED
    for who in buyers:
        for number in range(rng.randint(4, 9)):
            hour = min(22, max(8, round(rng.gauss(17, 2))))
            at = datetime(day.year, day.month, day.day, hour, rng.randrange(60), rng.randrange(60))
            rows.append(sale(f"{day}-{who}-{number}", who, at, round(rng.uniform(1, 90), 2)))
    return rows


@dataclass
class WhyWorld:
    """A store on a folder of its own, and its clock."""

    store: Store
    clock: Clock
    views: Sequence[FeatureView] = VIEWS
    landed: int = field(default=0)

    @property
    def folder(self) -> Path:
        return self.store.project.folder

    def view(self, name: str) -> FeatureView:
        return self.store.catalog.view(name)

    def land(self, rows: Iterable[Mapping[str, Any]], file: str = "") -> Path:
        self.landed += 1
        name = file or f"more-{self.landed}"
        path = Path(self.store.project.landing) / "sales" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(list(rows), schema=SALES.file_types).write_parquet(path)
        return path

    def ingest(self, days: Sequence[date]) -> list[DayOutcome]:
        return list(ingest(self.store.lake, SALES, days, now=self.clock, run_id="ingested"))

    def build(self, name: str, days: Sequence[date], run_id: str = "built") -> list[DayOutcome]:
        reader, view = self.store.reader(), self.view(name)
        return list(materialize(self.store.lake, view, days, reader, now=self.clock, run_id=run_id))

    def push(self, name: str, days: Sequence[date] | None = None) -> Pushed:
        return push(self.store.lake, self.store.online_store, self.view(name), days, now=self.clock)

    def push_all(self) -> None:
        for view in self.views:
            self.push(view.name)

    def declare(self, *views: FeatureView) -> None:
        """Let the project declare these views instead."""
        self.store.__dict__["catalog"] = catalog_of(*views)

    def copy(self, folder: Path) -> "WhyWorld":
        """The same lake in another folder, pushed into a namespace of its own."""
        shutil.copytree(self.folder / "lake", folder / "lake")
        made = opened(folder, self.store.project.redis_url or "", self.clock.now)
        made.ingest(DAYS)  # to the landing zone, a copied file is a new one
        made.push_all()
        return made


def opened(folder: Path, url: str, now: datetime | None = None) -> WhyWorld:
    """A world on what is in a folder, if anything; in a namespace of its own."""
    project = Project(
        folder=folder,
        views="views",
        root=str(folder / "lake"),
        zone=ZONE,
        namespace=f"test:{uuid4().hex}",
        redis_url=url,
        land=None,
    )
    clock = Clock(now or instant(LAST + timedelta(days=1), 6))
    store = Store(project, now=clock)
    made = WhyWorld(store, clock)
    made.declare(*VIEWS)
    return made


def built_world(folder: Path, url: str) -> WhyWorld:
    """The whole world, up to `LAST`."""
    made, rng = opened(folder, url), random.Random(7)
    for day in DAYS:
        made.land(sales_of(day, rng), str(day))
    made.ingest(DAYS)
    for view in VIEWS:
        made.build(view.name, VIEW_DAYS)
    made.push_all()
    return made
