"""Requested training sets in Dagster: what starts them, what is shown, and how they fail."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from definitions import build_definitions
from feature_assets.training_sets.asset import KEY, PARTITION_SET
from lockstep.errors import LockstepError
from lockstep.training.kept_sets import KeptSets
from lockstep.training.request import FOLDER, requested
from lockstep.training.requested_sets import build_request
from tests.dagster_world import D1, D2, D3, D4, D6, DagsterWorld, dagster_world, failures, usual
from tests.scenario import START, ZONE, event, instant

# Dagster calls what it deprecates, where a resource inside a resource has settings.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

SPEND = "spend_3d:amount_3d"
FEATURES = [SPEND, "profile:country"]
REQUEST = f"spine: spine.csv\nfeatures: [{', '.join(FEATURES)}]\n"
SPINE = "label,user_id,event_timestamp\n" + "".join(
    f"{n},{user},{instant(day, 9):%Y-%m-%dT%H:%M:%SZ}\n"
    for n, (user, day) in enumerate([(2, D3), (1, D2), (1, D4), (9, D3), (1, D2)])
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[DagsterWorld]:
    """A built world for tests that ask under names of their own and damage nothing."""
    with built(tmp_path_factory.mktemp("shared"), redis_url) as opened:
        yield opened


@pytest.fixture
def made(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    """A built world for one test."""
    with built(tmp_path, redis_url) as opened:
        yield opened


@pytest.fixture
def bare(tmp_path: Path, redis_url: str) -> Iterator[DagsterWorld]:
    """A world in which nothing was built: the sensor reads request files only."""
    with dagster_world(tmp_path, redis_url) as opened:
        folder_of(opened).mkdir()
        (folder_of(opened).parent / "spine.csv").write_text(SPINE)
        yield opened


@contextmanager
def built(folder: Path, redis_url: str) -> Iterator[DagsterWorld]:
    with dagster_world(folder, redis_url) as opened:
        for day in (D1, D2, D3):
            opened.land(day, *usual(day))
        opened.world.ingest_people()
        opened.world.ingest(START, D3)
        opened.world.build(opened.views.spend_3d, D1, D3)
        opened.world.build(opened.views.profile, D1, D3)
        folder_of(opened).mkdir()
        (folder_of(opened).parent / "spine.csv").write_text(SPINE)
        yield opened


def folder_of(made: DagsterWorld) -> Path:
    return made.world.store.project.folder / FOLDER


def ask(made: DagsterWorld, text: str = REQUEST, name: str = "spending") -> None:
    (folder_of(made) / f"{name}.yaml").write_text(text)


def build(made: DagsterWorld, name: str = "spending") -> dg.ExecuteInProcessResult:
    made.instance.add_dynamic_partitions(PARTITION_SET, [name])
    return made.run(name, job="build_training_set")


def tick(made: DagsterWorld, cursor: str | None = None) -> dg.SensorResult:
    """Let the sensor look once, and store the partitions that it adds as the daemon does."""
    sensor = made.definitions.resolve_sensor_def("training_requests")
    resources = {"lockstep": made.definitions.resources["lockstep"]}
    with dg.build_sensor_context(made.instance, cursor=cursor, resources=resources) as context:
        result = sensor(context)
    for request in result.dynamic_partitions_requests or []:
        made.instance.add_dynamic_partitions(PARTITION_SET, list(request.partition_keys))
    return result


def keys_of(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def shown(made: DagsterWorld, name: str) -> dict[str, Any]:
    return made.materialized("training_sets")[name]


def left_over(made: DagsterWorld) -> set[str]:
    """Return the folders of the lake's sets, those of builds that were not finished too."""
    folder = Path(made.world.store.project.root) / "training_sets"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


# What is built, and what its page shows.


@pytest.fixture(scope="module")
def page(shared: DagsterWorld) -> dict[str, Any]:
    """The metadata of a partition that was built."""
    ask(shared, f"{REQUEST}owner: team:growth\ndescription: Who spends.\n", "spending")
    assert build(shared, "spending").success
    return shown(shared, "spending")


