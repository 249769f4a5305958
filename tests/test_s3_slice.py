"""The vertical slice with lake and landing zone on S3: by one setting, and equal to a folder's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from demo.landing import land as land_demo
from lockstep.errors import LockstepError, StoreError
from lockstep.ingest import days_to_ingest, ingest, ingest_snapshot
from lockstep.lake import _probe_once
from lockstep.materialize import materialize
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.rebuild import rebuild
from lockstep.release import release_file, release_frame
from lockstep.time import days_between
from tests.s3_server import BUCKET, S3, Faults, faulty, s3_server
from tests.s3_world import put, put_frame, set_up
from tests.scenario import EVENTS, PEOPLE, World, event, instant, make_views

D1, D2, D3, D4, D5 = DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(5)]
WANTED = ["spend_3d:amount_3d", "spend_3d:events_3d", "profile:country", "pace:per_event"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as running:
        yield running


def build(made: World) -> World:
    """Land five days of two users, then ingest, compute and push everything."""
    events = [event(f"b{n}", 2, day, float(n + 1)) for n, day in enumerate(DAYS)]
    put(made, "events", [event("a", 1, D1, 10.0), *events[:2]], "first.parquet")
    put(made, "events", [events[1], *events[2:]], "second.parquet")
    put(
        made,
        "people",
        [{"user_id": 1, "country": "NZ"}, {"user_id": 2, "country": None}],
        "p.parquet",
    )
    made.ingest(D1, D5)
    made.ingest_people()
    for view in made.views.all:
        made.build(view, D3, D5)
        made.push(view)
    return made


@dataclass(frozen=True)
class Both:
    """The same slice on a local folder and on S3."""

    local: World
    remote: World

    def each(self, look: Callable[[World], Any]) -> tuple[Any, Any]:
        return look(self.local), look(self.remote)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, redis_url: str, s3: S3) -> Both:
    folder = tmp_path_factory.mktemp("slices")
    root = f"s3://{BUCKET}/my team/lake"
    return Both(
        build(set_up(folder / "local", redis_url=redis_url)),
        build(set_up(folder / "s3", redis_url=redis_url, LOCKSTEP_ROOT=root, **s3.options)),
    )


@pytest.fixture
def empty(tmp_path: Path, s3: S3) -> World:
    """A project on an empty prefix."""
    return set_up(tmp_path, LOCKSTEP_ROOT=f"s3://{BUCKET}/{tmp_path.name}", **s3.options)


def everything(world: World) -> list[str]:
    return [info.path for info in world.store.lake.place.list()]


def test_one_setting_moves_lake_and_landing_zone_to_s3(both: Both) -> None:
    folder = both.remote.store.project.folder

    assert f"s3://{BUCKET}/my team/lake/landing" == both.remote.store.lake.landing.uri
    assert ["pyproject.toml"] == [path.name for path in folder.iterdir()]
    assert {"bronze", "landing", "ledger", "offline", "profiles"} == {
        path.partition("/")[0] for path in everything(both.remote)
    }


def test_every_day_has_the_content_hash_it_has_on_a_local_folder(both: Both) -> None:
    def certified(world: World) -> dict[str, Any]:
        return {
            of.name: {
                day: (record.revision, record.content_hash, record.rows)
                for day, record in world.store.committed(of).items()
            }
            for of in (EVENTS, PEOPLE, *world.views.all)
        }

    local, remote = both.each(certified)

    assert local == remote
    assert {"events": 5, "people": 1, "spend_3d": 3, "profile": 3, "pace": 3} == {
        name: len(days) for name, days in remote.items()
    }


def test_vectors_and_training_sets_are_those_of_a_local_folder(both: Both) -> None:
    spine = pl.DataFrame(
        {"user_id": [2, 1, 2, 9], "at": [instant(day, 9) for day in (D5, D4, D4, D4)]},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )

    vectors = both.each(lambda world: world.store.online(WANTED, [{"user_id": 2}, {"user_id": 3}]))
    sets = both.each(lambda world: world.store.training_set(spine, WANTED, timestamp="at").frame)

    assert vectors[0].values == vectors[1].values == [[12.0, 3, None, 4.0], [None] * 4]
    assert vectors[0].statuses == vectors[1].statuses
    assert sets[0].equals(sets[1])
    assert [9.0, 10.0, 6.0, None] == sets[1]["spend_3d:amount_3d"].to_list()


def test_online_equals_offline_on_s3(both: Both) -> None:
    assert [True] * 3 == [found.holds for found in both.remote.store.parity()]


def test_a_frame_is_quarantined_and_released_on_s3_as_on_a_local_folder(both: Both) -> None:
    def quarantine_and_release(world: World) -> tuple[Any, ...]:
        strict = make_views(min_rows=5).spend_3d
        put(world, "events", [event("late", 7, D5, 70.0)], "late.parquet")
        world.ingest(D5, D5)
        (held,) = world.build(strict, D5)
        before = world.rows(strict, D5).height
        quarantine = Quarantine(world.store.lake.quarantine)
        (item,) = quarantine.items(strict.name)
        reader = world.store.reader()
        result = release_frame(
            world.store.lake, strict, item, "checked", reader, now=world.clock, run_id="r"
        )
        world.push(strict)
        vectors = world.store.online(["spend_3d:amount_3d"], [{"user_id": 7}])
        record = world.store.committed(strict)[D5]
        status = held.status, result.revision, record.content_hash
        return *status, before, vectors.values, quarantine.items(strict.name)[0].open

    local, remote = both.each(quarantine_and_release)

    assert local == remote
    assert ("quarantined", 2) == remote[:2]
    assert (1, [[70.0]], False) == remote[3:]


def test_a_broken_file_is_held_whole_and_the_other_days_go_on(empty: World) -> None:
    put(empty, "events", [event("a", 1, D1)], f"{D1}.parquet")
    wrong = pl.DataFrame({"event_id": ["b"], "amount": [1.0]})
    put_frame(empty.store.lake.landing, f"events/{D2}.parquet", wrong)
    empty.store.lake.landing.write(f"events/{D3}.parquet", b"no parquet at all")

    outcomes = empty.ingest(D1, D3)
    (first, second) = Quarantine(empty.store.lake.quarantine).items("events")
    release_file(empty.store.lake, first, "a test file", now=empty.clock)
    again = empty.ingest(D1, D3)

    assert ["committed", "refused", "refused"] == [outcome.status for outcome in outcomes]
    assert f"events/{D2}.parquet: column 'user_id' is missing" in first.reason
    assert f"events/{D3}.parquet can't be read as parquet" in second.reason
    assert ["unchanged", "committed", "refused"] == [outcome.status for outcome in again]


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_a_store_that_does_not_answer_says_nothing_about_a_landed_file(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    # Files above the limit are read in parts by Polars, the others whole.
    monkeypatch.setattr("lockstep.landing._WHOLE", size)
    faults = Faults(refuse=r"/landing/events/.*parquet")
    with faulty(s3, faults) as proxied:
        made = set_up(tmp_path, LOCKSTEP_ROOT=f"s3://{BUCKET}/{tmp_path.name}", **proxied.options)
        directly = set_up(tmp_path, LOCKSTEP_ROOT=made.store.project.root, **s3.options)
        put(directly, "events", [event("a", 1, D1)], "f.parquet")

        with pytest.raises(StoreError, match=r"SignatureDoesNotMatch.*Check the credentials"):
            made.ingest(D1, D1)
        faults.refuse = "(?!)"
        (day,) = made.ingest(D1, D1)

    assert "committed" == day.status
    assert [] == Quarantine(made.store.lake.quarantine).items()


def writers(made: World) -> dict[str, Callable[[], object]]:
    """Everything that begins to write, by name."""
    lake, reader, now, view = made.store.lake, made.store.reader(), made.clock, made.views.spend_3d
    item = Quarantined("file", "events", "file-x", "wrong", [str(D1)], "", {"verdicts": []})
    return {
        "ingest": lambda: list(ingest(lake, EVENTS, DAYS, now=now)),
        "ingest_snapshot": lambda: ingest_snapshot(lake, PEOPLE, now=now),
        "days_to_ingest": lambda: days_to_ingest(lake, EVENTS, now()),
        "materialize": lambda: list(materialize(lake, view, DAYS, reader, now=now)),
        "rebuild": lambda: list(rebuild(lake, view, reader, now=now)),
        "release_file": lambda: release_file(lake, item, "because", now=now),
        "release_frame": lambda: release_frame(lake, view, item, "because", reader, now=now),
    }


def test_a_store_that_ignores_conditional_puts_is_refused_before_the_first_write(
    tmp_path: Path, s3: S3
) -> None:
    with faulty(s3, Faults(strip_if_none_match=True)) as proxied:
        made = set_up(tmp_path, LOCKSTEP_ROOT=f"s3://{BUCKET}/{tmp_path.name}", **proxied.options)
        put(made, "events", [event("a", 1, D1)], "f.parquet")

        for begin in writers(made).values():
            with pytest.raises(StoreError, match=r"ignores If-None-Match.*Nothing was written\."):
                begin()

    assert ["landing/events/f.parquet"] == everything(made)


def test_a_store_is_probed_once_per_process_and_root(tmp_path: Path, s3: S3) -> None:
    _probe_once.cache_clear()
    faults = Faults()
    with faulty(s3, faults) as proxied:
        for root in ("one", "one", "two"):
            place = f"s3://{BUCKET}/{tmp_path.name}/{root}"
            made = set_up(tmp_path, LOCKSTEP_ROOT=place, **proxied.options)
            made.store.lake.require_safe_commits()
            made.store.lake.require_safe_commits()

    probes = [name for name in faults.requests if "_lockstep_probe_" in name]
    assert {"/one/": 4, "/two/": 4} == {
        root: sum(root in name for name in probes) for root in ("/one/", "/two/")
    }


def test_a_local_folder_is_not_probed(tmp_path: Path) -> None:
    made = set_up(tmp_path / "project")

    made.store.lake.require_safe_commits()

    assert not Path(made.store.project.root).exists()


def test_ingesting_thirty_files_takes_few_requests_per_file(tmp_path: Path, s3: S3) -> None:
    faults, days = Faults(), days_between(D1, D1 + timedelta(days=29))
    with faulty(s3, faults) as proxied:
        made = set_up(tmp_path, LOCKSTEP_ROOT=f"s3://{BUCKET}/{tmp_path.name}", **proxied.options)
        made.clock.now = instant(days[-1] + timedelta(days=1), 3)
        for day in days:
            put(made, "events", [event(str(day), 1, day)], f"{day}.parquet")
        faults.requests.clear()

        outcomes = made.ingest(days[0], days[-1])
        first = list(faults.requests)
        faults.requests.clear()
        days_to_ingest(made.store.lake, EVENTS, made.clock())
        looked = list(faults.requests)

    assert {"committed"} == {outcome.status for outcome in outcomes}
    # To look at it, to read it, to write its day; and what does not grow with the files.
    assert 60 >= sum("/landing/events/" in name for name in first)
    assert 30 == sum("PUT /lake/" in name and "/bronze/events/day" in name for name in first)
    assert 170 >= len(first)
    assert 0 == sum("/landing/events/" in name for name in looked)
    assert 20 >= len(looked)


def test_the_demo_lands_the_same_files_on_s3(tmp_path: Path, empty: World) -> None:
    day = date(2026, 3, 2)
    local = set_up(tmp_path / "local")

    for made in (local, empty):
        land_demo(made.store, day, day)

    files = [info.path for info in local.store.lake.landing.list()]
    assert 5 == len(files)
    assert [local.store.lake.landing.read(name) for name in files] == [
        empty.store.lake.landing.read(name) for name in files
    ]


def attempts(made: World) -> dict[str, Callable[[], object]]:
    """What meets a store that refuses: writers, readers, and what only looks."""
    spine = pl.DataFrame({"user_id": [1], "event_timestamp": [instant(D5)]})
    view = made.views.spend_3d
    return writers(made) | {
        "land": lambda: put(made, "events", [event("a", 1, D1)], "f.parquet"),
        "committed": lambda: made.store.committed(view),
        "training_set": lambda: made.store.training_set(spine, ["spend_3d:amount_3d"]),
        "parity": lambda: made.store.parity("spend_3d"),
        "push": lambda: made.push(view),
        "ledger": lambda: made.store.lake.latest_entries("spend_3d"),
        "quarantine": lambda: Quarantine(made.store.lake.quarantine).items(),
    }


def told(error: BaseException | None) -> str:
    """Everything that a traceback or Dagster's event log would show of an error."""
    parts = []
    while error is not None:
        parts.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)


