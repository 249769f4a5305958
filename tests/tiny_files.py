"""The files of `tests.tiny_project`: what its user would have written."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import polars as pl

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
    if name == os.environ.get("CHILD_STOPS_AFTER"):
        break
    if name in store.views:
        report("push", name=name, days=len(days), rows=3)
report("something newer", name="orders", days="many")
report("done", success=not bad, run_id="r1")
sys.exit(1 if bad else 0)
'''


def write_files(folder: Path, customers: Sequence[str]) -> str:
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
    emails = [f"{at}@example.com" for at in range(len(customers))]
    pl.DataFrame({"customer": customers, "email": emails}).write_parquet(
        landing / "contacts" / "contacts.parquet"
    )
    return views
