"""What is kept of a training set, and what comes with it: sentences of docs/training-sets.md."""

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest

from lockstep.errors import ConfigError, InputError, LockstepWarning, StoreError, UnknownNameError
from lockstep.time import INSTANT, as_of
from lockstep.training.column_hash import BLOCK
from lockstep.training.kept_sets import KeptSets
from lockstep.training.manifest import Manifest, read_manifest
from lockstep.training.memory import available_bytes, budget, parse_bytes
from lockstep.training.parts import most_parts
from lockstep.training.plan import Plan, finish, join_part
from lockstep.training.profile import without_values
from tests.scenario import ZONE, World
from tests.source_tree import ROOT
from tests.training_world import (
    BIG,
    DAYS,
    FUTURE,
    HISTORY,
    NOW,
    TTL,
    VALUES,
    Told,
    commit,
    full_spine,
    spine_of,
    training_world,
    usage,
)

pytestmark = [pytest.mark.filterwarnings(FUTURE), pytest.mark.usefixtures("in_parts")]

SCHEMA = json.loads((ROOT / "docs" / "training-manifest.schema.json").read_text("utf-8"))
AT = as_of(DAYS[3], ZONE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return training_world(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def sets(made: World) -> KeptSets:
    found = KeptSets(made.store.lake)
    for name in found.names():
        found.remove(name)
    return found


def folder(made: World) -> Path:
    return Path(made.store.lake.place.path("training_sets"))


def left(made: World) -> list[str]:
    """Every file and folder of the kept sets."""
    top = folder(made)
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*"))


def many_rows(rows: int = 2 * BLOCK + 17) -> pl.DataFrame:
    """A spine of more than two blocks, in no order."""
    numbers = np.random.default_rng(7)
    ends = np.array([as_of(day, ZONE).timestamp() for day in DAYS]) * 1_000_000
    at = ends[numbers.integers(0, len(ends), rows)] + numbers.integers(-10, 10, rows) * 3.6e9
    return pl.DataFrame(
        {
            "user_id": numbers.choice([1, 2, 3, BIG, 99], rows),
            "shop": numbers.choice(["a", "b"], rows),
            "at": pl.Series(at.astype(np.int64)).cast(INSTANT),
            "label": numbers.normal(size=rows),
        }
    )


def test_the_result_depends_neither_on_the_parts_nor_on_who_joins_them(
    made: World, sets: KeptSets
) -> None:
    spine = many_rows()
    whole = made.store.training_set(spine, VALUES, timestamp="at", name="whole")
    bits = Path(whole.path or "").read_bytes()

    for parts in (1, 2, 7):
        plan = made.store.plan_training_set(
            spine, VALUES, timestamp="at", name=f"of_{parts}", parts=parts
        )
        said = json.dumps(plan.to_json())
        for part in reversed(range(parts)):
            join_part(made.restart().store, Plan.from_json(json.loads(said)), part)
        found = finish(made.restart().store, Plan.from_json(json.loads(said)))

        assert parts == len(plan.parts)
        assert max(plan.parts) - min(plan.parts) <= 1
        assert bits == Path(found.path or "").read_bytes()
        assert whole.manifest.output == found.manifest.output
        assert whole.profile == found.profile
    memory = made.store.training_set(spine, VALUES, timestamp="at")
    assert memory.manifest.output == whole.manifest.output
    assert without_values(memory.profile, ["usage:kind"]) == whole.profile
    assert memory.frame.equals(whole.frame)
    assert ["of_1", "of_2", "of_7", "whole"] == sets.names()


THREADS = """
import sys
from pathlib import Path
import polars as pl
from lockstep.training import order
from tests.training_world import VALUES, training_world
from tests.test_training_sets import many_rows
order.require_memory = lambda asked: None
made = training_world(Path(sys.argv[1]))
found = made.store.training_set(many_rows(), VALUES, timestamp="at", mode="known", memory=1)
print(pl.thread_pool_size(), found.manifest.output.hash)
"""


def test_the_result_does_not_depend_on_the_number_of_threads(made: World, tmp_path: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", THREADS, str(tmp_path / count)],
            cwd=ROOT,
            env={**os.environ, "POLARS_MAX_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for count in ("1", "4")
    ]
    here = made.store.training_set(many_rows(), VALUES, timestamp="at", mode="known")

    assert ["1", "4"] == [threads for threads, _ in said]
    assert {here.manifest.output.hash} == {found for _, found in said}


def test_a_part_may_be_joined_again_and_a_set_finished_again(made: World, sets: KeptSets) -> None:
    plan = made.store.plan_training_set(full_spine(), VALUES, timestamp="at", name="twice", parts=2)
    with pytest.raises(StoreError, match=r"joined-00000.arrow is gone"):
        finish(made.restart().store, plan)
    for part in (0, 1, 0):
        join_part(made.store, plan, part)

    first, again = finish(made.store, plan), finish(made.store, plan)

    assert first.manifest == again.manifest
    assert ["twice"] == sets.names()
    assert not [name for name in left(made) if name.startswith(".work")]


def test_a_kept_set_is_there_when_its_manifest_is(made: World, sets: KeptSets) -> None:
    found = made.store.training_set(full_spine(), VALUES, timestamp="at", name="kept")

    assert ["data.parquet", "manifest.json", "profile.json", "spine.parquet"] == sorted(
        path.name for path in (folder(made) / "kept").iterdir()
    )
    assert found.manifest == sets.manifest("kept") == read_manifest(folder(made) / "kept")
    assert pl.read_parquet(folder(made) / "kept/data.parquet").equals(found.frame)
    (folder(made) / "kept/manifest.json").unlink()
    assert [] == sets.names()
    with pytest.raises(UnknownNameError, match=r"keeps no training set named 'kept'"):
        sets.manifest("kept")

    again = made.store.training_set(spine_of([]), VALUES, timestamp="at", name="kept")

    assert again.frame.height == 0 == again.rows


def test_a_name_is_taken_unless_the_content_is_the_very_same(made: World, sets: KeptSets) -> None:
    spine = full_spine()
    first = made.store.training_set(spine, VALUES, timestamp="at", name="taken")
    before = left(made)

    again = made.store.training_set(spine, VALUES, timestamp="at", name="taken", memory=1)
    with pytest.raises(InputError, match="got another spine"):
        made.store.training_set(spine.head(3), VALUES, timestamp="at", name="taken")
    with pytest.raises(InputError, match="got other features, mode, timestamp column or time zone"):
        made.store.training_set(spine, VALUES, timestamp="at", name="taken", mode="known")
    with pytest.raises(InputError, match="got other features, mode, timestamp column or time zone"):
        made.store.training_set(spine, VALUES[:1], timestamp="at", name="taken")

    assert first.manifest == again.manifest == sets.manifest("taken")
    assert before == left(made)


@pytest.mark.parametrize("name", ["", "Üpper", "a/b", "..", "1st", ".work-x", "x" * 64])
def test_a_set_has_a_plain_name(made: World, name: str) -> None:
    with pytest.raises(InputError, match="can't name a training set"):
        made.store.training_set(full_spine(), VALUES, timestamp="at", name=name)


@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in parts"])
@pytest.mark.parametrize("end", ["parquet", "csv"])
def test_a_set_that_is_written_to_a_file_has_its_manifest_beside_it(
    made: World, sets: KeptSets, tmp_path: Path, memory: int | None, end: str
) -> None:
    spine, to = full_spine(), tmp_path / f"My set.{end}"
    (tmp_path / f"My set.{end}.manifest.json").write_text("of what was here before")

    found = made.store.training_set(spine, VALUES, timestamp="at", to=to, memory=memory)

    (name,) = sets.names()
    assert name.startswith(f"set_my_set_{found.manifest.output.hash[:0]}")
    assert read_manifest(to) == sets.manifest(name) == found.manifest
    assert str(to) == found.path == found.manifest.files["to"]
    assert ["manifest.json", "profile.json", "spine.parquet"] == sorted(
        path.name for path in (folder(made) / name).iterdir()
    )
    assert found.frame.equals(made.store.training_set(spine, VALUES, timestamp="at").frame)
    if end == "parquet":
        assert pl.read_parquet(to).equals(found.frame)
    else:
        assert spine.height + 1 == len(to.read_text("utf-8").splitlines())
    assert 2 == len(list(tmp_path.iterdir()))


def test_a_place_that_can_not_be_written_is_refused_before_anything_is_joined(
    made: World, sets: KeptSets, tmp_path: Path
) -> None:
    for to in ("x.txt", "nowhere/x.parquet"):
        with pytest.raises(InputError, match="Nothing was written"):
            made.store.training_set(full_spine(), VALUES, timestamp="at", to=tmp_path / to)
    with_list = full_spine().head(2).with_columns(label=pl.lit([1]))
    with pytest.raises(InputError, match="lists and structs need"):
        made.store.training_set(with_list, VALUES, timestamp="at", to=tmp_path / "x.csv")

    assert [] == list(tmp_path.iterdir())
    assert [] == sets.names()
    assert [] == left(made)


def test_every_set_has_a_manifest_that_its_schema_describes(made: World, sets: KeptSets) -> None:
    kept = made.store.training_set(full_spine(), VALUES, timestamp="at", name="kept", mode="known")
    short = made.store.training_set(full_spine(), VALUES[:1], timestamp="at")

    for found in (kept.manifest, short.manifest):
        data = json.loads(found.to_bytes())
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        jsonschema.validate(data, SCHEMA)
        assert found == Manifest.from_bytes(found.to_bytes(), "here")
    view = kept.manifest.views["usage"]
    table = made.store.lake.table(usage).head()
    assert (table.table_id, table.version) == (view.table_id, view.version)
    assert {day: [n for n, _ in found] for day, found in view.days.items()} == {
        day: list(range(1, 1 + sum(h.view is usage and h.day == day for h in HISTORY)))
        for day in DAYS
    }
    assert {"one": "2026-03-05..2026-03-11, 2026-10-30..2026-11-03"} == dict(view.code_versions)
    assert ["visits"] == [view for view in kept.manifest.views if view not in short.manifest.views]
    assert kept.manifest.libraries["polars"] == pl.__version__
    assert kept.manifest.libraries["lockstep"].startswith("0.")


def test_a_manifest_that_was_changed_is_refused(made: World, sets: KeptSets) -> None:
    made.store.training_set(full_spine(), VALUES, timestamp="at", name="kept")
    file = folder(made) / "kept/manifest.json"
    good = file.read_text("utf-8")

    for bad in (
        good.replace('"mode": "event"', '"mode": "known"'),
        good.replace('"revision": 1', '"revision": 2', 1),
        good[:-40],
        "[]",
        '{"format": 99}',
    ):
        file.write_text(bad, "utf-8")
        with pytest.raises(InputError, match=r"manifest.json is not usable"):
            sets.manifest("kept")
    file.write_text(good, "utf-8")
    assert "kept" == sets.manifest("kept").name


def test_removing_a_set_frees_its_name(made: World, sets: KeptSets, tmp_path: Path) -> None:
    made.store.training_set(full_spine(), VALUES, timestamp="at", name="one")
    made.store.training_set(full_spine(), VALUES, timestamp="at", to=tmp_path / "x.parquet")

    for name in sets.names():
        sets.remove(name)

    assert [] == sets.names()
    assert [] == left(made)
    assert (tmp_path / "x.parquet").exists()


def test_only_the_days_that_the_spine_can_meet_are_pinned(made: World) -> None:
    at = as_of(DAYS[5], ZONE) + timedelta(hours=1)
    found = made.store.training_set(spine_of([(1, "a", at)]), VALUES, timestamp="at").manifest

    assert DAYS[4:6] == list(found.views["usage"].days)
    assert DAYS[:6] == list(found.views["visits"].days)


def test_the_profile_says_how_much_is_null_without_a_row_or_expired_and_how_old(
    made: World,
) -> None:
    end = as_of(DAYS[6], ZONE)
    at = [end, end + timedelta(hours=1), end + TTL + timedelta(hours=1)]
    spine = spine_of([(BIG, "a", instant) for instant in at] + [(99, "a", end)] * 5)

    for memory in (None, 1):
        found = made.store.training_set(spine, VALUES, timestamp="at", memory=memory)
        amount, kind = found.profile["usage:amount"], found.profile["usage:kind"]
        assert (8, 6, 5, 1) == (amount.rows, amount.nulls, amount.unmatched, amount.expired)
        assert (0.75, 0.625, 0.125) == (
            amount.null_share,
            amount.unmatched_share,
            amount.expired_share,
        )
        assert 0.0 == amount.age_seconds["0"]
        assert 49 * 3600.0 == amount.age_seconds["1"]
        assert (-7.5, -7.5, -7.5) == (
            amount.values.minimum,
            amount.values.mean,
            amount.values.maximum,
        )
        assert (["big"], [2]) == (list(kind.top), list(kind.counts))
        assert {"big": 2} == dict(kind.values.counts)
        assert 1.0 == found.profile["visits:count"].null_share


def test_a_feature_that_is_mostly_null_or_mostly_expired_is_warned_of(made: World) -> None:
    end = as_of(DAYS[6], ZONE)
    old = [(BIG, "a", end + TTL + timedelta(hours=1))] * 3
    found = made.store.training_set(
        spine_of([*old, (BIG, "a", end)]), VALUES, timestamp="at"
    ).warnings

    expired = "has expired in 75.0% of the rows: its view's ttl is short for this spine, or days"
    assert [
        f"usage:amount {expired} are missing.",
        f"usage:kind {expired} are missing.",
        "visits:count is null in 100.0% of the rows: 100.0% have no row of the view, 0.0% an expired one.",  # noqa: E501
    ] == list(found)
    half = made.store.training_set(spine_of([old[0], (BIG, "a", end)]), VALUES[:1], timestamp="at")
    assert () == half.warnings


def test_days_of_mixed_code_are_warned_of(tmp_path: Path) -> None:
    made = training_world(tmp_path)
    late = HISTORY[-1].known_at + timedelta(days=1)
    commit(made, Told(usage, DAYS[-1], late, ((7, 1.0, "x"),)), code="two")
    made.clock.now = NOW
    spine = spine_of([(1, "a", AT)])

    with pytest.warns(LockstepWarning) as caught:
        found = made.store.training_set(spine, VALUES, timestamp="at")

    sentence = (
        "The days of usage mix versions of its code (one: 2026-03-05..2026-03-11, "
        "2026-10-30..2026-11-02; two: 2026-11-03). To make them one: lockstep materialize usage "
        "--days …"
    )
    assert [sentence] == [str(warning.message) for warning in caught]
    assert __file__ == caught[0].filename
    assert sentence in found.warnings


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * 10**9), ("1.5 kb", 1500), ("7", 7), ("2T", 2 * 10**12), ("512mb", 512 * 10**6)],
)
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert expected == parse_bytes(text)


