"""G6: whatever is lost online is noticed by the next look, marked not ready, and rebuilt.

Every fault is done to a real server, Valkey and Debian's Redis. Afterwards nobody helps: one call
of `reconcile` leaves every entity of every view equal to Delta, byte for byte, and no mark.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lockstep.calls import WipeCalls, shipped_library
from lockstep.errors import OnlineError
from lockstep.stores.server import EmbeddedServer
from tests.lost_redis import LAST, Lost, lost, lost_wide, push_and_die, restate
from tests.servers import KINDS, running_cluster, server

ALL = {"spend_3d", "profile", "pace"}


@pytest.fixture
def found(own_server: EmbeddedServer, tmp_path: Path) -> Lost:
    return lost(tmp_path / "project", own_server.url)


def check_noticed_and_repaired(found: Lost, codes: Mapping[str, str]) -> None:
    """What is wrong is found, marked, and repaired by one more call alone."""
    noticed = found.look()
    marked, not_ready = found.marked(), found.not_ready()
    repaired = found.reconcile(patient=False)

    assert codes == noticed
    assert {view for view, code in codes.items() if code != "behind"} == marked == not_ready
    assert all(each.holds for each in repaired), [each.sentence for each in repaired]
    assert found.is_whole()
    assert found.look() == {}
    assert found.not_ready() == set()


def test_a_flush_is_noticed_and_repaired(found: Lost) -> None:
    with found.raw() as client:
        client.flushall()

    check_noticed_and_repaired(found, dict.fromkeys(ALL, "lost"))


def test_a_flush_before_a_restart_is_noticed_and_repaired(
    found: Lost, own_server: EmbeddedServer
) -> None:
    with found.raw() as client:
        client.flushall()
        client.function_flush()
    own_server.stop()
    assert found.url == own_server.start()

    check_noticed_and_repaired(found, dict.fromkeys(ALL, "lost"))


@pytest.fixture(params=KINDS)
def forgetful(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that keeps nothing on disk."""
    started = server(request.param, tmp_path / "forgetful", {"appendonly": "no"})
    started.start()
    yield started
    started.kill()


