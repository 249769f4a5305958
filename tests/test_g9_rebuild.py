"""G9: a training set is rebuilt bit for bit while what it pins is there, else refused with why."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lockstep import Feature, Features, feature_view
from lockstep.compacting import compact
from lockstep.errors import InputError, StoreError
from lockstep.garbage import collect_garbage
from lockstep.hashing import canonical, content_hash
from lockstep.stores.delta import Proposal
from lockstep.stores.rebuild import finish_rebuild, start_rebuild
from lockstep.time import as_of
from lockstep.training.column_hash import ColumnHashes
from lockstep.training.kept_sets import KeptSets
from lockstep.training.manifest import Contents, Manifest, read_manifest
from lockstep.training.memory import budget
from lockstep.training.reproduce import Rebuilt, rebuild_set
from tests.scenario import USER, ZONE, Clock, World, catalog_of
from tests.training_world import (
    DAYS,
    DELAY,
    FUTURE,
    HISTORY,
    NOTHING,
    TTL,
    VALUES,
    Told,
    commit,
    full_spine,
    training_world,
    usage,
    visits,
)

pytestmark = [pytest.mark.filterwarnings(FUTURE), pytest.mark.usefixtures("in_parts")]

LATER = datetime(2027, 3, 1, tzinfo=UTC)


class Usage(Features, entity=USER, owner="team:tests", ttl=TTL, landing_delay=DELAY, min_rows=0):
    """The same view with a column more, and one that has another type."""

    amount = Feature(pl.Float64, "How much.")
    kind = Feature(pl.List(pl.String), "Of what.")
    more = Feature(pl.Int64, "More.")


@feature_view(Usage, inputs=[NOTHING.trailing(days=1)])
def grown(nothing: pl.LazyFrame) -> pl.LazyFrame:
    return nothing


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a set kept in each mode."""
    folder = tmp_path_factory.mktemp("g9")
    made = training_world(folder)
    for mode in ("event", "known"):
        made.store.training_set(full_spine(), VALUES, timestamp="at", name=mode, mode=mode)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def made(prepared: Path, tmp_path: Path) -> World:
    """A copy of it in which anything may happen."""
    from tests.scenario import world

    shutil.copytree(prepared / "lake", tmp_path / "lake")
    copy = world(tmp_path)
    copy.store.__dict__["catalog"] = catalog_of([usage, visits])
    copy.clock.now = LATER
    return copy


def manifest_of(made: World, name: str) -> Manifest:
    return KeptSets(made.store.lake).manifest(name)


def rebuilt(made: World, name: str, **more: object) -> Rebuilt:
    memory = budget(None)
    return rebuild_set(made.restart().store, manifest_of(made, name), memory=memory, **more)  # type: ignore[arg-type]


def correct_everything(made: World) -> None:
    for n, day in enumerate(DAYS):
        rows = ((1, 1000.0 + n, "new"), (77, -1.0, None))
        commit(made, Told(usage, day, LATER + timedelta(minutes=n), rows))
        commit(made, Told(visits, day, LATER + timedelta(minutes=n), (("a", 1, 10**6 + n),)))


def backfill(made: World) -> None:
    for off in range(1, 4):
        day = DAYS[0] - timedelta(days=off)
        commit(made, Told(usage, day, LATER + timedelta(hours=off), ((1, 5.0, "old"),)))


def grow(made: World) -> None:
    """Rebuild `usage` under a contract with a column more and one of another type."""
    live = made.store.lake.table(usage)
    table = made.store.lake.table(grown)
    table = type(table)(live.uri, grown.columns, name="usage", zone=live.zone, contract="grown")
    staging = start_rebuild(table)
    days = sorted(live.head().days)
    now = Clock(LATER + timedelta(days=1))
    for day in days:
        frame = pl.DataFrame(
            {"user_id": [1], "event_timestamp": [as_of(day, ZONE)], "amount": [9.0]},
        ).with_columns(kind=pl.lit(["x"]), more=pl.lit(1, pl.Int64))
        frame = canonical(frame.cast(dict(grown.columns)).select(list(grown.columns)))
        staging.commit([Proposal(day, frame, content_hash(frame), {})], now=now)
    finish_rebuild(table, staging, days, now=now)


def collect(made: World) -> None:
    # The files were written now, whatever the clock of the world says.
    now = datetime.now(UTC) + timedelta(days=400)
    collect_garbage(made.store.lake.place, now=now, keep=timedelta(0))


def put_together(made: World) -> None:
    compact(made.store.lake.place, now=Clock(LATER + timedelta(days=2)))