def test_a_budget_that_is_none_is_refused_and_the_default_is_part_of_what_is_free(
    made: World,
) -> None:
    for text in ("much", "-1", "4 PB", ""):
        with pytest.raises(InputError, match="is no amount of memory"):
            parse_bytes(text)
    with pytest.raises(InputError, match="A memory budget of 0 bytes is none"):
        made.store.training_set(full_spine(), VALUES, timestamp="at", memory=0)
    with pytest.raises(ConfigError, match="Mars"):
        made.store.training_set(full_spine(), VALUES, timestamp="at", time_zone="Mars/Olympus")
    assert 0 < budget(None) < available_bytes()


def test_two_builds_of_one_name_leave_one_whole_set(made: World, sets: KeptSets) -> None:
    context = multiprocessing.get_context("spawn")
    root = made.store.project.folder
    runs = [context.Process(target=_build, args=(root, rows)) for rows in (40, 41)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)

    assert [0, 3] == sorted(run.exitcode or 0 for run in runs)
    kept = sets.manifest("race")
    data = pl.read_parquet(folder(made) / "race/data.parquet")
    assert data.height == kept.rows in {40, 41}
    assert not [name for name in left(made) if name.startswith(".work")]


def _build(root: Path, rows: int) -> None:
    from tests.scenario import catalog_of, world
    from tests.training_world import visits

    made = world(root)
    made.store.__dict__["catalog"] = catalog_of([usage, visits])
    try:
        made.store.training_set(full_spine().head(rows), VALUES, timestamp="at", name="race")
    except InputError:
        sys.exit(3)


