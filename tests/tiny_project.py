"""A project of its own in a folder: two sources' worth of shop data, three views, real stores.

    orders     customer (text), order_id, amount, placed_at (naive UTC); 2025-03-03 to 2025-03-11,
               the clocks jump forward on the 9th
    contacts   customer, email: a snapshot without history
    spend_2d   what a customer spent in two days; closed with empty values; ttl 3 days
    orders_1d  a customer's orders of the day; for ever
    contact    PII; for ever

`NOW` is the afternoon of 2025-03-12 in New York; the last full day is the 11th.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.project import find_project
from lockstep.push import push
from lockstep.store import Store
from lockstep.stores.server import EmbeddedServer
from lockstep.time import days_between
from lockstep.view import FeatureView

NOW = datetime(2025, 3, 12, 18, tzinfo=UTC)
FIRST, LAST = date(2025, 3, 3), date(2025, 3, 11)
DAYS = days_between(FIRST, LAST)
VIEW_DAYS = DAYS[1:]
HOSTILE = 'Zoë\n"[red]} \x1b[31m'
CUSTOMERS = ("ada", "bob", HOSTILE)

PYPROJECT = """\
[tool.lockstep]
views = "{views}"
root = "lake"
time_zone = "America/New_York"
land = "{views}_landing:land"
"""

DECLARATIONS = '''\
"""What the shop has."""

from datetime import date

import polars as pl

from lockstep import Entity, Snapshot, Source

CUSTOMER = Entity("customer", {"customer": pl.String}, "Somebody who buys.", buckets=4)

ORDERS = Source(
    "orders",
    {
        "customer": pl.String,
        "order_id": pl.Int64,
        "amount": pl.Float64,
        "placed_at": pl.Datetime("us"),
    },
    event_time="placed_at",
    time_zone="UTC",
    unique_by=["order_id"],
    start=date(2025, 3, 3),
    owner="team:shop",
    description="An order.",
)

CONTACTS = Snapshot(
    "contacts",
    {"customer": pl.String, "email": pl.String},
    key="customer",
    valid_from="always",
    owner="team:privacy",
    description="Where to write.",
)
'''

SPEND = '''\
"""What a customer spent lately."""

from datetime import timedelta

import polars as pl

from {views}.declared import CUSTOMER, ORDERS
from lockstep import Feature, Features, feature_view


class Spend2d(
    Features, entity=CUSTOMER, owner="team:shop", ttl=timedelta(days=3), when_absent="empty"
):
    """Spend in the trailing two days."""

    spend = Feature(pl.Float64, "Spend.", unit="USD", at_least=0, empty=0.0, fill_rate=0.5)
    mean = Feature(pl.Float64, "Mean order.", unit="USD", empty=None)


@feature_view(Spend2d, inputs=[ORDERS.trailing(days=2)])
def spend_2d(orders: pl.LazyFrame) -> pl.LazyFrame:
    amount = pl.col("amount")
    return orders.group_by("customer").agg(spend=amount.sum(), mean=amount.mean())
'''

ORDERS_1D = '''\
"""A customer's orders of the day."""

import polars as pl

from {views}.declared import CUSTOMER, ORDERS
from lockstep import Feature, Features, feature_view


class Orders1d(Features, entity=CUSTOMER, owner="team:growth", ttl=None):
    """Orders of one day."""

    orders = Feature(pl.Int64, "Orders.", at_least=1)


@feature_view(Orders1d, inputs=[ORDERS.trailing(days=1)])
def orders_1d(orders: pl.LazyFrame) -> pl.LazyFrame:
    return orders.group_by("customer").agg(orders=pl.len().cast(pl.Int64))
'''

CONTACT = '''\
"""Where to write to a customer."""

import polars as pl

from {views}.declared import CONTACTS, CUSTOMER
from lockstep import Feature, Features, feature_view


