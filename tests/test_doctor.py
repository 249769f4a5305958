"""The doctor: every fault it names is made for real, and what it says puts it right."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from lockstep.advice import Advice, worst_first
from lockstep.cli import app
from lockstep.clock import utc_now
from lockstep.doctor import examine_lake, examine_machine
from lockstep.doctor_online import examine_online
from lockstep.stores.rebuild import start_rebuild
from lockstep.stores.server import EmbeddedServer
from tests.lost_redis import Lost, lost
from tests.servers import KINDS, open_store, server
from tests.tiny_project import TinyProject

ROOT = Path(__file__).parent.parent


def advised(found: Lost, url: str | None = None, **options: Any) -> dict[str, Advice]:
    """Code → what the doctor says of the online store; the worst if it says several things."""
    where = url or found.url
    online = open_store(where, namespace=found.made.store.project.namespace)
    said = list(examine_online(online, where, found.views, **{"now": utc_now, **options}))
    online.close()
    return {each.code: each for each in reversed(worst_first(said))}


@pytest.fixture
def found(own_server: EmbeddedServer, tmp_path: Path) -> Lost:
    return lost(tmp_path / "project", own_server.url)


def test_the_embedded_server_has_nothing_to_put_right(found: Lost) -> None:
    said = advised(found)

    assert {"ok"} == {each.level for each in said.values()}, said
    assert {
        *("online-reachable", "tls", "acl-user", "server-version", "eviction-policy"),
        *("memory-headroom", "persistence", "listpack", "function-library", "clock-skew"),
        *("not-ready", "buckets", "seals"),
    } == said.keys()


@pytest.mark.parametrize(
    ("setting", "value", "code", "level"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction-policy", "advice"),
        ("appendonly", "no", "persistence", "advice"),
        ("hash-max-listpack-value", "64", "listpack", "advice"),
        ("hash-max-listpack-entries", "2", "listpack", "advice"),
    ],
)
def test_a_setting_that_costs_something_is_named_with_its_fix(
    found: Lost, setting: str, value: str, code: str, level: str
) -> None:
    with found.raw() as client:
        client.config_set(setting, value)

    said = advised(found)

    assert level == said[code].level
    assert "CONFIG SET" in said[code].fix
    assert {code} == {each.code for each in said.values() if each.level != "ok"}


def test_a_server_that_would_drop_rows_now_is_broken(found: Lost) -> None:
    with found.raw() as client:
        client.config_set("maxmemory", 2**30)
        client.config_set("maxmemory-policy", "allkeys-lru")

    said = advised(found)

    assert "broken" == said["eviction-policy"].level
    assert "would drop rows" in said["eviction-policy"].sentence


@pytest.mark.parametrize(("share", "level"), [(1.02, "broken"), (1.2, "advice"), (10, "ok")])
def test_a_server_that_fills_up_is_named_before_it_is_full(
    found: Lost, share: float, level: str
) -> None:
    with found.raw() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * share))

    assert level == advised(found)["memory-headroom"].level


def test_functions_that_are_gone_or_of_another_release_are_named(found: Lost) -> None:
    with found.raw() as client:
        client.function_flush()
        gone = advised(found)
        client.function_load(
            "#!lua name=lockstep_v1_old\nredis.register_function('old', function() return 1 end)"
        )
    old = advised(found)
    found.made.push(found.made.views.pace)
    with found.raw() as client:
        client.hdel(found.names("pace")[0], "pace")
    found.reconcile(patient=False)

    assert "advice" == gone["function-library"].level
    assert "FUNCTION DELETE lockstep_v1_old" in old["function-leftovers"].fix
    assert "ok" == advised(found)["function-library"].level


@pytest.mark.parametrize("seconds", [-60, 60])
def test_clocks_that_disagree_are_broken(found: Lost, seconds: int) -> None:
    said = advised(found, now=lambda: utc_now() + timedelta(seconds=seconds))

    assert "broken" == said["clock-skew"].level
    assert ("ahead of" if seconds < 0 else "behind") in said["clock-skew"].sentence


def test_an_unencrypted_or_open_store_elsewhere_is_broken(found: Lost) -> None:
    """Asked of the same server under a name of this machine that is not loopback's."""
    online = found.made.store.online_store
    far = found.url.replace("127.0.0.1", "redis.example.com")
    said = {each.code: each for each in examine_online(online, far, found.views, now=utc_now)}

    assert ("broken", "broken") == (said["tls"].level, said["acl-user"].level)
    assert "rediss://" in said["tls"].fix


