"""The lake that every incident begins with: forty days of real transactions, three views, in order.

    transactions       40 days, 2026-09-06 to 2026-10-15
    demographics       the snapshot
    txn_7d             21 days
    shopping_hours     11 days: so many have a window of thirty days in these forty
    household_profile  11 days

It is built once and kept below `.lockstep/incident/`, under a name that changes with the code.
`next/` beside it holds what lands in the nights after, from the files of 2026-10-16 on, a Friday.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import polars as pl

from demo.replay import land
from lockstep.catalog import Catalog, discover
from lockstep.errors import StoreError
from lockstep.ingest import ingest, ingest_snapshot
from lockstep.materialize import materialize
from lockstep.outcome import DayOutcome
from lockstep.project import Project, find_project
from lockstep.store import Store
from lockstep.time import as_of, days_between

ROOT: Final = Path(__file__).parents[2]
FIRST, LAST = date(2026, 9, 6), date(2026, 10, 15)
NEXT: Final = date(2026, 10, 16)
"""The first day that goes wrong. A Friday."""
NIGHTS: Final = 6
"""So many nights may one incident take."""
KEPT_DAYS: Final = {"txn_7d": 21, "shopping_hours": 11, "household_profile": 11}
VIEWS: Final = tuple(KEPT_DAYS)
LANDS_AFTER: Final = timedelta(minutes=30)
"""How long after a day its files land, as `landing_after_midnight` has it."""


_RUN: Final = "the nights before"


class Clock:
    """The present instant, which only the story moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return it."""
        return self.now


class NightStore(Store):
    """A store that knows a part of the project's declarations only."""

    def __init__(self, project: Project, clock: Clock, chosen: Catalog) -> None:
        super().__init__(project, clock)
        self._chosen = chosen

    @cached_property
    def catalog(self) -> Catalog:
        """What was chosen."""
        return self._chosen

    def redeclare(self, chosen: Catalog) -> None:
        """Declare something else from now on, as after a release."""
        self._chosen = chosen
        self.__dict__.pop("catalog", None)


@cache
def the_project() -> Project:
    """The real project."""
    return find_project(ROOT)


def chosen_catalog(project: Project, names: Sequence[str] = VIEWS) -> Catalog:
    """Return the named views of a project and what they read."""
    whole = discover(project)
    views = {name: whole.view(name) for name in names}
    read = {item.of.name for view in views.values() for item in view.inputs}
    return replace(
        whole,
        sources={name: of for name, of in whole.sources.items() if name in read},
        snapshots={name: of for name, of in whole.snapshots.items() if name in read},
        views=views,
        feature_sets={},
    )


def project_in(folder: Path, url: str | None, namespace: str) -> Project:
    """Return the project with its lake in another folder, and another online store."""
    real = the_project()
    return replace(
        real, folder=folder, root=str(folder / "lake"), redis_url=url, namespace=namespace
    )


def landed_at(day: date) -> datetime:
    """Return when the files of a day land."""
    return as_of(day, the_project().zone) + LANDS_AFTER


def base(tell: Callable[[str], None], home: Path | None = None, *, every: int = 1) -> Path:
    """Return the folder of the base, built now if there is none for the present code.

    Args:
        tell: Called with a sentence when it has to be built.
        home: Where it is kept; below the project's `.lockstep` if not given.
        every: Only every so manieth household is in it.
    """
    home = home or the_project().state / "incident"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / f"base-{every}-{_code()}"
    if not folder.is_dir():
        tell(f"Build what every incident begins with: {FIRST} to {LAST}, {len(VIEWS)} views.")
        made = Path(mkdtemp(prefix="building-", dir=home))
        _build(made, every)
        for older in home.glob("base-*"):
            if older != folder:
                shutil.rmtree(older)
        if folder.is_dir():  # another process was faster
            shutil.rmtree(made)
        else:
            made.rename(folder)
    return folder


def _build(folder: Path, every: int) -> None:
    clock = Clock(landed_at(LAST))
    project = project_in(folder, None, "building")
    store = NightStore(project, clock, chosen_catalog(the_project()))
    _land(folder / "lake" / "landing", FIRST, LAST, store.catalog, every)
    _land(folder / "next", NEXT, NEXT + timedelta(days=NIGHTS - 1), store.catalog, every)
    for snapshot in store.catalog.snapshots.values():
        ingest_snapshot(store.lake, snapshot, now=clock, run_id=_RUN)
    days = days_between(FIRST, LAST)
    for source in store.catalog.sources.values():
        _require(list(ingest(store.lake, source, days, now=clock, run_id=_RUN)))
    for view in store.views.values():
        reader, last = store.reader(), days[-KEPT_DAYS[view.name] :]
        done = materialize(store.lake, view, last, reader, now=clock, run_id=_RUN)
        _require(list(done))


def _land(to: Path, first: date, last: date, chosen: Catalog, every: int) -> None:
    """Land the chosen sources of the days."""
    land(to, first, last)
    for folder in to.iterdir():
        if folder.name not in {*chosen.sources, *chosen.snapshots}:
            shutil.rmtree(folder)
    for file in to.rglob("*.parquet") if every > 1 else ():
        rows = pl.read_parquet(file)
        rows.filter(pl.col("household_id") % every == 0).write_parquet(file)


def _require(outcomes: Sequence[DayOutcome]) -> None:
    for outcome in outcomes:
        if not outcome.certified:
            raise StoreError(
                f"The base of the incidents could not be built: {outcome.message}",
                fix="Correct the view or the check; every incident begins with clean days.",
                effect="Nothing was kept.",
            )


def _code() -> str:
    """Return a hash of everything that the base is made by."""
    folders = ("lockstep", "feature_assets", "demo")
    files = [file for name in folders for file in sorted((ROOT / name).rglob("*.py"))]
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
