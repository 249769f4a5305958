"""The small project whose lake holds a workload's rows, as files in a folder."""

from pathlib import Path

from benchmarks.training import data
from benchmarks.training.shapes import Shape, ViewShape

PYPROJECT = """\
[tool.lockstep]
views = "{views}"
root = "lake"
time_zone = "UTC"
"""
ENTITY = f'''\
"""Whom everything describes."""

import polars as pl

from lockstep import Entity

CUSTOMER = Entity("customer", {{"{data.KEY}": pl.Int64}}, "Somebody.")
'''
VIEW = '''\
"""Features of a customer."""

from datetime import date, timedelta

import polars as pl

from {views}.entities import CUSTOMER
from lockstep import Feature, Features, Source, feature_view

ROWS = Source(
    "{view}_rows",
    {{
        "{key}": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
{columns}
    }},
    event_time="at",
    unique_by=["{key}"],
    start=date({first.year}, {first.month}, {first.day}),
)


class Promise(Features, entity=CUSTOMER, owner="team:bench", ttl={ttl}, min_rows=0):
    """A value per day."""

{features}


@feature_view(Promise, inputs=[ROWS.trailing(days=1)])
def {view}({view}_rows: pl.LazyFrame) -> pl.LazyFrame:
    return {view}_rows.select({chosen})
'''


def write_project(folder: Path, shape: Shape) -> None:
    """Write pyproject.toml and the views."""
    views = f"{shape.name}_views"  # one process may open the projects of several workloads
    package = folder / views
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(views=views), encoding="utf-8")
    (package / "__init__.py").touch()
    (package / "entities.py").write_text(ENTITY, encoding="utf-8")
    for view in shape.views:
        (package / f"{view.name}.py").write_text(_view_file(view, views), encoding="utf-8")


def _view_file(view: ViewShape, views: str) -> str:
    types = {name: f"pl.{dtype}" for name, dtype in data.features_of(view).items()}
    return VIEW.format(
        views=views,
        view=view.name,
        key=data.KEY,
        first=data.FIRST,
        ttl=None if view.ttl_days is None else f"timedelta(days={view.ttl_days})",
        columns="\n".join(f'        "{name}": {dtype},' for name, dtype in types.items()),
        features="\n".join(
            f'    {name} = Feature({dtype}, "A value.")' for name, dtype in types.items()
        ),
        chosen=", ".join(f'"{name}"' for name in (data.KEY, *types)),
    )
