"""A build that is killed leaves no set, and a rerun alone makes the very set it would have made."""

import multiprocessing
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep.crash import TRAINING_POINTS
from lockstep.garbage import collect_garbage
from lockstep.training.kept_sets import KeptSets
from lockstep.training.manifest import beside, read_manifest
from lockstep.training.plan import Plan, finish, join_part
from lockstep.training.reproduce import rebuild_set
from tests.scenario import World, catalog_of, world
from tests.training_world import (
    FUTURE,
    NOW,
    VALUES,
    full_spine,
    training_world,
    usage,
    visits,
)

pytestmark = pytest.mark.filterwarnings(FUTURE)

# Polars has threads, which a fork would not have.
FRESH = multiprocessing.get_context("spawn")
# How the set is built, a point, and the how-manieth time it is reached.
KILLS = [
    ("name", "set_planned", 1),
    ("name", "set_written", 1),
    ("name", "set_kept", 1),
    ("name", "set_beside", 1),
    ("parts", "set_planned", 1),
    ("parts", "set_joined", 2),
    ("parts", "set_written", 1),
    ("parts", "set_kept", 1),
    ("parts", "set_beside", 1),
    ("file", "set_planned", 1),
    ("file", "set_written", 1),
    ("file", "set_kept", 1),
    ("file", "set_exported", 1),
    ("file", "set_beside", 1),
    ("both", "set_written", 1),
    ("both", "set_kept", 1),
    ("both", "set_exported", 1),
    ("both", "set_beside", 1),
]
KEPT = ("set_kept", "set_exported", "set_beside")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crashes")
    training_world(folder)
    return folder


def opened(folder: Path) -> World:
    made = world(folder)
    made.store.__dict__["catalog"] = catalog_of([usage, visits])
    made.clock.now = NOW
    return made


def build(folder: Path, how: str) -> None:
    store = opened(folder).store
    if how in {"file", "both"}:
        name = "one" if how == "both" else None
        to = folder / "set.parquet"
        store.training_set(full_spine(), VALUES, timestamp="at", name=name, to=to)
    elif how == "name":
        store.training_set(full_spine(), VALUES, timestamp="at", name="one")
    else:
        plan = store.plan_training_set(full_spine(), VALUES, timestamp="at", name="one", parts=3)
        for part in range(3):
            join_part(store, plan, part)
        finish(store, plan)


def killed(folder: str, how: str, crash: str) -> None:
    os.environ["LOCKSTEP_TESTING"] = "1"
    os.environ["LOCKSTEP_CRASH"] = crash
    build(Path(folder), how)


def test_every_crash_point_is_in_the_story() -> None:
    assert set(TRAINING_POINTS) == {point for _, point, _ in KILLS}


@pytest.mark.parametrize(("how", "point", "nth"), KILLS, ids=[f"{h}-{p}" for h, p, _ in KILLS])
def test_an_interrupted_build_leaves_no_set(
    prepared: Path, tmp_path: Path, how: str, point: str, nth: int
) -> None:
    shutil.copytree(prepared / "lake", tmp_path / "lake")
    file = tmp_path / "set.parquet"
    run = FRESH.Process(target=killed, args=(str(tmp_path), how, f"{point}:{nth}"))
    run.start()
    run.join(60)
    assert -signal.SIGKILL == run.exitcode

    made = opened(tmp_path)
    sets = KeptSets(made.store.lake)
    assert (point in KEPT) == bool(sets.names())
    to_file = how in {"file", "both"}
    assert file.exists() == (to_file and point in {"set_exported", "set_beside"})
    assert beside(file).exists() == (to_file and point == "set_beside")
    build(tmp_path, how)
    (name,) = sets.names()
    expected = made.store.training_set(full_spine(), VALUES, timestamp="at")
    assert expected.manifest.output == sets.manifest(name).output
    kept = file if how == "file" else Path(sets.path(sets.manifest(name), "data") or "")
    assert expected.frame.equals(pl.read_parquet(kept))
    if to_file:
        assert expected.frame.equals(pl.read_parquet(file))
        assert read_manifest(file) == sets.manifest(name)
    recorded = Path(made.store.lake.place.path("training_profiles")).rglob("*.parquet")
    rows = pl.concat([pl.read_parquet(path) for path in recorded])
    assert {"amount", "kind", "count"} == set(rows["feature"])

    collect_garbage(
        made.store.lake.place,
        now=datetime.now(UTC) + timedelta(days=30),
        keep=timedelta(days=7),
    )
    there = Path(made.store.lake.place.path("training_sets"))
    assert [name] == [path.name for path in there.iterdir() if any(path.iterdir())]


@pytest.mark.parametrize("point", KEPT)
def test_finishing_a_plan_again_puts_the_file_in_place(
    prepared: Path, tmp_path: Path, point: str
) -> None:
    shutil.copytree(prepared / "lake", tmp_path / "lake")
    file = tmp_path / "set.parquet"
    store = opened(tmp_path).store
    plan = store.plan_training_set(
        full_spine(), VALUES, timestamp="at", name="one", to=file, parts=2
    )
    for part in range(2):
        join_part(store, plan, part)
    run = FRESH.Process(target=killed_finish, args=(str(tmp_path), plan.to_json(), point))
    run.start()
    run.join(60)
    assert -signal.SIGKILL == run.exitcode

    found = finish(opened(tmp_path).store, plan)

    assert found.frame.equals(pl.read_parquet(file))
    assert found.manifest == read_manifest(file)


def killed_finish(folder: str, plan: dict[str, Any], crash: str) -> None:
    os.environ["LOCKSTEP_TESTING"] = "1"
    os.environ["LOCKSTEP_CRASH"] = crash
    finish(opened(Path(folder)).store, Plan.from_json(plan))


def test_a_rebuild_that_is_killed_leaves_the_manifest_that_it_was_made_from(
    prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared / "lake", tmp_path / "lake")
    build(tmp_path, "file")
    file = tmp_path / "set.parquet"
    before = beside(file).read_bytes()
    file.unlink()
    run = FRESH.Process(target=killed_rebuild, args=(str(tmp_path), "set_exported"))
    run.start()
    run.join(60)
    assert -signal.SIGKILL == run.exitcode

    assert before == beside(file).read_bytes()
    rebuild_set(opened(tmp_path).store, read_manifest(file), out=file)
    assert before == beside(file).read_bytes()


def killed_rebuild(folder: str, crash: str) -> None:
    os.environ["LOCKSTEP_TESTING"] = "1"
    os.environ["LOCKSTEP_CRASH"] = crash
    file = Path(folder) / "set.parquet"
    rebuild_set(opened(Path(folder)).store, read_manifest(file), out=file)