class Contact(Features, entity=CUSTOMER, owner="team:privacy", ttl=None):
    """A customer's address."""

    email = Feature(pl.String, "E-mail address.", pii=True)


@feature_view(Contact, inputs=[CONTACTS.latest()])
def contact(contacts: pl.LazyFrame) -> pl.LazyFrame:
    return contacts.select("customer", "email")
'''

SETS = '''\
"""What models use."""

from {views}.orders_1d import Orders1d
from {views}.spend_2d import Spend2d
from lockstep import FeatureSet

BUYING_V1 = FeatureSet("buying_v1", [Spend2d.spend, Orders1d.orders], owner="team:shop")
'''

LANDING = '''\
"""What `lockstep land` calls."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    first: object
    last: object
    files: dict[str, int]
    written: list[int]


def land(store, first, last, on_day=None):
    on_day(first)
    return Summary(first, last, {"orders": 3}, list(range(9)))
'''

RUN = '''\
"""The child that `lockstep materialize` starts, without Dagster: the same events, the same work."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from lockstep.progress import report

parser = argparse.ArgumentParser()
parser.add_argument("--select")
parser.add_argument("--days", required=True)
asked = parser.parse_args()
print("the child says hello in", os.environ["DAGSTER_HOME"], flush=True)
if os.environ.get("CHILD_FAILS"):
    raise ZeroDivisionError("the child has a bug")
if marker := os.environ.get("CHILD_WAITS"):
    report("plan", name="orders", days=1)
    Path(marker).write_text(str(os.getpid()))
    try:
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        report("done", success=False, run_id="r0")
        sys.exit(7)

import lockstep
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.time import parse_days

store, bad = lockstep.open(), False
days = parse_days(asked.days)
known = [*store.catalog.snapshots, *store.catalog.sources, *store.views]
for name in asked.select.split(",") if asked.select else known:
    if name in store.catalog.snapshots:
        report("plan", name=name, days=1)
        outcomes = [ingest_snapshot(store.lake, store.catalog.snapshots[name], now=store.now)]
    else:
        report("plan", name=name, days=len(days))
        if name in store.catalog.sources:
            outcomes = ingest(store.lake, store.catalog.source(name), days, now=store.now)
        else:
            view = store.catalog.view(name)
            outcomes = materialize(store.lake, view, days, store.reader(), now=store.now)
    for day in outcomes:
        report("day", name=day.name, day=day.day, status=day.status, message=day.message)
        if not day.certified:
            bad = True
    if name in store.views:
        report("push", name=name, days=len(days), rows=3)
