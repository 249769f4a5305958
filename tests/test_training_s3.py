"""Kept sets on S3: the same as in a local folder, whole or not at all."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep.errors import InputError
from lockstep.garbage import collect_garbage
from lockstep.stores.files import Place
from lockstep.training.kept_sets import KeptSets
from lockstep.training.memory import budget
from lockstep.training.plan import Plan, finish, join_part
from lockstep.training.reproduce import rebuild_set
from lockstep.training.request import FOLDER
from lockstep.training.training_set import profile_from
from schedules.training_requests import look
from tests.s3_server import BUCKET, S3, s3_server
from tests.s3_world import set_up
from tests.scenario import World, catalog_of
from tests.training_world import (
    FUTURE,
    HISTORY,
    NOW,
    VALUES,
    commit,
    full_spine,
    training_world,
    usage,
    visits,
)

pytestmark = pytest.mark.filterwarnings(FUTURE)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> World:
    root = f"s3://{BUCKET}/sets/lake"
    world = set_up(tmp_path_factory.mktemp("s3"), LOCKSTEP_ROOT=root, **s3.options)
    world.store.__dict__["catalog"] = catalog_of([usage, visits])
    for item in HISTORY:
        commit(world, item)
    world.clock.now = NOW
    return world


def names(made: World) -> list[str]:
    return [info.path for info in made.store.lake.place.list("training_sets")]


def test_a_set_that_is_kept_on_s3_is_that_of_a_local_folder(made: World, tmp_path: Path) -> None:
    spine, local = full_spine(), training_world(tmp_path)
    expected = local.store.training_set(spine, VALUES, timestamp="at")

    kept = made.store.training_set(spine, VALUES, timestamp="at", name="whole")
    plan = made.store.plan_training_set(spine, VALUES, timestamp="at", name="parts", parts=3)
    for part in range(3):
        join_part(made.store, Plan.from_json(plan.to_json()), part)
    split = finish(made.store, plan)

    sets = KeptSets(made.store.lake)
    assert ["parts", "whole"] == sets.names()
    for found in (kept, split):
        assert expected.manifest.output == found.manifest.output
        assert expected.frame.equals(found.frame)
        done = rebuild_set(made.store, sets.manifest(found.name or ""), memory=budget(None))
        assert done.data_checked
    assert not [name for name in names(made) if ".work-" in name]
    assert 8 == len(names(made))

    again = made.store.training_set(spine, VALUES, timestamp="at", name="whole")
    assert again.manifest == kept.manifest
    with pytest.raises(InputError, match="another spine"):
        made.store.training_set(spine.head(2), VALUES, timestamp="at", name="whole")
    to = tmp_path / "x.parquet"
    written = made.store.training_set(spine, VALUES, timestamp="at", to=to)
    assert pl.read_parquet(to).equals(written.frame)
    for name in sets.names():
        sets.remove(name)
    assert [] == names(made)


def test_of_two_builds_of_a_name_the_winner_keeps_its_profile_and_gc_removes_the_others_files(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spine, store, place = full_spine(), made.store, made.store.lake.place
    kind = type(place)
    upload, winners = kind.upload, []

    def outrun(self: Place, name: str, file: Path) -> None:
        if name.startswith("data-") and not winners:
            winners.append("its own upload comes here again")
            winners.append(store.training_set(spine, VALUES, timestamp="at", name="race"))
        upload(self, name, file)

    monkeypatch.setattr(kind, "upload", outrun)
    with pytest.raises(InputError, match="another spine"):
        store.training_set(spine.head(7), VALUES, timestamp="at", name="race")

    sets = KeptSets(store.lake)
    manifest, won = sets.manifest("race"), winners[1]
    assert manifest.rows == won.rows == spine.height
    amount = profile_from(sets.profile(manifest))["usage:amount"]
    assert won.profile["usage:amount"] == amount
    assert 7 == len(place.list("training_sets/race"))

    now = datetime.now(UTC)
    collect_garbage(place, now=now + timedelta(hours=23), keep=timedelta(0))
    assert 7 == len(place.list("training_sets/race"))
    place.write("training_sets/race/notes.txt", b"not ours")
    place.write(f"training_sets/early/spine-{'0' * 16}.parquet", b"of a build that ended")
    place.write(f"training_sets/void/data-{'0' * 16}.parquet", b"what an erasure left")
    place.write("training_sets/void/voided.json", b"{}")
    found = {
        item.place: len(item.files)
        for item in collect_garbage(place, now=now + timedelta(hours=25), keep=timedelta(0))
    }

    assert {"training_sets/early": 1, "training_sets/race": 3} == found
    assert {*manifest.files.values(), manifest.profile_file, "manifest.json", "notes.txt"} == {
        info.path.rpartition("/")[2] for info in place.list("training_sets/race")
    }
    assert rebuild_set(store, manifest, memory=budget(None)).data_checked
    assert 2 == len(place.list("training_sets/void"))
    place.write("training_sets/race/profile.json", b"as an earlier release wrote it")
    place.delete(f"training_sets/race/{manifest.profile_file}")
    assert b"as an earlier release wrote it" == sets.profile(manifest)
    place.delete_all("training_sets")


def test_a_spine_may_be_on_s3(made: World) -> None:
    spine = full_spine().head(50)
    place = made.store.lake.place
    spine.write_parquet(place.path("spine.parquet"), storage_options=place.polars_options)

    found = made.store.training_set(place.path("spine.parquet"), VALUES, timestamp="at").frame

    assert found.select(spine.columns).equals(spine)
    place.write("spine.csv", b'user_id,at,label\n1,2026-03-08,"a,\nb"\n2,2026-03-08,\n3,2026-03-08')
    with pytest.raises(InputError, match="row 3 has fewer fields than the header"):
        made.store.training_set(place.path("spine.csv"), ["usage:amount"], timestamp="at")


def test_a_request_waits_for_its_spine_on_s3_and_sees_that_it_was_rewritten(made: World) -> None:
    folder, place = made.store.project.folder / FOLDER, made.store.lake.place
    folder.mkdir()
    (folder / "late.yaml").write_text("spine: lake:spines/late.csv\nfeatures: [usage:amount]\n")
    (folder / "table.yaml").write_text("spine: lake:spines/table\nfeatures: [usage:amount]\n")

    none = look(made.store)
    place.write("spines/late.csv", b"user_id,event_timestamp\n")
    place.write("spines/other.csv", b"x\n")
    first = look(made.store)
    place.write("spines/other.csv", b"xy\n")
    place.write("spines/table/_delta_log/00000000000000000000.json", b"{}")
    same = look(made.store)
    place.write("spines/late.csv", b"user_id,event_timestamp\n1,2026-03-08T00:00:00Z\n")
    other = look(made.store)

    assert ({}, {"late", "table"}) == (none.asked, none.waiting.keys())
    assert ({"late"}, {"table"}) == (first.asked.keys(), first.waiting.keys())
    assert {} == same.waiting
    assert first.asked["late"] == same.asked["late"] != other.asked["late"]
    place.delete_all("spines")