def test_a_request_becomes_a_set_that_equals_the_one_of_python(
    shared: DagsterWorld, page: dict[str, Any]
) -> None:
    store = shared.world.store
    expected = store.training_set(folder_of(shared).parent / "spine.csv", FEATURES)

    kept = KeptSets(store.lake).manifest("spending")

    assert expected.manifest.output.hash == kept.output.hash
    assert [2.0, 1.0, 3.0, None, 1.0] == expected.frame[SPEND].to_list()


def test_the_data_version_of_a_partition_is_the_hash_of_its_set(
    shared: DagsterWorld, page: dict[str, Any]
) -> None:
    records = shared.instance.fetch_materializations(KEY, limit=100).records
    made = [record.asset_materialization for record in records]
    (tags,) = [of.tags for of in made if of and of.partition == "spending"]

    kept = KeptSets(shared.world.store.lake).manifest("spending")
    assert kept.output.hash == (tags or {})["dagster/data_version"]


def test_the_page_of_a_set_shows_what_it_is_and_what_it_read(
    shared: DagsterWorld, page: dict[str, Any]
) -> None:
    kept = KeptSets(shared.world.store.lake).manifest("spending")
    read = {row.data["view"]: row.data for row in page["views"].records}

    assert {"rows": 5, "features": 2, "mode": "event"}.items() <= page.items()
    assert {"owner": "team:growth", "description": "Who spends."}.items() <= page.items()
    assert page["path"].endswith("training_sets/spending/data.parquet")
    assert dg.AssetKey("spend_3d") == page["read:spend_3d"]
    assert dg.AssetKey("profile") == page["read:profile"]
    assert "read:pace" not in page
    assert kept.output.hash == page["manifest"]["output"]["hash"]
    assert f"{D1}..{D3}" == page["manifest"]["views"]["spend_3d"]["days"]
    assert kept.views["spend_3d"].version == read["spend_3d"]["delta_version"]


def test_the_page_of_a_set_shows_its_profile_in_numbers_and_pictures(page: dict[str, Any]) -> None:
    profile = {row.data["feature"]: row.data for row in page["profile"].records}

    shares = [profile[SPEND][share] for share in ("null", "no row", "expired")]
    assert ["20.0%", "20.0%", "0.0%"] == shares
    assert ("9\N{NO-BREAK SPACE}h", "1") == (profile[SPEND]["age"], profile[SPEND]["values"][0])
    assert page[SPEND].startswith("![histogram](data:image/svg+xml;base64,")
    assert "None." == page["warnings"]


def test_nothing_that_identifies_people_is_shown(
    shared: DagsterWorld, page: dict[str, Any]
) -> None:
    path = KeptSets(shared.world.store.lake).path(
        KeptSets(shared.world.store.lake).manifest("spending"), "data"
    )

    assert "NZ" in pl.read_parquet(str(path))["profile:country"].to_list()
    assert "profile:country" not in page
    assert "NZ" not in str(page)


def test_what_a_reader_should_know_stands_on_the_page(shared: DagsterWorld) -> None:
    strangers = re.sub(r",\d,", ",77,", SPINE)
    (folder_of(shared).parent / "strangers.csv").write_text(strangers)
    ask(shared, f"spine: strangers.csv\nfeatures: [{SPEND}, pace:per_event]\n", "strangers")

    assert build(shared, "strangers").success

    told = shown(shared, "strangers")["warnings"]
    assert f"- {SPEND} is null in 100.0% of the rows" in told
    assert "- pace was never materialized" in told


def test_a_leakage_report_is_shown_if_it_is_asked_for(made: DagsterWorld) -> None:
    made.land(D2, event("late", 1, D2, 50.0), file="late")
    made.world.clock.now = instant(D6, 12)
    made.world.ingest(D2, D2)
    made.world.build(made.views.spend_3d, D1, D3)
    ask(made, f"{REQUEST}leakage: true\n")

    assert build(made).success

    records = shown(made, "spending")["leakage"].records
    leaks = {row.data["feature"]: row.data for row in records}
    assert [SPEND] == list(leaks)
    assert "50" == leaks[SPEND]["max diff."]