SECRETS = {
    "AWS_ACCESS_KEY_ID": "CANARYACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "CANARYSECRETKEY",
    "AWS_SESSION_TOKEN": "CANARYSESSIONTOKEN",
}


@pytest.mark.timeout(90)
def test_refused_credentials_are_named_with_place_and_fix_and_not_repeated(
    tmp_path: Path, s3: S3
) -> None:
    with faulty(s3, Faults(refuse=".")) as refusing:
        root = f"s3://{BUCKET}/{tmp_path.name}"
        made = set_up(tmp_path, LOCKSTEP_ROOT=root, **refusing.options | SECRETS)
        errors = {}
        for name, attempt in attempts(made).items():
            with pytest.raises(LockstepError) as caught:
                attempt()
            errors[name] = told(caught.value)

    for text in errors.values():
        assert f"s3://{BUCKET}/" in text
        assert "SignatureDoesNotMatch" in text
        assert "Check the credentials" in text
        assert "CANARY" not in text


@pytest.mark.timeout(90)
def test_a_missing_bucket_is_named_with_the_fix(tmp_path: Path, s3: S3) -> None:
    made = set_up(tmp_path, LOCKSTEP_ROOT="s3://no-such-bucket/lake", **s3.options)

    for attempt in attempts(made).values():
        with pytest.raises(LockstepError, match=r"s3://no-such-bucket/.*NoSuchBucket.*Create the"):
            attempt()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["ingest", "materialize", "committed", "training_set", "land"])