def test_a_server_killed_without_persistence_is_noticed_and_repaired(
    forgetful: EmbeddedServer, tmp_path: Path
) -> None:
    found = lost(tmp_path / "project", forgetful.url)
    forgetful.kill()
    with pytest.raises(OnlineError):
        found.look()
    assert found.url == forgetful.start()

    check_noticed_and_repaired(found, dict.fromkeys(ALL, "lost"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_promoted_replica_that_had_stopped_is_noticed_and_repaired(
    kind: str, tmp_path: Path
) -> None:
    """The primary acknowledges a push that the replica never hears of, and dies."""
    at_once = {"repl-diskless-sync-delay": "0"}
    primary, replica = (server(kind, tmp_path / name, at_once) for name in ("primary", "replica"))
    primary.start()
    replica.start()
    try:
        found = lost(tmp_path / "project", primary.url)
        follow(primary, replica)
        replica_id = replica.process_id
        assert replica_id is not None
        os.kill(replica_id, signal.SIGSTOP)
        with found.raw() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        restate(found, found.made.views.spend_3d, LAST)
        found.made.push(found.made.views.spend_3d)
        assert found.look() == {}
        primary.kill()
        os.kill(replica_id, signal.SIGCONT)
        promote(replica, found.url)

        check_noticed_and_repaired(found, {"spend_3d": "rolled_back"})
    finally:
        primary.kill()
        if replica.process_id is not None:
            os.kill(replica.process_id, signal.SIGCONT)
        replica.kill()


def follow(primary: EmbeddedServer, replica: EmbeddedServer) -> None:
    """Let one server copy another and return once it has everything."""
    import redis

    host, _, port = primary.url.removeprefix("redis://").removesuffix("/0").partition(":")
    with redis.Redis.from_url(replica.url) as copy:
        copy.execute_command("REPLICAOF", host, port)
        deadline = time.monotonic() + 30
        while copy.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline, "the replica does not follow"


def promote(replica: EmbeddedServer, url: str) -> None:
    """Make a replica the primary, under the address that clients know."""
    import redis

    with redis.Redis.from_url(replica.url) as copy:
        copy.execute_command("REPLICAOF", "NO", "ONE")
        copy.config_set("port", url.rpartition(":")[2].removesuffix("/0"))


def test_one_lost_row_of_a_small_view_is_noticed_and_repaired(found: Lost) -> None:
    with found.raw() as client:
        client.hdel(found.names("pace")[3], "pace")

    check_noticed_and_repaired(found, {"pace": "rows"})


@pytest.mark.parametrize("seed", range(2))
def test_one_per_cent_of_a_large_view_is_noticed_and_repaired(
    own_server: EmbeddedServer, tmp_path: Path, seed: int
) -> None:
    found = lost_wide(tmp_path / "project", own_server.url, users=20_000)
    names = found.names("wide")
    with found.raw() as client:
        client.delete(*random.Random(seed).sample(names, len(names) // 100))

    check_noticed_and_repaired(found, {"wide": "rows"})


def test_evicted_rows_are_noticed_and_repaired_once_there_is_room(found: Lost) -> None:
    before = len(found.names("profile"))
    with found.raw() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory-samples", 1)
        used = client.info("memory")["used_memory"]
        while len(found.names("profile")) > before * 0.9:
            used -= 1000
            client.config_set("maxmemory", used)
            client.set("something else", "x")
        noticed = found.looked()
        refused = found.reconcile()
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")

    assert "profile" in {finding.view for finding in noticed.findings}
    assert any("dropped" in note for note in noticed.notes)
    assert any("would silently drop rows" in each.error for each in refused)
    assert all(each.holds for each in found.reconcile(patient=False))
    assert found.is_whole()
    assert found.look() == {}


def one_seal(found: Lost) -> None:
    with found.raw() as client:
        client.hdel(found.made.store.online_store.names.bucket_key("user", 2), "pace")


def one_bucket_of_seals(found: Lost) -> None:
    with found.raw() as client:
        client.delete(found.made.store.online_store.names.bucket_key("user", 2))


def a_damaged_seal(found: Lost) -> None:
    with found.raw() as client:
        name = found.made.store.online_store.names.bucket_key("user", 2)
        client.hset(name, "pace", client.hget(name, "pace")[:-1])


def the_schemas(found: Lost) -> None:
    with found.raw() as client:
        client.delete(found.made.store.online_store.names.schemas())


def interrupted_wipe(found: Lost) -> None:
    online, view = found.made.store.online_store, found.made.views.pace
    table_id = found.made.store.lake.table(view).head().table_id
    calls = WipeCalls(online.names, shipped_library(), "user", view.name, table_id, buckets=3)
    with found.raw() as client:
        for call in calls.begin():
            client.execute_command(*call)


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (one_seal, {"pace": "lost"}),
        (one_bucket_of_seals, dict.fromkeys(ALL, "lost")),
        (a_damaged_seal, {"pace": "unreadable"}),
        (the_schemas, dict.fromkeys(ALL, "schema")),
    ],
)
def test_a_lost_seal_or_schema_is_noticed_and_repaired(
    found: Lost, fault: Callable[[Lost], None], codes: Mapping[str, str]
) -> None:
    fault(found)

    check_noticed_and_repaired(found, codes)


def test_an_interrupted_wipe_is_noticed_and_finished(found: Lost) -> None:
    interrupted_wipe(found)
    while_it_may_go_on = found.look()
    found.wait(61)

    assert while_it_may_go_on == {}
    check_noticed_and_repaired(found, {"pace": "wiping"})


@pytest.mark.parametrize(
    ("at", "bit"),
    [(0, 64), (1, 64), (7, 1), (-1, 1)],
    ids=["kind", "version", "event_timestamp", "columns"],
)
def test_one_changed_bit_of_a_row_is_noticed_and_repaired(found: Lost, at: int, bit: int) -> None:
    name = found.names("spend_3d")[0]
    with found.raw() as client:
        value = bytearray(client.hget(name, "spend_3d"))
        value[at] ^= bit
        client.hset(name, "spend_3d", bytes(value))

    check_noticed_and_repaired(found, {"spend_3d": "rows"})


def test_a_push_killed_between_rows_and_seal_is_noticed_and_completed(found: Lost) -> None:
    restate(found, found.made.views.spend_3d, LAST)
    assert -signal.SIGKILL == push_and_die(found, found.made.views.spend_3d, "pushed")
    at_once = found.look()
    found.wait(601)

    assert at_once == {}
    check_noticed_and_repaired(found, {"spend_3d": "behind"})


def test_a_rebuild_killed_after_its_wipe_is_noticed_and_completed(found: Lost) -> None:
    assert -signal.SIGKILL == push_and_die(
        found, found.made.views.spend_3d, "mid_push", rebuild=True
    )

    check_noticed_and_repaired(found, {"spend_3d": "lost"})


def test_a_reconciler_killed_at_work_leaves_the_mark_and_the_next_one_finishes(
    found: Lost,
) -> None:
    with found.raw() as client:
        client.hdel(found.names("pace")[3], "pace")
    marked = found.marked()
    killed = push_and_die(found, found.made.views.pace, "sealed", rebuild=True)
    soon = found.look()
    found.wait(61)

    assert ({"pace"}, -signal.SIGKILL) == (marked, killed)
    assert soon == {}  # whoever marked it may be about to take the mark away
    check_noticed_and_repaired(found, {"pace": "marked"})


@pytest.mark.parametrize("kind", KINDS)
def test_one_flushed_master_of_a_cluster_is_noticed_and_repaired(kind: str, tmp_path: Path) -> None:
    with running_cluster(kind, tmp_path / "cluster") as cluster:
        found = lost(tmp_path / "project", cluster.url)
        online = found.made.store.online_store
        cluster.client(cluster.owner(online.names.bucket_key("user", 0))).flushall()

        noticed, marked = found.look(), found.marked()
        repaired = found.reconcile(patient=False)

        assert dict.fromkeys(ALL, "lost") == noticed
        assert set(noticed) == marked
        assert all(each.holds for each in repaired)
        assert found.is_whole()
        assert found.look() == {}
