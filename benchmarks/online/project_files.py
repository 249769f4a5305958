"""The small project in which everything is measured, as files in a folder.

pushed                      one view of one entity type, for the push and the backfill
txn_7d, txn_30d, txn_90d    three views of another, for reading
all_types                   a column per case of `type_cases`
"""

import os
from pathlib import Path

from benchmarks.online import data

VIEWS = "bench_views"
TYPES = "all_types"
PYPROJECT = f"""\
[tool.lockstep]
views = "{VIEWS}"
root = "lake"
time_zone = "UTC"
"""
VIEW = '''\
"""Ten features of {entity}."""

from datetime import date, timedelta

import polars as pl

from lockstep import Entity, Feature, Features, Source, feature_view
{imported}
{declared}
ROWS = Source(
    "{view}_rows",
    {{
        "{key}": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
{columns}
    }},
    event_time="at",
    unique_by=["{key}"],
    start=date({day.year}, {day.month}, {day.day}),
)


class Promise(
    Features, entity=ENTITY, owner="team:bench", ttl=timedelta(days={ttl}), min_rows=0
):
    """Ten features."""

{features}


@feature_view(Promise, inputs=[ROWS.trailing(days=1)])
def {view}({view}_rows: pl.LazyFrame) -> pl.LazyFrame:
    return {view}_rows.select({chosen})
'''
OWN_ENTITY = """
ENTITY = Entity("{entity}", {{"{key}": pl.Int64}}, "Somebody.")
"""
TYPES_VIEW = '''\
"""A column per case."""

import polars as pl

from benchmarks.online.polars_types import TYPES
from lockstep import Entity, Feature, Features, Snapshot, feature_view

SAMPLE = Entity("sample", {{"sample_id": pl.Int64}}, "A row of cases.", buckets=2)
CASES = Snapshot("cases", {{"sample_id": pl.Int64, **TYPES}}, key="sample_id", valid_from="always")
PROMISE = type(
    "AllTypes",
    (Features,),
    {{
        "__doc__": "Every case.",
        **{{name: Feature(dtype, "A value.") for name, dtype in TYPES.items()}},
    }},
    entity=SAMPLE,
    owner="team:bench",
    ttl=None,
    min_rows=0,
)


@feature_view(PROMISE, inputs=[CASES.latest()])
def all_types(cases: pl.LazyFrame) -> pl.LazyFrame:
    return cases.select("sample_id", *TYPES)
'''


def write_project(folder: Path) -> None:
    """Write pyproject.toml and the views."""
    package = folder / VIEWS
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "__init__.py").touch()
    (package / f"{TYPES}.py").write_text(TYPES_VIEW.replace("{{", "{").replace("}}", "}"), "utf-8")
    for view in data.ENTITIES:
        (package / f"{view}.py").write_text(_view_file(view), encoding="utf-8")


def _view_file(view: str) -> str:
    entity, key = data.ENTITIES[view], data.key_of(view)
    first = next(name for name, of in data.ENTITIES.items() if of == entity)
    declared = OWN_ENTITY.format(entity=entity, key=key)
    types = {name: f"pl.{dtype}" for name, dtype in data.FEATURES.items()}
    return VIEW.format(
        entity=entity,
        view=view,
        key=key,
        day=data.DAY,
        ttl=data.TTL_DAYS,
        imported="" if view == first else f"from {VIEWS}.{first} import ENTITY\n",
        declared=declared if view == first else "",
        columns="\n".join(f'        "{name}": {dtype},' for name, dtype in types.items()),
        features="\n".join(
            f'    {name} = Feature({dtype}, "A number.")' for name, dtype in types.items()
        ),
        chosen=", ".join(f'"{name}"' for name in (key, *types)),
    )


def environment(url: str) -> dict[str, str]:
    """What a process needs to find the online store."""
    return {
        "LOCKSTEP_REDIS_URL": url,
        "LOCKSTEP_ENV": "bench",
        "TZ": "UTC",
        "HOME": os.environ.get("HOME", "/"),
    }
