"""The online store on three masters: rows and seals by slot, slots that move, masters that die."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from redis.crc import key_slot

from lockstep.calls import shipped_library
from lockstep.errors import ConflictError, OnlineError, PushFailedError
from lockstep.layout import Lookup, Receipt, Seal
from lockstep.online import Vectors
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.client import Client
from lockstep.stores.redis import OnlineStore
from lockstep.time import days_between
from tests.online_rows import CODEC, ENTITY, TABLE, VIEW, keys_of, packed, push_rows
from tests.redis_cluster import MASTERS, Cluster, until
from tests.scenario import START, World, event, instant, world
from tests.servers import open_store

BUCKETS = 24
IDS = range(600)
MANY = range(30_000)
FIRST, LAST = START + timedelta(days=2), START + timedelta(days=5)
USERS = list(range(1, 61))


def seals_of(version: int) -> dict[int, Seal]:
    return dict.fromkeys(range(BUCKETS), Seal(TABLE, version, f"up to {version}", 0))


def push(store: OnlineStore, version: int, ids: Sequence[int] = IDS) -> Receipt:
    """Push one version of the ids from the present seals."""
    rows = push_rows(keys_of(ids), packed(version, ids))
    present = store.seals(ENTITY, VIEW, BUCKETS)
    return store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(version), started_from=present)


def stored(store: OnlineStore, ids: Sequence[int] = IDS) -> list[bytes | None]:
    return [value for (value,) in store.fetch(ENTITY, keys_of(ids), [VIEW], BUCKETS)]


@pytest.fixture
def store(cluster: Cluster) -> Iterator[OnlineStore]:
    """A ready store in an empty namespace of the shared cluster."""
    opened = open_store(cluster.url)
    opened.ensure_ready()
    yield opened
    opened.close()


def test_rows_lie_on_every_master_and_with_the_seal_of_their_bucket(
    cluster: Cluster, store: OnlineStore
) -> None:
    push(store, 7)

    of_node = [cluster.keys(at, f"{store.names.namespace}:*".encode()) for at in range(MASTERS)]
    assert all(of_node)
    assert sum(map(len, of_node)) == len(IDS) + BUCKETS
    assert stored(store) == packed(7, IDS)
    for names in of_node:
        seals = {name for name in names if name.endswith(b"!seal")}
        rows = [store.names.split(ENTITY, name)[0] for name in names if name not in seals]
        assert {store.names.bucket_key(ENTITY, bucket) for bucket in rows} == seals


def test_every_master_has_the_functions_and_one_that_lost_them_gets_them_again(
    cluster: Cluster, store: OnlineStore
) -> None:
    cluster.client(1).function_flush()

    push(store, 7)

    name = shipped_library().name
    for at in range(MASTERS):
        assert len(cluster.client(at).function_list(name)) == 1
    assert stored(store) == packed(7, IDS)


def test_a_scan_finds_every_row_of_every_master_once(store: OnlineStore) -> None:
    push(store, 7)

    found = list(store.scan(ENTITY, VIEW))

    assert len(found) == len(IDS)
    assert dict(found) == dict(zip(keys_of(IDS), packed(7, IDS), strict=True))


def test_a_wipe_empties_every_master(cluster: Cluster, store: OnlineStore) -> None:
    push(store, 7)

    removed = store.wipe(ENTITY, VIEW, BUCKETS, table_id="table-b")

    assert removed == len(IDS)
    assert list(store.scan(ENTITY, VIEW)) == []
    assert store.table_ids(ENTITY, VIEW, BUCKETS) == {"table-b"}
    assert set(store.seals(ENTITY, VIEW, BUCKETS).values()) == {None}


def test_lookups_of_several_entity_types_come_back_in_order(store: OnlineStore) -> None:
    push(store, 7)
    backwards = list(reversed(IDS))

    first, second, third = store.fetch_many(
        [
            Lookup(ENTITY, keys_of(backwards), [VIEW], BUCKETS),
            Lookup("nobody", keys_of([1]), [VIEW], 5),
            Lookup(ENTITY, keys_of([1_000_000]), [VIEW, "other"], BUCKETS),
        ]
    )

    assert [value for (value,) in first] == packed(7, backwards)
    assert (second, third) == ([[None]], [[None, None]])


def test_small_hashes_have_a_home_too(store: OnlineStore) -> None:
    store.declare_entity(ENTITY, BUCKETS)
    store.learn_schema(CODEC)
    store.note("facts", VIEW, "{}")
    store.note("unready", VIEW, '{"reason": "…"}')
    store.note("unready", VIEW, None)

    store.declare_entity(ENTITY, BUCKETS)
    assert store.schemas() == {CODEC.fingerprint: CODEC.schema_json}
    assert (store.notes("facts"), store.notes("unready")) == ({VIEW: "{}"}, {})


def test_every_master_is_asked(cluster: Cluster, store: OnlineStore) -> None:
    nodes = store.nodes()

    assert list(nodes) == [f"127.0.0.1:{port}" for port in cluster.ports]
    assert len({info.run_id for info in nodes.values()}) == MASTERS


@pytest.fixture
def moving(cluster: Cluster, store: OnlineStore) -> tuple[int, int, int]:
    """A slot with pushed rows, the master that has it, and another one."""
    push(store, 7)
    name = store.names.bucket_key(ENTITY, 5)
    source = cluster.owner(name)
    return key_slot(name), source, (source + 1) % MASTERS


def test_every_row_is_found_while_a_slot_moves(
    cluster: Cluster, store: OnlineStore, moving: tuple[int, int, int]
) -> None:
    other, expected = open_store(cluster.url, namespace=store.names.namespace), packed(7, IDS)

    cluster.begin_move(*moving)
    assert stored(store) == expected
    cluster.move_keys(*moving, count=20)  # absent keys are asked for at the target
    assert stored(store) == expected
    cluster.move_keys(*moving)
    assert stored(store) == expected
    cluster.end_move(*moving)

    assert cluster.owner(store.names.bucket_key(ENTITY, 5)) == moving[2]
    assert stored(store) == expected
    assert stored(other) == expected
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)
    other.close()


def test_a_push_into_a_moving_slot_says_so_and_its_rerun_completes(
    cluster: Cluster, store: OnlineStore, moving: tuple[int, int, int]
) -> None:
    cluster.begin_move(*moving)
    cluster.move_keys(*moving, count=20)

    with pytest.raises(PushFailedError, match="is a cluster that cannot take this now") as refused:
        push(store, 8)

    assert store.seals(ENTITY, VIEW, BUCKETS)[5] == seals_of(7)[5]
    assert {CODEC.decode(value).header.version for value in stored(store) if value} <= {7, 8}
    assert "run it again when every slot is served and none is moving" in str(refused.value)
    cluster.move_keys(*moving)
    cluster.end_move(*moving)
    push(store, 8)
    assert stored(store) == packed(8, IDS)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(8)


def test_a_slot_moved_since_the_last_push_costs_one_conflict(
    cluster: Cluster, store: OnlineStore, moving: tuple[int, int, int]
) -> None:
    present = store.seals(ENTITY, VIEW, BUCKETS)
    cluster.move(*moving)
    rows = push_rows(keys_of(IDS), packed(8, IDS))

    with pytest.raises(ConflictError, match="Plan the push again"):
        store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(8), started_from=present)
    push(store, 8)

    assert stored(store) == packed(8, IDS)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(8)


def test_a_slot_that_moves_between_two_chunks_loses_nothing(
    cluster: Cluster, store: OnlineStore, moving: tuple[int, int, int]
) -> None:
    rows = [push_rows(keys_of(ids), packed(8, ids)) for ids in (IDS[:300], IDS[300:])]
    acknowledged: list[int] = []

    def seen(count: int) -> None:
        if not acknowledged:
            cluster.move(*moving)
        acknowledged.append(count)

    with pytest.raises(ConflictError, match="during this push"):
        store.push(
            ENTITY,
            VIEW,
            BUCKETS,
            rows,
            seals=seals_of(8),
            started_from=seals_of(7),
            on_rows=seen,
        )

    assert store.seals(ENTITY, VIEW, BUCKETS)[5] == seals_of(7)[5]
    push(store, 8)
    assert stored(store) == packed(8, IDS)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(8)


def test_a_wipe_goes_on_after_a_slot_has_moved(
    cluster: Cluster, store: OnlineStore, moving: tuple[int, int, int]
) -> None:
    cluster.move(*moving)

    assert store.wipe(ENTITY, VIEW, BUCKETS, table_id=None) == len(IDS)
    assert list(store.scan(ENTITY, VIEW)) == []


def test_a_master_killed_in_mid_push_fails_it_and_a_rerun_completes_it(
    cluster: Cluster, store: OnlineStore
) -> None:
    """Its rows are in its append-only file; the cluster is whole again once it is back."""
    push(store, 7, MANY)
    victim = cluster.owner(store.names.bucket_key(ENTITY, BUCKETS - 1))
    rows = push_rows(keys_of(MANY), packed(8, MANY))
    acknowledged: list[int] = []

    def seen(count: int) -> None:
        acknowledged.append(count)
        if sum(acknowledged) > len(MANY) // 2 and cluster.nodes[victim].running():
            cluster.nodes[victim].kill()

    try:
        at = rf"127\.0\.0\.1:{cluster.ports[victim]}.* cannot be used"
        with pytest.raises(PushFailedError, match=at) as failed:
            store.push(
                ENTITY,
                VIEW,
                BUCKETS,
                rows,
                seals=seals_of(8),
                started_from=seals_of(7),
                on_rows=seen,
            )
        with pytest.raises(OnlineError, match=rf"127\.0\.0\.1:{cluster.ports[victim]}"):
            store.nodes()
    finally:
        cluster.nodes[victim].start()
        cluster.wait_until_whole()

    receipt = failed.value.receipt
    assert isinstance(receipt, Receipt)
    assert receipt.written == sum(acknowledged)
    assert receipt.failed > 0
    assert "Run it again" in str(failed.value)
    assert seals_of(8)[0] not in store.seals(ENTITY, VIEW, BUCKETS).values()
    push(store, 8, MANY)
    assert stored(store, MANY) == packed(8, MANY)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(8)


def test_a_cluster_rebuilt_around_the_node_of_the_url_is_found_through_the_others(
    own_cluster: Cluster,
) -> None:
    """That node dies, its replica takes over, and it comes back as a cluster of its own."""
    store = open_store(own_cluster.url)
    push(store, 7)
    replica = own_cluster.add_replica(0)
    own_cluster.nodes[0].kill()

    with pytest.raises(OnlineError, match="cannot be used"):
        stored(store)
    own_cluster.say(replica, "FAILOVER", "TAKEOVER")
    until(lambda: own_cluster.owns(1, replica, 0), "nobody hears of the new master")
    assert stored(store) == packed(7, IDS)
    push(store, 8)
    assert stored(store) == packed(8, IDS)

    own_cluster.nodes[0].start()
    until(lambda: own_cluster.owns(0, replica, 0), "the old master does not notice")
    own_cluster.forget(0)
    name = store.names.bucket_key(ENTITY, 5)
    source = own_cluster.owner(name, seen_by=1)
    own_cluster.move(key_slot(name), source, next(n for n in own_cluster.members if n != source))
    assert stored(store) == packed(8, IDS)
    push(store, 9)
    assert stored(store) == packed(9, IDS)
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(9)
    assert len(store.nodes()) == MASTERS
    with pytest.raises(OnlineError, match="is a cluster that cannot take this now: no slot"):
        open_store(own_cluster.url).ping()
    store.close()


@pytest.fixture
def made(cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    """The scenario, built and pushed to the cluster."""
    found = world(tmp_path, redis_url=cluster.url)
    people = [{"user_id": user, "country": f"C{user}"} for user in USERS]
    found.land("people", people, "people.parquet")
    found.clock.now = instant(LAST + timedelta(days=1), 3)
    found.ingest_people()
    for day in days_between(START, LAST):
        some = [user for user in USERS if (user + day.day) % 3]
        found.land("events", [event(f"{day}/{u}", u, day, u + 0.5) for u in some], f"{day}.parquet")
    found.ingest(START, LAST)
    for view in found.views.all:
        found.build(view, FIRST, LAST)
        found.push(view)
    yield found
    found.store.online_store.close()


def test_online_equals_offline_for_every_entity(made: World) -> None:
    found = made.store.parity()

    assert [parity.sentence for parity in found if not parity.holds] == []
    assert {parity.view: parity.entities for parity in found} == {
        "pace": len(USERS),
        "profile": len(USERS),
        "spend_3d": len(USERS),
    }


def test_a_push_plans_again_when_a_slot_has_moved(cluster: Cluster, made: World) -> None:
    name = made.store.online_store.names.bucket_key("user", 2)
    source = cluster.owner(name)
    made.land("events", [event("late", 1, LAST, 1000.0)], "late.parquet")
    made.ingest(LAST, LAST)
    made.build(made.views.spend_3d, LAST)
    cluster.move(key_slot(name), source, (source + 2) % MASTERS)

    pushed = made.push(made.views.spend_3d)

    assert pushed.receipt.written > 0
    assert made.store.parity("spend_3d")[0].holds


FEATURES = ["spend_3d:amount_3d", "profile:country", "pace:per_event"]


def test_both_clients_answer_from_every_master_while_a_slot_moves(
    cluster: Cluster, made: World
) -> None:
    asked = {"user_id": USERS}
    name = made.store.online_store.names.bucket_key("user", 1)
    source = cluster.owner(name)
    move = (key_slot(name), source, (source + 1) % MASTERS)

    async def story(client: Client, aclient: AsyncClient) -> list[Vectors]:
        async def both() -> list[Vectors]:
            return [client.fetch(FEATURES, asked), await aclient.fetch(FEATURES, asked)]

        async with aclient:
            found = await both()
            cluster.begin_move(*move)
            cluster.move_keys(*move, count=5)
            found += await both()
            cluster.move_keys(*move)
            found += await both()
            cluster.end_move(*move)
            assert client.readiness == aclient.readiness == {}
            return found + await both()

    settings = {"namespace": made.store.project.namespace, "deadline": 5, "now": made.clock}
    catalog, url = made.store.catalog, cluster.url
    with Client(catalog, url, **settings) as client:
        first, *others = asyncio.run(story(client, AsyncClient(catalog, url, **settings)))

    assert {status for column in first.cells for status in column} == {"present"}
    assert len(others) == 7
    for vectors in others:
        assert (vectors.rows(), vectors.cells) == (first.rows(), first.cells)
