"""The scenario's project in a folder, with its root wherever the settings say."""

import io
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from lockstep.project import find_project
from lockstep.sources import Source
from lockstep.store import Store
from lockstep.stores.files import Place
from tests.scenario import EVENTS, PEOPLE, Clock, World, catalog_of, instant, make_views

PYPROJECT = '[tool.lockstep]\nviews = "views"\nroot = "lake"\ntime_zone = "America/New_York"\n'


def set_up(folder: Path, *, redis_url: str = "redis://127.0.0.1:1/0", **setting: str) -> World:
    """Open the scenario's project in a folder, with environment variables set while it opens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    environment = {"LOCKSTEP_REDIS_URL": redis_url, "LOCKSTEP_ENV": f"t{uuid4().hex}", **setting}
    clock, views = Clock(instant(date(2026, 3, 6), 3)), make_views()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        store = Store(find_project(folder), now=clock)
    store.__dict__["catalog"] = catalog_of(views.all)
    return World(store, clock, views)


def put(world: World, name: str, rows: Iterable[Mapping[str, Any]], file: str) -> None:
    """Land rows as one file, wherever the landing zone is."""
    of = EVENTS if name == "events" else PEOPLE
    types = of.file_types if isinstance(of, Source) else of.columns
    put_frame(world.store.lake.landing, f"{name}/{file}", pl.DataFrame(list(rows), schema=types))


def put_frame(place: Place, name: str, frame: pl.DataFrame) -> None:
    content = io.BytesIO()
    frame.write_parquet(content)
    place.write(name, content.getvalue())