@pytest.fixture
def restricted(found: Lost) -> str:
    """The URL of a user who may read the namespace and ask for INFO, no more."""
    with found.raw() as client:
        client.execute_command(
            *("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", "+@connection"),
            *("+hget", "+hmget", "+hgetall", "+info", "+acl|whoami", "+time", "+cluster|slots"),
        )
    return found.url.replace("redis://", "redis://reader:pw@")


def test_what_the_acl_forbids_to_ask_is_said_and_not_guessed(found: Lost, restricted: str) -> None:
    said = advised(found, restricted)

    unknown = {each.code for each in said.values() if each.level == "unknown"}
    assert {"listpack", "replica-acknowledgement", "function-library"} == unknown
    assert "CONFIG GET" in said["listpack"].sentence
    assert "Connected as reader." == said["acl-user"].sentence
    assert all("pw" not in f"{each.sentence} {each.fix}".split() for each in said.values())


def test_a_replica_without_a_duty_to_follow_is_named(tmp_path: Path) -> None:
    import time

    at_once = {"repl-diskless-sync-delay": "0"}
    primary, replica = (server(KINDS[0], tmp_path / name, at_once) for name in ("one", "two"))
    primary.start()
    replica.start()
    try:
        host, _, port = primary.url.removeprefix("redis://").removesuffix("/0").partition(":")
        with redis.Redis.from_url(replica.url) as copy:
            copy.execute_command("REPLICAOF", host, port)
            deadline = time.monotonic() + 30
            while copy.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < deadline
        online = open_store(primary.url)
        said = {each.code: each for each in examine_online(online, primary.url, [], now=utc_now)}
        with redis.Redis.from_url(primary.url) as client:
            client.config_set("min-replicas-to-write", 1)
        after = {each.code for each in examine_online(online, primary.url, [], now=utc_now)}
        online.close()
    finally:
        replica.kill()
        primary.kill()

    assert "min-replicas-to-write 1" in said["replica-acknowledgement"].fix
    assert "replica-acknowledgement" not in after


def test_marks_damaged_seals_and_other_buckets_are_broken(found: Lost) -> None:
    online = found.made.store.online_store
    with found.raw() as client:
        client.hdel(found.names("pace")[0], "pace")
        found.marked()
        client.hset(online.names.entity_meta("user"), "buckets", 8)
        client.hset(online.names.bucket_key("user", 1), "profile", "no seal")

    said = advised(found)

    assert "Marked not ready: pace." == said["not-ready"].sentence
    assert "user has 8 buckets online and 4 declared." == said["buckets"].sentence
    assert "profile" in said["seals"].sentence


def test_a_store_that_does_not_answer_is_one_finding(found: Lost, own_server: Any) -> None:
    own_server.kill()

    (said,) = advised(found).values()

    assert ("online-reachable", "broken") == (said.code, said.level)
    own_server.start()


# The lake and the machine


def lake_says(found: Lost, **later: float) -> dict[str, Advice]:
    now = datetime.now(UTC) + timedelta(**later)  # files have the real time
    return {each.code: each for each in examine_lake(found.made.store.lake, found.views, now)}


@pytest.fixture
def quiet(redis_url: str, tmp_path: Path) -> Lost:
    return lost(tmp_path / "project", redis_url)


def test_a_healthy_lake_has_nothing_to_put_right(quiet: Lost) -> None:
    said = lake_says(quiet, hours=48)

    assert {"ok"} == {each.level for each in said.values()}
    assert {"lake-commits", "lake-tables", "lake-rebuilds", "lake-leftovers"} == said.keys()