@pytest.mark.parametrize("mode", ["event", "known"])
def test_a_set_is_rebuilt_bit_for_bit_after_all_that_may_happen_to_a_lake(
    made: World, mode: str, tmp_path: Path
) -> None:
    manifest = manifest_of(made, mode)
    before = pl.read_parquet(Path(made.store.lake.place.path(f"training_sets/{mode}/data.parquet")))

    for happens in (correct_everything, backfill, grow, put_together, collect, put_together):
        happens(made)
        found = rebuilt(made, mode)
        assert manifest.output == found.training.manifest.output, happens.__name__
        assert manifest.views == found.training.manifest.views
        assert found.training.frame.equals(before)
        assert found.data_checked

    head = made.store.lake.table(usage).head()
    assert head.version > (manifest.views["usage"].version or 0) + len(DAYS)
    now = made.restart().store.training_set(full_spine(), ["visits:count"], timestamp="at")
    assert now.manifest.output.columns["visits:count"] != manifest.output.columns["visits:count"]
    rebuilt(made, mode, out=tmp_path / "again.parquet")
    kept = Path(made.store.lake.place.path(f"training_sets/{mode}/data.parquet"))
    assert kept.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_a_set_is_rebuilt_in_parts_as_well(made: World) -> None:
    manifest = manifest_of(made, "known")
    found = rebuild_set(made.store, manifest, memory=1)

    assert manifest.output == found.training.manifest.output


def files_of(made: World, view: str) -> list[Path]:
    return sorted(Path(made.store.lake.place.path(f"offline/{view}")).rglob("*.parquet"))


def test_a_day_whose_rows_are_gone_is_named_with_its_revision(made: World) -> None:
    day = DAYS[1]
    for file in files_of(made, "usage"):
        if f"day={day}" in file.as_posix():
            file.unlink()

    with pytest.raises(StoreError, match=f"The rows of usage for {day}, revision 1, are gone"):
        rebuilt(made, "event")


def test_a_version_that_is_gone_is_named(made: World) -> None:
    version = manifest_of(made, "event").views["usage"].version
    log = Path(made.store.lake.place.path(f"offline/usage/_delta_log/{version:020d}.json"))
    log.unlink()

    with pytest.raises(
        StoreError,
        match=rf"The training set can't be rebuilt: version {version} of usage is gone",
    ):
        rebuilt(made, "event")


def test_a_table_that_was_made_anew_is_not_taken_for_the_pinned_one(made: World) -> None:
    shutil.rmtree(made.store.lake.place.path("offline/usage"))
    shutil.rmtree(made.store.lake.place.path("offline/_index"), ignore_errors=True)
    with pytest.raises(StoreError, match=r"of usage is gone"):
        rebuilt(made, "event")
    for item in [item for item in HISTORY if item.view is usage]:
        commit(made, item)

    with pytest.raises(StoreError, match=r"is not the one that was pinned.*Expected the table"):
        rebuilt(made, "event")


def test_a_day_that_was_damaged_is_found_by_the_hash_of_the_result(made: World) -> None:
    day = DAYS[1]
    (file,) = (file for file in files_of(made, "usage") if f"day={day}" in file.as_posix())
    rows = pl.read_parquet(file, hive_partitioning=False)
    rows.with_columns(amount=pl.lit(123.0)).write_parquet(file)

    with pytest.raises(StoreError) as raised:
        rebuilt(made, "event")

    said = str(raised.value)
    assert "The rebuilt set differs from its manifest in usage:amount." in said
    assert f"The rows of usage for {day}, revision 1, are damaged" in said