# How a request fails: in the very words of Python and of the command line, and leaving no set.

BROKEN = {
    "an unknown key": REQUEST + "mod: known\n",
    "an unknown feature": "spine: spine.csv\nfeatures: [spend_3d:amount]\n",
    "an unknown feature set": "spine: spine.csv\nfeature_set: spending_v1\n",
    "no such spine": f"spine: absent.csv\nfeatures: [{SPEND}]\n",
    "a spine outside": f"spine: /etc/passwd\nfeatures: [{SPEND}]\n",
    "another timestamp": f"{REQUEST}timestamp: at\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_request_that_fails_says_why_in_the_same_words_everywhere(
    shared: DagsterWorld, what: str
) -> None:
    store, name, before = shared.world.store, what.replace(" ", "_"), left_over(shared)
    ask(shared, BROKEN[what], name)
    with pytest.raises(LockstepError) as told:
        build_request(store, requested(store.project, name))

    run = build(shared, name)

    assert not run.success
    assert {"training_sets.plan": str(told.value)} == failures(run)
    assert name not in shared.materialized("training_sets")
    assert before == left_over(shared)


def test_a_partition_without_a_file_fails_with_the_nearest_name(shared: DagsterWorld) -> None:
    ask(shared, REQUEST, "baskets")

    run = build(shared, "basket")

    (told,) = failures(run).values()
    assert told.startswith("There is no training request named 'basket'.")
    assert "Did you mean 'baskets'?" in told


def test_a_build_whose_part_fails_leaves_no_set(made: DagsterWorld) -> None:
    ask(made)
    lake = Path(made.world.store.project.root)
    for file in (lake / "offline" / "spend_3d").rglob("day=*/*.parquet"):
        file.unlink()

    run = build(made)

    assert ["training_sets.join[0]"] == list(failures(run))
    assert "spend_3d" in failures(run)["training_sets.join[0]"]
    assert [] == KeptSets(made.world.store.lake).names()
    assert {} == made.materialized("training_sets")


# What a request that is built again gives.


def test_a_set_that_comes_out_as_it_was_is_kept_once(shared: DagsterWorld) -> None:
    ask(shared, REQUEST, "again")

    assert build(shared, "again").success
    assert build(shared, "again").success

    assert {"again"} == {name for name in left_over(shared) if name.startswith(("again", "."))}


def test_a_request_that_is_changed_gives_a_set_beside_the_old_one(shared: DagsterWorld) -> None:
    ask(shared, REQUEST, "changing")
    assert build(shared, "changing").success
    ask(shared, f"{REQUEST}mode: known\n", "changing")

    assert build(shared, "changing").success

    sets = KeptSets(shared.world.store.lake)
    modes = [sets.manifest(name).mode for name in ("changing", "changing__2")]
    assert ["event", "known"] == modes
    assert shown(shared, "changing")["path"].endswith("training_sets/changing__2/data.parquet")


# What starts a request: the sensor.


def test_the_sensor_is_on_and_adds_a_partition_and_a_run_per_request(bare: DagsterWorld) -> None:
    sensor = bare.definitions.resolve_sensor_def("training_requests")
    ask(bare, f"{REQUEST}owner: team:growth\n", "one")
    ask(bare, REQUEST, "two")

    result = tick(bare)

    assert dg.DefaultSensorStatus.RUNNING == sensor.default_status
    assert ["one", "two"] == keys_of(result)
    assert {"one", "two"} == set(bare.instance.get_dynamic_partitions(PARTITION_SET))
    first, second = result.run_requests or []
    assert "training_requests/one.yaml" == first.tags["lockstep/training_request"]
    assert "team:growth" == first.tags["lockstep/owner"]
    assert "lockstep/owner" not in second.tags


def test_a_request_is_asked_for_once_and_again_when_it_changes(bare: DagsterWorld) -> None:
    ask(bare)
    first = tick(bare)
    same = tick(bare, first.cursor)
    ask(bare, f"{REQUEST}mode: known\n")
    other = tick(bare, same.cursor)
    ask(bare)
    back = tick(bare, other.cursor)

    asked = [request for seen in (first, other, back) for request in seen.run_requests or []]
    assert [[], ["spending"], ["spending"]] == list(map(keys_of, (same, other, back)))
    assert 3 == len({request.run_key for request in asked})
    assert "Every request was seen" in str(same.skip_reason)