@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in parts"])
def test_a_refused_set_leaves_the_file_that_is_there(
    made: World, sets: KeptSets, tmp_path: Path, memory: int | None
) -> None:
    spine, to = full_spine(), tmp_path / "f.parquet"
    first = made.store.training_set(spine, VALUES, timestamp="at", name="one", to=to)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    for other in (spine.head(9), spine.reverse()):
        with pytest.raises(InputError, match=r"got another spine.*no file was written"):
            made.store.training_set(other, VALUES, timestamp="at", name="one", to=to, memory=memory)

    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first.manifest == read_manifest(to) == sets.manifest("one")
    assert not [name for name in left(made) if name.startswith(".work")]


def test_a_set_whose_name_another_build_takes_meanwhile_leaves_the_file_that_is_there(
    made: World, sets: KeptSets, tmp_path: Path
) -> None:
    spine, to = full_spine(), tmp_path / "f.parquet"
    plan = made.store.plan_training_set(spine, VALUES, timestamp="at", name="one", to=to)
    late = made.store.plan_training_set(spine[:9], VALUES, timestamp="at", name="one", to=to)
    for of in (plan, late):
        join_part(made.store, of, 0)
    finish(made.store, plan)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(InputError, match="got another spine"):
        finish(made.store, late)

    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert read_manifest(to) == sets.manifest("one")


