"""A project of its own in a folder: two sources' worth of shop data, three views, real stores.

    orders     customer (text), order_id, amount, placed_at (naive UTC); 2025-03-03 to 2025-03-11,
               the clocks jump forward on the 9th
    contacts   customer, email: a snapshot without history
    spend_2d   what a customer spent in two days; closed with empty values; ttl 3 days
    orders_1d  a customer's orders of the day; for ever
    contact    PII; for ever

`NOW` is the afternoon of 2025-03-12 in New York; the last full day is the 11th.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

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
from tests.tiny_files import write_files

NOW = datetime(2025, 3, 12, 18, tzinfo=UTC)
FIRST, LAST = date(2025, 3, 3), date(2025, 3, 11)
DAYS = days_between(FIRST, LAST)
VIEW_DAYS = DAYS[1:]
HOSTILE = 'Zoë\n"[red]} \x1b[31m'
CUSTOMERS = ("ada", "bob", HOSTILE)


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
    return land_all(enter(folder, write_files(folder, CUSTOMERS), tiny_server.url, monkeypatch))


@pytest.fixture(scope="session")
def built_once(
    tmp_path_factory: pytest.TempPathFactory, tiny_server: EmbeddedServer
) -> TinyProject:
    """A project with everything built and pushed."""
    folder = tmp_path_factory.mktemp("built") / "my project"
    views = write_files(folder, CUSTOMERS)
    with pytest.MonkeyPatch.context() as patch:
        return land_all(enter(folder, views, tiny_server.url, patch)).build()


def files_of(folder: Path) -> dict[Path, int]:
    """Return file → size, without what Python compiled."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_size for path in files if path.parent.name != "__pycache__"}


@pytest.fixture
def built(
    built_once: TinyProject, tiny_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TinyProject]:
    """A project with everything built, shared by tests that only look; the working directory."""
    before = files_of(built_once.folder)
    yield enter(built_once.folder, built_once.views, tiny_server.url, monkeypatch)
    assert before == files_of(built_once.folder), "a test that writes needs `own`"


@pytest.fixture
def own(
    built_once: TinyProject,
    tiny_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> TinyProject:
    """A copy of the built project, for a test that writes to the lake; the working directory.

    The server is not copied: what a test changes there, it puts back.
    """
    folder = tmp_path_factory.mktemp("own") / "my project"
    shutil.copytree(built_once.folder, folder)
    return enter(folder, built_once.views, tiny_server.url, monkeypatch)