def test_leftovers_of_killed_processes_are_named_once_they_are_old(quiet: Lost) -> None:
    table = Path(quiet.made.store.lake.table(quiet.made.views.pace).uri)
    (table / "part-00000.parquet#1").write_bytes(b"x" * 2**20)
    (table / "_delta_log" / ".lockstep-tmp-1").write_bytes(b"y")
    young, old = lake_says(quiet), lake_says(quiet, hours=25)

    assert "ok" == young["lake-leftovers"].level
    assert old["lake-leftovers"].sentence.startswith("2 temporary files (1.0 MiB)")


def test_an_interrupted_rebuild_is_named_with_the_command_that_finishes_it(quiet: Lost) -> None:
    start_rebuild(quiet.made.store.lake.table(quiet.made.views.pace))
    under_way, later = lake_says(quiet), lake_says(quiet, hours=2)

    assert "ok" == under_way["lake-rebuilds"].level
    assert "lockstep materialize pace --rebuild" in later["lake-rebuilds"].fix


def test_a_damaged_log_is_broken(quiet: Lost) -> None:
    table = Path(quiet.made.store.lake.table(quiet.made.views.pace).uri)
    max((table / "_delta_log").glob("*.json")).write_text("{")

    assert "broken" == lake_says(quiet)["lake-tables"].level


def test_the_machine_of_a_project_with_dagster_is_fine(
    quiet: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = quiet.made.store.project
    without = {each.code: each for each in examine_machine(project)}
    shutil.copy(ROOT / "dagster.yaml", project.folder)
    fresh = {each.code: each for each in examine_machine(project)}
    (project.state / "dagster").mkdir(parents=True)
    good = {each.code: each for each in examine_machine(project)}
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    elsewhere = {each.code: each for each in examine_machine(project)}

    assert "no dagster.yaml" in without["dagster-home"].sentence
    assert "has not been created yet" in fresh["dagster-home"].sentence
    assert {"ok"} == {each.level for each in good.values()}
    assert "DAGSTER_HOME is /elsewhere" in elsewhere["dagster-home"].sentence


@pytest.mark.parametrize("telemetry", ["", "telemetry:\n  enabled: true\n"])
def test_telemetry_that_is_on_is_named(quiet: Lost, telemetry: str) -> None:
    project = quiet.made.store.project
    (project.folder / "dagster.yaml").write_text(f"{telemetry}nux:\n  enabled: false\n")

    said = {each.code: each for each in examine_machine(project)}

    assert "advice" == said["dagster-telemetry"].level


@pytest.mark.parametrize(("free", "level"), [(2**20, "broken"), (2**29, "advice"), (2**35, "ok")])
def test_a_disk_that_fills_up_is_named(
    quiet: Lost, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    usage = shutil._ntuple_diskusage(2**40, 2**40 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    said = {each.code: each for each in examine_machine(quiet.made.store.project)}

    assert level == said["disk-space"].level


# The command


def lockstep(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def unlucky(tiny: TinyProject) -> TinyProject:
    """A project whose clock runs in 2025, beside a server that lives today."""
    return tiny.build()


def test_the_command_shows_the_worst_first_and_exits_1(unlucky: TinyProject) -> None:
    lines = lockstep("doctor", status=1).stdout.splitlines()
    data = json.loads(lockstep("doctor", "--json", status=1).stdout)

    assert lines[0].startswith("broken  clock-skew ")
    assert len(lines) == len(data)
    assert {"code", "level", "sentence", "fix"} == data[0].keys()
    assert ["clock-skew"] == [each["code"] for each in data if each["level"] == "broken"]


def test_the_command_goes_on_where_the_online_store_was_never_started(
    unlucky: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCKSTEP_REDIS_URL")
    said = lockstep("doctor", status=1).stdout

    assert "broken  online-reachable" in said
    assert "Run `lockstep up`." in said
    assert "lake-tables" in said
    assert not os.environ.get("LOCKSTEP_REDIS_URL")