def test_every_file_has_the_manifest_of_its_own_question(
    made: World, sets: KeptSets, tmp_path: Path
) -> None:
    # Both modes, and both zones, give this row the same values.
    spine, to = spine_of([(1, "a", AT)]), tmp_path / "g.parquet"
    naive = spine.with_columns(pl.col("at").dt.replace_time_zone(None))
    (tmp_path / "sub").mkdir()
    asked = [
        (spine, {"mode": "event", "to": to}),
        (spine, {"mode": "known", "to": to}),
        (spine, {"mode": "known", "to": tmp_path / "sub" / "g.parquet"}),
        (naive, {"time_zone": "UTC", "to": to}),
        (naive, {"time_zone": "Etc/UTC", "to": to}),
    ]

    for rows, how in asked:
        found = made.store.training_set(rows, VALUES, timestamp="at", **how)

        said = read_manifest(Path(str(how["to"])))
        assert found.manifest == said == sets.manifest(found.name or "")
        assert how.get("mode", "event") == said.mode
        assert how.get("time_zone") == said.time_zone
        assert str(how["to"]) == said.files["to"]
    assert len(asked) == len(sets.names())

    made.store.training_set(naive, VALUES, timestamp="at", name="zone", time_zone="UTC")
    with pytest.raises(InputError, match="time zone"):
        made.store.training_set(naive, VALUES, timestamp="at", name="zone", time_zone="Etc/UTC")


