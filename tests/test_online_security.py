"""A user per role with no right too many or too few, passwords nobody repeats, keys that are data.

The users are those of deploy/redis/users.acl, on Valkey and on Debian's Redis.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from lockstep.calls import shipped_library
from lockstep.cli import app
from lockstep.clock import utc_now
from lockstep.doctor_online import examine_online
from lockstep.errors import OnlineError
from lockstep.serving.client import Client
from lockstep.stores.redis import OnlineStore
from tests.online_rows import (
    BUCKETS,
    CODEC,
    ENTITY,
    FAR,
    IDS,
    VIEW,
    packed,
    push,
    push_one,
    push_rows,
    seals_of,
    tombstone,
)
from tests.redis_cluster import Cluster
from tests.scenario import World
from tests.secured_servers import (
    NAMESPACE,
    ROLES,
    USERS,
    GuardedServer,
    Role,
    login,
    rules,
)
from tests.small_world import USERS as PEOPLE
from tests.small_world import asked_of, built_world, small_world
from tests.source_tree import ROOT

ON_A_CLUSTER = {"asking", "cluster|slots"}
LUA = (ROOT / "lockstep" / "stores" / "lockstep.lua").read_text("utf-8")


def rights_of(role: Role) -> set[str]:
    return set(re.findall(r"\+(\S+)", rules()[f"lockstep-{role}"]))


def of_role(server: GuardedServer, role: Role) -> OnlineStore:
    return OnlineStore(server.url(role), namespace=NAMESPACE)


@pytest.fixture
def guarded(acl_server: GuardedServer) -> GuardedServer:
    """The server with the functions loaded by the admin."""
    admin = of_role(acl_server, "admin")
    admin.ensure_ready()
    admin.close()
    assert acl_server.denied() == set()
    return acl_server


def everything_a_pusher_does(store: OnlineStore) -> None:
    store.ping()
    store.ensure_ready()
    store.declare_entity(ENTITY, BUCKETS)
    store.learn_schema(CODEC)
    push(store, 7)
    push_one(store, 1, packed(8, [1])[0], 0)
    push_one(store, 1, tombstone(9))
    push_one(store, 1000, packed(9, [1])[0], FAR, view="other")
    store.note("facts", VIEW, "{}")
    store.note("facts", VIEW, None)
    assert store.notes("facts") == {}
    assert len(dict(store.scan(ENTITY, VIEW))) == len(IDS)
    assert store.table_ids(ENTITY, VIEW, BUCKETS) != set()
    assert store.schemas() == {CODEC.fingerprint: CODEC.schema_json}
    store.wipe(ENTITY, VIEW, BUCKETS, table_id=None)


def test_a_pusher_does_all_its_work_and_is_refused_nothing(
    guarded: GuardedServer, tmp_path: Path
) -> None:
    store = of_role(guarded, "pusher")

    everything_a_pusher_does(store)
    made = small_world(tmp_path, guarded.url("pusher"), namespace=NAMESPACE)
    assert [parity.holds for parity in made.store.parity("profile")] == [True]

    assert guarded.denied() == set()
    made.store.online_store.close()
    store.close()


def test_a_pusher_without_the_functions_says_what_is_missing(acl_server: GuardedServer) -> None:
    store = of_role(acl_server, "pusher")

    with pytest.raises(OnlineError, match=r"function\|load") as refused:
        push(store, 7)

    assert f"127.0.0.1:{acl_server.server.port}" in str(refused.value)
    assert "`lockstep up` with that user" in str(refused.value)
    assert "Nothing was pushed" in str(refused.value)
    environment = {"LOCKSTEP_REDIS_URL": acl_server.url("admin")}
    assert CliRunner().invoke(app, ["up"], env={**environment, "LOCKSTEP_ENV": "x"}).exit_code == 0
    push(store, 7)
    store.close()


def test_the_functions_use_no_command_that_a_pusher_may_not() -> None:
    called = {word.lower() for word in re.findall(r"call\('([A-Z]+)'", LUA)}

    assert called >= {"hset", "hget", "pexpireat"}
    assert called <= rights_of("pusher")


def test_every_right_of_the_pusher_is_needed(guarded: GuardedServer) -> None:
    for right in sorted(rights_of("pusher") - ON_A_CLUSTER):
        with without(guarded, "pusher", right):
            store = of_role(guarded, "pusher")
            with pytest.raises(OnlineError, match="does not allow this user to do that") as refused:
                everything_a_pusher_does(store)
            assert store.address in str(refused.value), right
            store.close()


@contextmanager
def without(server: GuardedServer, role: Role, right: str) -> Iterator[None]:
    """Take a right away and give it back; what a half-done push left is removed."""
    with server.server.client() as client:
        client.execute_command("ACL", "SETUSER", f"lockstep-{role}", f"-{right}")
        try:
            yield
        finally:
            client.execute_command("ACL", "SETUSER", f"lockstep-{role}", f"+{right}")
            client.flushall()


def test_every_right_of_the_admin_is_needed(guarded: GuardedServer, tmp_path: Path) -> None:
    """It loads and deletes functions and runs the doctor; with all rights it may do all of that."""
    made = built_world(tmp_path, guarded.url("admin"), namespace=NAMESPACE)

    def works() -> bool:
        store = of_role(guarded, "admin")
        try:
            store.ping()
            store.ask("FUNCTION", "DELETE", shipped_library().name)
            store.ensure_ready()
            views, url = made.views.all, guarded.url("admin")
            found = list(examine_online(store, url, views, now=utc_now))
        except OnlineError:
            return False
        finally:
            store.close()
        return all(advice.level in {"ok", "advice"} for advice in found)

    assert works()
    still_works = set()
    for right in rights_of("admin") - ON_A_CLUSTER:
        with without(guarded, "admin", right):
            if works():
                still_works.add(right)
        of_role(guarded, "admin").ensure_ready()
    assert still_works == set()


def healthy(url: str, made: World) -> bool:
    """Whether a client finds its views ready and every row."""
    namespace = made.store.project.namespace
    client = Client(made.store.catalog, url, namespace=namespace, deadline=5, now=made.clock)
    with client:
        found = client.fetch(*asked_of(PEOPLE))
        watched = client.watch.problem is None and "profile" not in client.readiness
    return watched and found.cells == [["present"] * len(PEOPLE)]


def test_the_service_needs_every_right_it_has_and_no_other(
    guarded: GuardedServer, tmp_path: Path
) -> None:
    made = small_world(tmp_path, guarded.url("pusher"), namespace=NAMESPACE)

    assert healthy(guarded.url("service"), made)
    assert guarded.denied() == set()
    with guarded.server.client() as client:
        for right in rights_of("service") - ON_A_CLUSTER:
            client.execute_command("ACL", "SETUSER", "lockstep-service", f"-{right}")
            assert not healthy(guarded.url("service"), made), right
            client.execute_command("ACL", "SETUSER", "lockstep-service", f"+{right}")
    made.store.online_store.close()


OWN = f"{NAMESPACE}:{{household:0}}:i1:1"
FOREIGN = ["x", "lockstep:other!facts", f"{NAMESPACE}2!facts", f"{NAMESPACE}:sub!facts"]
DANGEROUS = [
    ["FLUSHALL"],
    ["FLUSHDB"],
    ["KEYS", "*"],
    ["CONFIG", "SET", "maxmemory", "1"],
    ["EVAL", "return 1", "0"],
    ["FUNCTION", "FLUSH"],
    ["FUNCTION", "DUMP"],
    ["SCRIPT", "FLUSH"],
    ["ACL", "LIST"],
    ["ACL", "SETUSER", "me", "on", "nopass", "+@all"],
    ["CLIENT", "KILL", "TYPE", "normal"],
    ["MONITOR"],
    ["SHUTDOWN"],
    ["REPLICAOF", "NO", "ONE"],
    ["MODULE", "LIST"],
    ["SAVE"],
    ["DEL", OWN],
    ["UNLINK", OWN],
    ["RENAME", OWN, "x"],
    ["COPY", OWN, "x"],
    ["DUMP", OWN],
    ["SET", OWN, "x"],
    ["SORT", OWN],
    ["RANDOMKEY"],
    ["DBSIZE"],
    ["SUBSCRIBE", "x"],
    ["PUBLISH", "x", "y"],
]
WRITING = [
    ["HSET", OWN, "f", "v"],
    ["HSETNX", OWN, "f", "v"],
    ["HDEL", OWN, "f"],
    ["PERSIST", OWN],
    ["PEXPIREAT", OWN, "1"],
    ["FCALL", f"{shipped_library().name}_push", "1", OWN],
    ["FCALL_RO", f"{shipped_library().name}_push", "1", OWN],
]
LOOKING_ROUND = [["SCAN", "0"], ["INFO"], ["FUNCTION", "LIST"], ["HKEYS", OWN], ["TIME"], ["PING"]]
LOADING = [["FUNCTION", "LOAD", shipped_library().source], ["FUNCTION", "DELETE", "lockstep"]]
MAY_NOT: dict[Role, list[list[str]]] = {
    "service": [*DANGEROUS, *WRITING, *LOOKING_ROUND, *LOADING, ["CONFIG", "GET", "*"]],
    "pusher": [*DANGEROUS, *LOADING, ["CONFIG", "GET", "*"]],
    "admin": [*DANGEROUS, *WRITING, ["SCAN", "0"]],
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_not_do_what_it_has_no_need_of(guarded: GuardedServer, role: Role) -> None:
    client = redis.Redis.from_url(guarded.url(role), protocol=2)
    others = [["HGET", name, "f"] for name in FOREIGN] + [["HGETALL", name] for name in FOREIGN]
    others += [["HSET", name, "f", "v"] for name in FOREIGN]

    allowed = []
    for words in [*MAY_NOT[role], *others]:
        try:
            client.execute_command(*words)
        except redis.exceptions.NoPermissionError:
            continue
        allowed.append(words)

    assert allowed == []
    assert client.execute_command("HGET", OWN, "f") is None
    client.close()


def test_a_function_of_the_pusher_reaches_no_other_namespace(guarded: GuardedServer) -> None:
    store = OnlineStore(guarded.url("pusher"), namespace="lockstep:other")

    with pytest.raises(OnlineError, match=r"[Nn]o permissions to access") as refused:
        store.push(ENTITY, VIEW, BUCKETS, push_rows([], []), seals=seals_of(7), started_from={})

    assert store.address in str(refused.value)
    store.close()


def test_the_user_without_a_name_is_switched_off(guarded: GuardedServer) -> None:
    for url in (
        f"redis://127.0.0.1:{guarded.server.port}/0",
        f"redis://:anything@127.0.0.1:{guarded.server.port}/0",
    ):
        store = OnlineStore(url, namespace=NAMESPACE)
        with pytest.raises(OnlineError, match=r"cannot be used: Auth|does not allow this user"):
            store.ping()
        store.close()


def test_roles_work_on_every_master_of_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """With the two rights that only a cluster asks for."""
    namespace = f"{NAMESPACE}:{tmp_path.name}"
    for at in cluster.members:
        for user, said in rules(namespace).items():
            if user != "default":
                cluster.client(at).execute_command("ACL", "SETUSER", user, *said.split())
        cluster.client(at).execute_command("ACL", "LOG", "RESET")
    place = cluster.url.removeprefix("redis://")
    admin = OnlineStore(f"redis://{login('admin')}{place}", namespace=namespace)
    admin.ensure_ready()
    made = small_world(tmp_path, f"redis://{login('pusher')}{place}", namespace=namespace)
    name = made.store.online_store.names.bucket_key("user", 1)
    source = cluster.owner(name)
    move = (slot_of(name), source, (source + 1) % len(cluster.members))

    assert healthy(f"redis://{login('service')}{place}", made)
    cluster.begin_move(*move)
    cluster.move_keys(*move, count=3)
    assert healthy(f"redis://{login('service')}{place}", made)
    assert [parity.holds for parity in made.store.parity("profile")] == [True]
    cluster.move_keys(*move)
    cluster.end_move(*move)

    assert [cluster.client(at).execute_command("ACL", "LOG") for at in cluster.members] == [
        [] for _ in cluster.members
    ]
    admin.close()
    made.store.online_store.close()


def slot_of(name: bytes) -> int:
    return redis.crc.key_slot(name)


def test_the_template_names_three_roles_and_nobody_without_a_password() -> None:
    lines = [line for line in USERS.read_text("utf-8").splitlines() if line]

    assert [line.split()[1] for line in lines] == [
        "default",
        *(f"lockstep-{role}" for role in ROLES),
    ]
    assert lines[0] == "user default off"
    for line in lines[1:]:
        assert "_SHA256@" in line
        assert "nopass" not in line
        assert "+@" not in line
        assert "-@all" in line
    assert "%R~" in lines[1]
    assert " ~" not in lines[1]