report("something newer", name="orders", days="many")
report("done", success=not bad, run_id="r1")
sys.exit(1 if bad else 0)
'''


@dataclass(frozen=True)
class TinyProject:
    """The project's folder, its views package, and its store as of `NOW`."""

    folder: Path
    views: str
    store: Store

    def view_file(self, name: str) -> Path:
        return self.folder / self.views / f"{name}.py"

    def land_orders(self, name: str, frame: pl.DataFrame) -> None:
        target = Path(self.store.project.landing) / "orders" / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(target)

    def ingest(self, days: Sequence[date] = DAYS) -> list[DayOutcome]:
        lake, now = self.store.lake, self.store.now
        for snapshot in self.store.catalog.snapshots.values():
            ingest_snapshot(lake, snapshot, now=now)
        return list(ingest(lake, self.store.catalog.source("orders"), days, now=now))

    def materialize(
        self, of: str | FeatureView, days: Sequence[date] = VIEW_DAYS
    ) -> list[DayOutcome]:
        view = self.store.catalog.view(of) if isinstance(of, str) else of
        reader, now = self.store.reader(), self.store.now
        return list(materialize(self.store.lake, view, days, reader, now=now))

    def push(self, name: str) -> None:
        push(
            self.store.lake,
            self.store.online_store,
            self.store.catalog.view(name),
            now=self.store.now,
        )

    def build(self) -> "TinyProject":
        """Land, ingest, materialize and push everything."""
        self.ingest()
        for name in self.store.views:
            self.materialize(name)
            self.push(name)
        return self


def orders(day: date, amounts: Sequence[float], *, first_id: int | None = None) -> pl.DataFrame:
    """One order per amount at noon UTC of the day, customers in turn."""
    start = (day - FIRST).days * 100 if first_id is None else first_id
    return pl.DataFrame(
        {
            "customer": [CUSTOMERS[at % len(CUSTOMERS)] for at in range(len(amounts))],
            "order_id": [start + at for at in range(len(amounts))],
            "amount": [float(amount) for amount in amounts],
            "placed_at": [datetime(day.year, day.month, day.day, 17)] * len(amounts),
        },
        schema_overrides={"placed_at": pl.Datetime("us")},
    )


def write_project(folder: Path) -> str:
    """Write the project's files and land its data; return the views package's name."""
    # Modules are cached per process by name, so every project has names of its own.
    views = f"views_{uuid4().hex[:10]}"
    package = folder / views
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(views=views))
    (folder / f"{views}_landing.py").write_text(LANDING)
    (folder / "schedules").mkdir()
    (folder / "schedules" / "__init__.py").touch()
    (folder / "schedules" / "run.py").write_text(RUN)
    (folder / "tests").mkdir()
    files = {
        "__init__": "",
        "declared": DECLARATIONS,
        "spend_2d": SPEND,
        "orders_1d": ORDERS_1D,
        "contact": CONTACT,
        "sets": SETS,
    }
    for name, body in files.items():
        (package / f"{name}.py").write_text(body.replace("{views}", views), encoding="utf-8")
    landing = folder / "lake" / "landing"
    (landing / "contacts").mkdir(parents=True)
    emails = [f"{at}@example.com" for at in range(len(CUSTOMERS))]
    pl.DataFrame({"customer": CUSTOMERS, "email": emails}).write_parquet(
        landing / "contacts" / "contacts.parquet"
    )
    return views


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One Valkey for all tiny projects; each has a namespace of its own."""
    server = EmbeddedServer(tmp_path_factory.mktemp("tiny server"))
    server.start()
    yield server
    server.stop()


def enter(folder: Path, views: str, url: str, patch: pytest.MonkeyPatch) -> TinyProject:
    """Open the project as of `NOW`, and make commands that are called here open it like that."""
    patch.setenv("LOCKSTEP_REDIS_URL", url)
    patch.setenv("LOCKSTEP_ENV", views)
    patch.chdir(folder)
    ticks = count()

    def now() -> datetime:
        # The ledger orders what it holds by time, so no two calls may tell the same.
        return NOW + timedelta(microseconds=next(ticks))

    patch.setattr("lockstep.store.open_store", lambda: Store(find_project(folder), now=now))
    return TinyProject(folder, views, Store(find_project(folder), now=now))


def land_all(project: TinyProject) -> TinyProject:
    for day in DAYS:
        project.land_orders(str(day), orders(day, [10, 20, 30, 40]))
    return project


@pytest.fixture
def tiny(
    tmp_path: Path, tiny_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> TinyProject:
    """A project with landed data, nothing ingested; the working directory, in commands too."""
    folder = tmp_path / "my project"
    return land_all(enter(folder, write_project(folder), tiny_server.url, monkeypatch))


@pytest.fixture(scope="session")
def built_once(
    tmp_path_factory: pytest.TempPathFactory, tiny_server: EmbeddedServer
) -> TinyProject:
    """A project with everything built and pushed."""
    folder = tmp_path_factory.mktemp("built") / "my project"
    views = write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        return land_all(enter(folder, views, tiny_server.url, patch)).build()


@pytest.fixture
def built(
    built_once: TinyProject, tiny_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> TinyProject:
    """A project with everything built, shared by tests that only look; the working directory."""
    return enter(built_once.folder, built_once.views, tiny_server.url, monkeypatch)