def test_rows_in_the_future_are_warned_of_and_the_set_says_how_many_warnings_it_has(
    made: World, sets: KeptSets
) -> None:
    spine = spine_of([(1, "a", made.clock.now + timedelta(days=1))])

    for memory in (None, 1):
        with pytest.warns(LockstepWarning, match="1 of 1 rows of the spine are later") as caught:
            found = made.store.training_set(spine, VALUES, timestamp="at", memory=memory)
        assert {__file__} == {warning.filename for warning in caught}
        assert f"{len(found.warnings)} warnings: see .warnings" in repr(found)
    with pytest.warns(LockstepWarning, match="1 of 1 rows of the spine are later"):
        made.store.plan_training_set(spine, VALUES, timestamp="at")


def test_there_are_never_more_parts_than_files_can_be_open(
    made: World, sets: KeptSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    spine = pl.concat([full_spine()] * 4)
    assert most_parts() <= 256 < spine.height
    plan = made.store.plan_training_set(spine, VALUES, timestamp="at", name="x", parts=10_000)
    assert most_parts() == len(plan.parts)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert 64 == most_parts()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_build_that_runs_out_of_open_files_says_so_and_leaves_nothing(
    made: World, sets: KeptSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in left(made):
        shutil.rmtree(folder(made) / name, ignore_errors=True)
    monkeypatch.setattr("lockstep.training.plan.most_parts", lambda: 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with pytest.raises(StoreError, match="Too many open files"):
            made.store.plan_training_set(full_spine(), VALUES, timestamp="at", parts=500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [] == left(made)


@pytest.mark.parametrize(
    "dtype",
    [
        pl.UInt128,
        pl.Int128,
        pl.Array(pl.Array(pl.Int64, 1), 1),
        pl.List(pl.Struct({"a": pl.Null})),
        pl.Struct({"a": pl.Array(pl.Int64, 1)}),
        pl.List(pl.Categorical),
    ],
    ids=str,
)
def test_a_label_that_no_hash_covers_is_named_before_anything_is_joined(
    made: World, sets: KeptSets, dtype: pl.DataType
) -> None:
    odd = full_spine().head(3).with_columns(odd=pl.lit(None, dtype))
    joined: list[str] = []

    for memory in (None, 1):
        with pytest.raises(InputError, match=r"The column 'odd' is .*Nothing was joined"):
            made.store.training_set(
                odd,
                VALUES,
                timestamp="at",
                name="odd",
                memory=memory,
                progress=lambda what, *_: joined.append(what),
            )
    assert [] == joined
    assert [] == sets.names()