def test_a_spine_that_was_changed_is_found(made: World, tmp_path: Path) -> None:
    file = Path(made.store.lake.place.path("training_sets/event/spine.parquet"))
    good = pl.read_parquet(file)
    good.with_columns(label=pl.col("label") + 1).write_parquet(file)

    with pytest.raises(InputError, match=r"not the one that the set was made of.*label differ"):
        rebuilt(made, "event")
    file.unlink()
    with pytest.raises(InputError, match=r"The spine .*spine.parquet is gone"):
        rebuilt(made, "event")

    found = rebuilt(made, "event", spine=good)
    assert found.training.rows == good.height
    with pytest.raises(InputError, match="not the one that the set was made of"):
        rebuilt(made, "event", spine=good.reverse(), out=tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_kept_data_that_was_changed_is_found(made: World) -> None:
    file = Path(made.store.lake.place.path("training_sets/event/data.parquet"))
    data = pl.read_parquet(file)
    data.with_columns(pl.col("usage:amount") * 2).write_parquet(file)

    with pytest.raises(StoreError, match=r"data.parquet was changed: usage:amount differ"):
        rebuilt(made, "event")
    file.unlink()
    assert not rebuilt(made, "event").data_checked


@pytest.mark.parametrize("harm", ["empty", "truncated", "flipped", "other values"])
def test_damaged_kept_data_is_told_and_the_rebuilt_set_is_written_all_the_same(
    made: World, tmp_path: Path, harm: str
) -> None:
    file = Path(made.store.lake.place.path("training_sets/event/data.parquet"))
    good, data = file.read_bytes(), pl.read_parquet(file)
    if harm == "other values":
        data.with_columns(pl.col("usage:amount") * 2).write_parquet(file)
    else:
        flipped = good[:20] + bytes([good[20] ^ 0xFF]) + good[21:]
        half = good[: len(good) // 2]
        file.write_bytes({"empty": b"", "truncated": half, "flipped": flipped}[harm])
    out = tmp_path / "again.parquet"

    with pytest.raises(StoreError, match=r"The kept data .*data.parquet .*lockstep rebuild event"):
        rebuilt(made, "event")
    with pytest.raises(StoreError, match=rf"The kept data .*Put {out} in its place"):
        rebuilt(made, "event", out=out)

    assert data.equals(pl.read_parquet(out))
    assert manifest_of(made, "event") == read_manifest(out)
    shutil.copy(out, file)
    assert rebuilt(made, "event").data_checked


def test_a_set_that_is_not_kept_is_rebuilt_from_its_spine(made: World) -> None:
    spine = full_spine().head(20)
    manifest = made.store.training_set(spine, VALUES, timestamp="at").manifest

    with pytest.raises(InputError, match="The spine of the manifest is not kept"):
        rebuild_set(made.store, manifest, memory=budget(None))
    found = rebuild_set(made.store, manifest, spine=spine, memory=budget(None))

    assert found.training.manifest.output == manifest.output


def test_a_view_that_is_no_longer_declared_is_rebuilt_all_the_same(made: World) -> None:
    made.store.__dict__["catalog"] = catalog_of([])

    assert rebuilt(made, "known").training.rows == full_spine().height


def test_removing_a_set_frees_what_it_pins(made: World) -> None:
    kept = manifest_of(made, "event")
    spine = pl.read_parquet(made.store.lake.place.path("training_sets/event/spine.parquet"))
    grow(made)
    collect(made)
    assert rebuilt(made, "event").data_checked
    for name in ("event", "known"):
        KeptSets(made.store.lake).remove(name)
    before = len(files_of(made, "usage"))

    collect(made)

    assert len(files_of(made, "usage")) < before
    # What was superseded is kept beside the table, so that both questions stay answerable.
    again = rebuild_set(made.store, kept, spine=spine, memory=budget(None))
    assert again.training.manifest.output == kept.output


@pytest.mark.parametrize("how", ["named", "to a file", "in parts"])
def test_a_set_of_an_empty_spine_is_rebuilt_as_well(made: World, tmp_path: Path, how: str) -> None:
    spine = full_spine().clear()
    more: dict[str, object] = {
        "named": {"name": "empty"},
        "to a file": {"name": "empty", "to": tmp_path / "empty.parquet"},
        "in parts": {"name": "empty", "memory": budget(None)},
    }[how]

    found = made.store.training_set(spine, VALUES, timestamp="at", **more)  # type: ignore[arg-type]
    in_memory = made.store.training_set(spine, VALUES, timestamp="at")

    assert found.manifest.output == in_memory.manifest.output
    assert rebuilt(made, "empty").data_checked


def test_a_set_of_an_empty_spine_that_was_hashed_otherwise_is_that_set(made: World) -> None:
    """Of no rows an earlier release hashed the length of one block without rows."""
    spine = full_spine().clear()
    now = made.store.training_set(spine, VALUES, timestamp="at", name="empty").manifest
    hashes = ColumnHashes({name: pl.Float64() for name in now.output.columns})
    hashes.update(pl.DataFrame(schema={name: pl.Float64() for name in now.output.columns}))
    columns = {
        name: {"type": found["type"], "hash": hashes.columns[name]["hash"]}
        for name, found in now.output.columns.items()
    }
    then = replace(now, output=Contents(0, hashes.total, columns))
    made.store.lake.place.write("training_sets/empty/manifest.json", then.to_bytes())

    assert rebuilt(made, "empty").data_checked
    again = made.store.training_set(spine, VALUES, timestamp="at", name="empty")
    assert then == again.manifest
    other = replace(now, output=replace(now.output, columns=dict(list(columns.items())[:-1])))
    made.store.lake.place.write("training_sets/empty/manifest.json", other.to_bytes())
    with pytest.raises(StoreError, match=r"differs from its manifest in .*visits:count"):
        rebuilt(made, "empty")
