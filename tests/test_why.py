"""`lockstep why`: every cause injected into real stores, and what is named; the command itself."""

import json
import socket
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.errors import InputError
from lockstep.materialize import materialize
from lockstep.stores.server import EmbeddedServer
from lockstep.why.answer import explain
from lockstep.why.causes import Cause
from tests.scenario import instant
from tests.tiny_project import VIEW_DAYS, TinyProject
from tests.why_injections import Tally, injected
from tests.why_world import BUYING, LAST, STOPPED, WhyWorld, built_world, opened, sale

LEAST_INJECTIONS = 100
LEAST_RIGHT = 0.95
ELEVEN: set[Cause] = {
    "zone shift",
    "late data",
    "partial push",
    "evicted",
    "expired",
    "correction not pushed",
    "quarantined",
    "schema change",
    "code changed",
    "never computed",
    "Redis behind",
}
NOON = datetime(LAST.year, LAST.month, LAST.day, 12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> WhyWorld:
    return built_world(tmp_path_factory.mktemp("why"), redis_url)


@pytest.fixture(scope="module")
def tally(base: WhyWorld, tmp_path_factory: pytest.TempPathFactory) -> Tally:
    return injected(base, tmp_path_factory.mktemp("injected"))


@pytest.fixture
def fresh(base: WhyWorld, tmp_path: Path) -> WhyWorld:
    """A world of its own, for a test that changes Delta."""
    return base.copy(tmp_path / "copy")


def test_at_least_95_of_100_injected_causes_are_named_right(tally: Tally) -> None:
    faults = [asked for asked in tally.asked if asked.expected != "as it should be"]
    wrong = [str(asked) for asked in faults if not asked.right]

    assert len(faults) >= LEAST_INJECTIONS
    assert {asked.expected for asked in faults} >= ELEVEN
    assert len(wrong) <= (1 - LEAST_RIGHT) * len(faults), "\n".join(wrong)


@pytest.mark.parametrize("cause", sorted(ELEVEN))
def test_each_of_the_eleven_causes_is_named_right(tally: Tally, cause: Cause) -> None:
    asked = [each for each in tally.asked if each.expected == cause]
    named = Counter(each.found.cause for each in asked)

    assert len(asked) >= 4
    assert named[cause] >= LEAST_RIGHT * len(asked), "\n".join(map(str, asked))
    # What has expired has no command; everything else ends with one.
    assert all(bool(each.found.fix) == (cause != "expired") for each in asked if each.right)


def test_what_is_right_is_called_right_beside_what_is_wrong(tally: Tally) -> None:
    healthy = [asked for asked in tally.asked if asked.expected == "as it should be"]
    alarms = [str(asked) for asked in healthy if not asked.right]

    assert len(healthy) >= 10
    assert [] == alarms


def test_rows_that_a_full_server_drops_are_called_evicted(base: WhyWorld, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "small server")
    server.start()
    try:
        world = opened(base.folder, server.url, base.clock.now)
        world.push_all()
        with closing(redis.Redis.from_url(server.url)) as client:
            evicted = _evicting(client)
        named = [explain(world.store, {"shopper": who}, "spend_3d:spend") for who in BUYING]
    finally:
        server.kill()
    lost = [found for found in named if not found.right]

    assert lost
    assert {found.cause for found in lost} == {"evicted"}
    assert any(f"evicted {evicted} keys" in line for line in lost[0].evidence)
    assert "noeviction" in lost[0].first


def _evicting(client: "redis.Redis") -> int:
    """Fill a server with other keys, then let it drop two thirds of all; how many it dropped."""
    for number in range(300):
        client.set(f"other:{number}", "x" * 1_000)
    client.config_set("maxmemory-policy", "allkeys-random")
    used: Any = client.info()
    client.config_set("maxmemory", used["used_memory"] - 200_000)
    client.set("one more", "x")
    client.config_set("maxmemory", 0)
    now: Any = client.info()
    return int(now["evicted_keys"])


def test_a_past_instant_is_answered_as_it_could_have_been_then(fresh: WhyWorld) -> None:
    before = fresh.clock.now
    fresh.clock.now += timedelta(hours=1)
    fresh.land([sale(f"late-{who}", who, NOON, 500.0) for who in (1, 2)])
    fresh.ingest([LAST])
    fresh.build("spend_3d", [LAST])
    entity = {"shopper": 1}

    then = explain(fresh.store, entity, "spend_3d:spend", before)
    today = explain(fresh.store, entity, "spend_3d:spend", fresh.clock.now)
    other = explain(fresh.store, {"shopper": 3}, "spend_3d:spend", before)

    assert then.cause == "late data"
    assert then.facts.online is None
    assert then.facts.offline.revision == 1
    assert then.facts.since is not None
    assert then.facts.since.cell.value == pytest.approx(then.facts.offline.value + 500)
    assert today.cause == "correction not pushed"
    assert today.facts.offline.revision == 2
    assert other.cause == "as it should be"


def test_a_past_instant_knows_of_days_that_only_came_later(fresh: WhyWorld) -> None:
    day = LAST + timedelta(days=1)
    noon = instant(day + timedelta(days=1), 12)
    fresh.clock.now = noon + timedelta(hours=6)
    fresh.land([sale("new", 1, NOON + timedelta(days=1), 5.0)])
    fresh.ingest([day])
    fresh.build("spend_3d", [day])

    found = explain(fresh.store, {"shopper": 1}, "spend_3d:spend", noon)

    assert found.cause == "late data"
    assert found.facts.offline.day == LAST
    assert found.facts.missing == [day]


def test_a_day_that_was_not_due_at_a_past_instant_is_no_cause(base: WhyWorld) -> None:
    midnight = instant(LAST + timedelta(days=1))

    found = explain(base.store, {"shopper": 1}, "spend_3d:spend", midnight)

    assert found.cause == "as it should be"
    assert found.facts.offline.day == LAST - timedelta(days=1)
    assert found.facts.since is not None
    assert found.facts.since.cell.day == LAST
    assert f"{LAST} was not due then" in found.evidence[0]


def test_a_redis_that_does_not_answer_is_said_and_delta_answers(
    base: WhyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockstep.why.answer.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world = opened(base.folder, f"redis://127.0.0.1:{silent.getsockname()[1]}", base.clock.now)
        found = explain(world.store, {"shopper": 1}, "spend_3d:spend")
        stopped = explain(world.store, {"shopper": STOPPED[0]}, "spend_3d:spend")

    assert found.cause == "Redis down"
    assert found.facts.offline.status == "present"
    assert found.facts.online is not None
    assert found.facts.online.problem in found.evidence
    assert stopped.facts.online is not None


def test_a_project_whose_server_was_never_started_is_answered_from_delta(base: WhyWorld) -> None:
    world = opened(base.folder, "", base.clock.now)
    object.__setattr__(world.store.project, "redis_url", None)

    found = explain(world.store, {"shopper": 1}, "spend_3d:spend")

    assert (found.cause, found.fix) == ("Redis down", "lockstep up")


def test_a_server_of_the_project_that_was_stopped_is_to_be_started_again(fresh: WhyWorld) -> None:
    world = opened(fresh.folder, "", fresh.clock.now)
    object.__setattr__(world.store.project, "redis_url", None)
    server = EmbeddedServer(world.store.project.state / "redis")
    server.start()
    server.stop()

    found = explain(world.store, {"shopper": 1}, "spend_3d:spend")

    assert (found.cause, found.fix) == ("Redis down", "lockstep up")
    assert "was not sent" in found.evidence[0]
    assert "unknown" not in found.evidence[0]


def test_what_redis_holds_is_not_known_while_it_does_not_answer(
    built: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_REDIS_URL", "redis://127.0.0.1:1")

    told = run("customer=ada", "spend_2d:spend")

    assert "Fix:   lockstep doctor" in told
    assert "not known" in told
    assert "no row" not in told


def test_the_provenance_is_told_in_words(built: TinyProject) -> None:
    snapshot = run("customer=ada", "contact:email")
    windows = run("customer=ada", "spend_2d:spend")
    data = json.loads(run("customer=ada", "spend_2d:spend", "--json"))

    assert "1970" not in snapshot
    assert ["read", "contacts", "revision", "1"] in map(str.split, snapshot.splitlines())
    first = data["provenance"][0]["closing"]["orders"]
    (read,) = {" ".join(s.split()) for s in windows.splitlines() if "read orders" in s}
    assert read.startswith(f"read orders {first}..")
    assert read.endswith(f", revision 1; {first} only to close entities that left the window")


@pytest.mark.parametrize(
    ("at", "says"),
    [(NOON, "no time zone"), (datetime(2031, 1, 1, tzinfo=UTC), "lies in the future")],
)
def test_an_instant_that_cannot_be_looked_at_is_refused(
    base: WhyWorld, at: datetime, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        explain(base.store, {"shopper": 1}, "spend_3d:spend", at)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["why", *words])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, ["why", *words])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_the_command_shows_the_cause_both_sides_and_the_provenance(built: TinyProject) -> None:
    told = run("customer=ada", "spend_2d:spend")

    record = built.store.lake.table(built.store.catalog.view("spend_2d")).head().days
    newest = max(record)
    first, *_ = told.splitlines()
    assert first == "spend_2d:spend of customer=ada: as it should be"
    for said in (
        "offline",
        "online",
        "100.0",
        f"{newest}",
        f"revision {record[newest].revision}, commit {record[newest].version}",
        built.store.catalog.view("spend_2d").code_version,
        "read orders",
        "contract passed",
    ):
        assert said in told


def test_the_command_ends_with_what_to_type(built: TinyProject) -> None:
    bob = "customer=bob"
    client = redis.Redis.from_url(built.store.project.redis_url or "")
    names = built.store.online_store.names
    with closing(client):
        kept = {
            name: client.dump(name)
            for name in client.keys(f"{names.namespace}:*")  # type: ignore[union-attr]
            if b"bob" in name
        }
        client.delete(*kept)
        told = run(bob, "spend_2d:spend")
        data = json.loads(run("spend_2d:spend", bob, "--json"))
        for name, value in kept.items():
            client.restore(name, 0, value, replace=True)  # type: ignore[arg-type]

    assert told.startswith("spend_2d:spend of customer=bob: evicted")
    assert "lockstep reconcile spend_2d" in told
    assert data["cause"] == "evicted"
    assert data["fix"] == "lockstep reconcile spend_2d"
    assert data["offline"]["status"] == "present"
    assert data["online"]["cell"]["status"] == "missing"
    assert data["provenance"][0]["inputs"].keys() == {"orders"}


def test_what_identifies_people_is_masked_unless_asked_for(built: TinyProject) -> None:
    hidden = run("customer=ada", "contact:email")
    shown = run("customer=ada", "contact:email", "--show-pii")
    data = json.loads(run("customer=ada", "contact:email", "--json"))

    assert "0@example.com" not in hidden
    assert "•••" in hidden
    assert "0@example.com" in shown
    assert data["offline"]["value"] == data["online"]["cell"]["value"] == "•••"


def test_what_is_asked_wrongly_is_refused_with_the_nearest_names(built: TinyProject) -> None:
    assert "'spend_2d'" in refused("customer=ada", "spend_2:spend")
    assert "Did you mean 'spend'?" in refused("customer=ada", "spend_2d:spent")
    assert "Did you mean 'customer'?" in refused("custmer=ada", "spend_2d:spend")
    assert "Expected customer=…" in refused("spend_2d:spend")
    assert "0 features are asked for" in refused("customer=ada")
    assert "2 features" in refused("customer=ada", "spend_2d:spend", "spend_2d:mean")
    assert "is no instant" in refused("customer=ada", "spend_2d:spend", "--at", "yesterday")
    assert "no time zone" in refused("customer=ada", "spend_2d:spend", "--at", "2025-03-11T02:00")


def test_a_date_is_the_start_of_that_day(built: TinyProject) -> None:
    told = run("customer=ada", "spend_2d:spend", "--at", "2025-03-11")
    data = json.loads(run("customer=ada", "spend_2d:spend", "--at", "2025-03-11", "--json"))

    assert "not known for the past" in told
    assert data["online"] == "not known for the past"
    assert data["at"] == "2025-03-11T04:00:00+00:00"


def test_a_snapshot_that_landed_again_is_late_for_those_whom_it_changes(tiny: TinyProject) -> None:
    tiny.build()
    landed = Path(tiny.store.project.landing) / "contacts"
    changed = pl.read_parquet(landed / "contacts.parquet").with_columns(
        email=pl.when(pl.col("customer") == "ada")
        .then(pl.lit("new@example.com"))
        .otherwise(pl.col("email"))
    )
    changed.write_parquet(landed / "more.parquet")

    late = explain(tiny.store, {"customer": "ada"}, "contact:email")
    same = explain(tiny.store, {"customer": "bob"}, "contact:email")

    assert late.cause == "late data"
    assert late.sentence.startswith("Files of contacts landed after")
    assert late.fix == f"lockstep materialize contacts contact --days {VIEW_DAYS[-1]}"
    assert same.cause == "as it should be"


def test_the_run_and_its_log_lines_are_linked(tiny: TinyProject) -> None:
    run_id = "6f6d0d4e-5b8a-4c11-8d5c-3d1b9c3f2a10"
    settings = tiny.folder / "pyproject.toml"
    tiny.ingest()
    store = tiny.store
    view = store.catalog.view("orders_1d")
    for _ in materialize(store.lake, view, VIEW_DAYS, store.reader(), now=store.now, run_id=run_id):
        pass
    logs = LocalComputeLogManager(str(store.project.state / "dagster" / "compute_logs"))
    with logs.open_log_stream([run_id, "compute_logs", "abcdefgh"], ComputeIOType.STDERR) as file:
        assert file is not None
        file.write(
            "dagster - DEBUG - daily - orders_1d - STEP_START\n"
            "dagster - INFO - daily - another_view - 4 rows\n"
            "dagster - INFO - daily - orders_1d - 5 rows\n"
        )

    plain = run("customer=ada", "orders_1d:orders")
    settings.write_text(settings.read_text("utf-8") + 'dagster_url = "https://dagster.example/"\n')
    told = run("customer=ada", "orders_1d:orders")
    data = json.loads(run("customer=ada", "orders_1d:orders", "--json"))

    assert f"{run_id}  (lockstep ui, then Runs)" in plain
    assert f"https://dagster.example/runs/{run_id}" in told
    assert data["run_url"] == f"https://dagster.example/runs/{run_id}"
    assert Path(data["logs"][0]["path"]).is_file()
    assert ["dagster - INFO - daily - orders_1d - 5 rows"] == data["logs"][0]["lines"]