def test_a_lost_cursor_asks_for_nothing_twice(bare: DagsterWorld) -> None:
    ask(bare)

    keys = [(tick(bare).run_requests or [])[0].run_key for _ in range(2)]

    assert keys[0] == keys[1]


def test_a_request_waits_for_its_spine(bare: DagsterWorld) -> None:
    spine = folder_of(bare).parent / "spine.csv"
    ask(bare)
    spine.unlink()

    waiting = tick(bare)
    spine.write_text(SPINE)
    there = tick(bare, waiting.cursor)

    assert [[], ["spending"]] == [keys_of(waiting), keys_of(there)]
    assert f"spending.yaml waits for its spine {spine}." in str(waiting.skip_reason)
    assert ["spending"] == bare.instance.get_dynamic_partitions(PARTITION_SET)


def test_a_spine_that_is_rewritten_in_place_is_built_again(bare: DagsterWorld) -> None:
    spine = folder_of(bare).parent / "spine.csv"
    ask(bare)
    first = tick(bare)
    spine.write_text(f"{SPINE}9,9,2026-03-01T00:00:00Z\n")

    other = tick(bare, first.cursor)

    assert [["spending"], ["spending"], []] == list(
        map(keys_of, (first, other, tick(bare, other.cursor)))
    )


def test_a_delta_table_that_got_rows_is_built_again(bare: DagsterWorld) -> None:
    table = folder_of(bare).parent / "labels"
    rows = pl.DataFrame({"user_id": [1]})
    ask(bare, REQUEST.replace("spine.csv", "labels"))

    waiting = tick(bare)
    rows.write_delta(str(table))
    there = tick(bare, waiting.cursor)
    rows.write_delta(str(table), mode="append")
    more = tick(bare, there.cursor)

    assert [[], ["spending"], ["spending"]] == list(map(keys_of, (waiting, there, more)))


def test_a_file_that_is_gone_removes_nothing(bare: DagsterWorld) -> None:
    ask(bare)
    first = tick(bare)
    (folder_of(bare) / "spending.yaml").unlink()

    gone = tick(bare, first.cursor)
    ask(bare)
    back = tick(bare, gone.cursor)

    assert ["spending"] == bare.instance.get_dynamic_partitions(PARTITION_SET)
    assert [[], []] == [keys_of(gone), keys_of(back)]


def test_a_broken_file_blocks_no_other_and_says_what_is_wrong(bare: DagsterWorld) -> None:
    ask(bare, "spine: [", "broken")
    ask(bare, REQUEST, "Wrong-Name")
    ask(bare)

    first = tick(bare)
    again = tick(bare, first.cursor)

    assert ["broken", "spending"] == keys_of(first)
    assert [] == keys_of(again)
    assert "training_requests/broken.yaml is no request." in str(again.skip_reason)
    assert "'Wrong-Name.yaml' can't name a training request." in str(again.skip_reason)
    failed = build(bare, "broken")
    assert "training_requests/broken.yaml is no request." in str(failures(failed))


def test_without_requests_the_sensor_says_so(bare: DagsterWorld) -> None:
    assert "There is no request in training_requests/." in str(tick(bare).skip_reason)


# The graph.


def test_the_lineage_of_training_sets_is_every_view(bare: DagsterWorld) -> None:
    graph = bare.definitions.resolve_asset_graph()

    assert {"spend_3d", "profile", "pace"} == {key.path[-1] for key in graph.get(KEY).parent_keys}
    assert KEY not in bare.definitions.resolve_job_def("daily").asset_layer.executable_asset_keys


def test_a_project_without_views_loads(bare: DagsterWorld) -> None:
    empty = replace(bare.world.store.catalog, views={})

    made = build_definitions(empty, ZONE.key, bare.definitions.resources["lockstep"])

    assert KEY in made.resolve_asset_graph().get_all_asset_keys()