def test_a_store_that_is_down_is_named_with_the_fix(tmp_path: Path, s3: S3, name: str) -> None:
    down = s3.options | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    made = set_up(tmp_path, LOCKSTEP_ROOT=f"s3://{BUCKET}/lake", **down)

    with pytest.raises(StoreError, match=r"s3://lake/lake.*Check the endpoint \(AWS_ENDPOINT_URL"):
        attempts(made)[name]()


def test_a_store_that_goes_away_between_looking_and_reading_is_a_clear_error(
    tmp_path: Path, s3: S3
) -> None:
    faults = Faults()
    with faulty(s3, faults) as proxied:
        root = f"s3://{BUCKET}/{tmp_path.name}"
        made = build_offline(set_up(tmp_path, LOCKSTEP_ROOT=root, **proxied.options | SECRETS))
        faults.refuse = r"/(bronze|offline)/.*\.parquet"

        for attempt in (
            lambda: made.build(made.views.spend_3d, D4, D4),
            lambda: made.rows(made.views.spend_3d, D3),
            attempts(made)["training_set"],
        ):
            with pytest.raises(StoreError, match="SignatureDoesNotMatch") as caught:
                attempt()
            assert "CANARY" not in told(caught.value)


def build_offline(made: World) -> World:
    put(made, "events", [event(f"e{day}", 1, day) for day in DAYS], "f.parquet")
    made.ingest(D1, D5)
    made.build(made.views.spend_3d, D3)
    return made
