"""What the online store holds after pushes, and what it refuses."""

import threading
from random import Random

import polars as pl
import pytest
import redis

from lockstep.calls import CHUNK_ROWS, PushCalls, shipped_library
from lockstep.codec import RowCodec, encode_key, header_of
from lockstep.errors import ConfigError, ConflictError, InputError, OnlineError
from lockstep.layout import Names, Seal
from lockstep.stores.redis import Lookup, OnlineStore
from tests.online_rows import (
    BUCKETS,
    CODEC,
    ENTITY,
    IDS,
    TABLE,
    VIEW,
    keys_of,
    packed,
    push,
    push_one,
    push_rows,
    push_until_done,
    seals_of,
    tombstone,
    versions,
)

CUTS = [(0, 1), (1, 1), (1, 700), (700, 1000)]


def test_a_push_stores_every_row_and_seals_every_bucket(store: OnlineStore) -> None:
    receipt = push(store, 7)

    assert (receipt.written, receipt.removed, receipt.superseded) == (len(IDS), 0, 0)
    assert receipt.sealed == (0, 1, 2)
    stored = store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS)
    assert [[value] for value in packed(7)] == stored
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)


def test_a_push_without_rows_seals_too(store: OnlineStore) -> None:
    receipt = push(store, 7, [])

    assert receipt.written == 0
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)


def test_only_the_buckets_asked_for_are_sealed(store: OnlineStore) -> None:
    one = {1: seals_of(7)[1]}

    store.push(ENTITY, VIEW, BUCKETS, push_rows([], []), seals=one, started_from={})

    assert store.seals(ENTITY, VIEW, BUCKETS) == {0: None, 1: one[1], 2: None}


def test_progress_counts_every_row_once(store: OnlineStore) -> None:
    ids = range(3 * CHUNK_ROWS)
    seen: list[int] = []

    store.push(
        ENTITY,
        VIEW,
        BUCKETS,
        push_rows(keys_of(ids), packed(7, ids)),
        seals=seals_of(7),
        started_from={},
        on_rows=seen.append,
    )

    assert sum(seen) == len(ids)
    assert max(seen) <= CHUNK_ROWS


def test_a_newer_version_replaces_an_older_one(store: OnlineStore) -> None:
    push(store, 7)

    push(store, 8)

    assert versions(store) == {8}


def test_numbers_are_compared_as_numbers_not_as_text(store: OnlineStore) -> None:
    push(store, 9)

    push(store, 10)
    push(store, 256)

    assert versions(store) == {256}


def test_a_push_repeated_changes_nothing(store: OnlineStore) -> None:
    push(store, 7)
    before = store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS)

    receipt = push(store, 7)

    assert receipt.superseded == 0
    assert store.fetch(ENTITY, keys_of(), [VIEW], BUCKETS) == before


def test_a_correction_with_the_same_event_time_reaches_the_reader(store: OnlineStore) -> None:
    push_one(store, 900, packed(7, [10])[0])

    push_one(store, 900, packed(8, [999])[0])

    value = store.fetch(ENTITY, keys_of([900]), [VIEW], BUCKETS)[0][0]
    assert value is not None
    assert CODEC.decode(value).values == {"sum_amt_7d": 999.0, "version_seen": 8}


def test_concurrent_pushers_end_in_the_newest_version(store: OnlineStore) -> None:
    shuffled = list(range(1, 25))
    Random(20261122).shuffle(shuffled)
    done: list[bool] = []

    def pusher(mine: list[int]) -> None:
        done.extend(push_until_done(store, version) for version in mine)

    threads = [threading.Thread(target=pusher, args=(shuffled[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert done == [True] * len(shuffled)
    assert versions(store) == {24}
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(24)


def test_a_tombstone_removes_the_row_and_an_older_row_does_not_come_back(
    store: OnlineStore,
) -> None:
    push(store, 7, [1])
    start = store.seals(ENTITY, VIEW, BUCKETS)

    receipt = push_one(store, 1, tombstone(9))

    assert (receipt.written, receipt.removed) == (0, 1)
    with pytest.raises(ConflictError):
        push(store, 8, [1], started_from=start)
    value = store.fetch(ENTITY, keys_of([1]), [VIEW], BUCKETS)[0][0]
    assert value is not None
    assert CODEC.decode(value).values is None


def test_two_pushes_from_the_same_seal_cannot_both_seal(store: OnlineStore) -> None:
    push(store, 7)
    start = store.seals(ENTITY, VIEW, BUCKETS)
    push(store, 9, started_from=start)

    with pytest.raises(ConflictError, match="sealed by another push"):
        push(store, 8, started_from=start)

    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(9)
    assert versions(store) == {9}


def test_rows_of_another_table_are_refused_until_the_view_is_wiped(store: OnlineStore) -> None:
    push(store, 7)

    with pytest.raises(OnlineError, match=r"Rows of another Delta table.*Wipe the view online"):
        push(store, 1, table="table-b")

    assert store.table_ids(ENTITY, VIEW, BUCKETS) == {TABLE}
    assert store.wipe(ENTITY, VIEW, BUCKETS, table_id="table-b") == len(IDS)
    assert versions(store) == {None}
    push(store, 1, table="table-b")
    assert versions(store) == {1}


def test_a_table_claims_its_buckets_before_it_has_sealed_them(store: OnlineStore) -> None:
    one = {0: Seal("table-b", 1, "", 0)}
    store.push(ENTITY, VIEW, BUCKETS, push_rows([], []), seals=one, started_from={})

    assert store.table_ids(ENTITY, VIEW, BUCKETS) == {"table-b"}
    with pytest.raises(OnlineError, match="belongs to table table-b"):
        push(store, 7, started_from={})


def test_a_wipe_leaves_the_other_views_of_the_entity(store: OnlineStore) -> None:
    push(store, 7)
    push(store, 5, view="recency")

    store.wipe(ENTITY, VIEW, BUCKETS, table_id=None)

    assert versions(store) == {None}
    assert store.table_ids(ENTITY, VIEW, BUCKETS) == set()
    assert versions(store, view="recency") == {5}
    assert store.seals(ENTITY, "recency", BUCKETS) == seals_of(5)


def test_a_seal_does_not_go_back_in_time(store: OnlineStore) -> None:
    push(store, 7)

    with pytest.raises(ConflictError, match="sealed at a newer Delta version") as refused:
        push(store, 6)

    assert "Nothing was pushed." in str(refused.value)
    assert versions(store) == {7}


def test_rows_packed_from_another_version_than_the_seal_says_are_refused(
    store: OnlineStore,
) -> None:
    rows = push_rows(keys_of(), packed(6))

    with pytest.raises(OnlineError, match="not packed from version 7"):
        store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(7), started_from={})

    assert versions(store) == {None}


def test_a_foreign_value_in_the_field_is_never_overwritten_silently(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push(store, 7, [1])
    name = next(raw.scan_iter(match=f"{store.names.namespace}:*:i1:1"))
    raw.hset(name, VIEW, b"something else")

    with pytest.raises(OnlineError, match="not packed by this layout"):
        push(store, 8, [1])


def test_all_views_of_an_entity_share_one_key_and_come_in_the_order_asked_for(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push(store, 5, [1], view="recency")
    push(store, 7, [1, 2])

    found = store.fetch(ENTITY, keys_of([2, 1, 3]), [VIEW, "recency"], BUCKETS)

    assert [[v and header_of(v).version for v in values] for values in found] == [
        [7, None],
        [7, 5],
        [None, None],
    ]
    assert len(list(raw.scan_iter(match=f"{store.names.namespace}:*:i1:1"))) == 1


def test_several_entity_types_come_in_one_call(store: OnlineStore) -> None:
    push(store, 7, [1])
    rows = push_rows([encode_key(["p-1"])], packed(3, [1]))
    seals = {0: Seal(TABLE, 3, "", 0)}
    store.push("product", "demand", 1, rows, seals=seals, started_from={})

    found = store.fetch_many(
        [
            Lookup(ENTITY, keys_of([1]), [VIEW], BUCKETS),
            Lookup("product", [], ["demand"], 1),
            Lookup("product", [encode_key(["p-1"])], ["demand"], 1),
        ]
    )

    assert found == [[packed(7, [1])], [], [packed(3, [1])]]
    assert store.fetch_many([]) == []


def test_a_scan_yields_every_row_of_the_view_and_nothing_else(store: OnlineStore) -> None:
    push(store, 7)
    push(store, 5, [1], view="recency")
    push_one(store, 900, tombstone(8))

    found = dict(store.scan(ENTITY, VIEW))

    assert found == {
        **dict(zip(keys_of(), packed(7), strict=True)),
        keys_of([900])[0]: tombstone(8),
    }


HOSTILE = [
    "a\r\nb",
    "nul\0byte",
    "*3\r\n$3\r\nDEL\r\n",
    "../../etc/passwd",
    "é",
    "e\u0301",
    "trailing ",
    "{brace}:x}",
    "}:s3:abc",
    "*?[a-z]\\",
    "",
    "1",
]


def test_hostile_text_as_keys_is_stored_under_exactly_that_key(store: OnlineStore) -> None:
    keys = [encode_key([text]) for text in HOSTILE] + [encode_key([1])]
    values = packed(7, range(len(keys)))
    rows = push_rows(keys, values)

    store.push(ENTITY, VIEW, BUCKETS, rows, seals=seals_of(7), started_from={})

    assert store.fetch(ENTITY, keys, [VIEW], BUCKETS) == [[value] for value in values]
    assert dict(store.scan(ENTITY, VIEW)) == dict(zip(keys, values, strict=True))
    assert store.wipe(ENTITY, VIEW, BUCKETS, table_id=None) == len(keys)


def test_namespaces_do_not_see_each_other(store: OnlineStore) -> None:
    push(store, 7)
    other = OnlineStore(f"redis://{store.address}", namespace=f"{store.names.namespace}:{ENTITY}")

    assert versions(other) == {None}
    assert list(other.scan(ENTITY, VIEW)) == []
    assert other.seals(ENTITY, VIEW, BUCKETS) == dict.fromkeys(range(BUCKETS))
    other.close()


def test_the_number_of_buckets_is_fixed_when_the_entity_is_first_pushed(
    store: OnlineStore,
) -> None:
    store.declare_entity(ENTITY, 64)
    store.declare_entity(ENTITY, 64)

    with pytest.raises(ConfigError, match=r"Expected 64, .*got 32\. Declare buckets=64"):
        store.declare_entity(ENTITY, 32)


def test_readers_learn_schemas_by_fingerprint(store: OnlineStore) -> None:
    other = RowCodec({"x": pl.List(pl.Date())})
    store.learn_schema(CODEC)
    store.learn_schema(other)
    store.learn_schema(CODEC)

    found = store.schemas()

    assert found == {
        CODEC.fingerprint: CODEC.schema_json,
        other.fingerprint: other.schema_json,
    }
    assert RowCodec.from_schema_json(found[other.fingerprint]).columns == other.columns


@pytest.mark.parametrize("name", ["Txn", "a:b", "", "a" * 64, "a}", "a b", "à", "../a", "a\n"])
def test_a_name_that_could_break_a_key_is_refused(store: OnlineStore, name: str) -> None:
    with pytest.raises(InputError, match="is no name of an entity"):
        store.declare_entity(name, 4)
    with pytest.raises(InputError, match="is no name of a view"):
        store.push(ENTITY, name, 1, push_rows([], []), seals=seals_of(1), started_from={})


@pytest.mark.parametrize("name", ["", "a{b", "a b", "a*", "x" * 101, "a!b"])
def test_a_namespace_that_could_break_a_key_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot begin Redis keys"):
        Names(name)


def test_rows_of_unequal_length_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="'values' of rows to push is wrong"):
        push_rows(keys_of(), packed(7, [1]))


def test_a_row_outside_the_pushed_buckets_is_refused_before_it_is_sent(store: OnlineStore) -> None:
    one = {1: seals_of(7)[1]}

    with pytest.raises(InputError, match="which this push does not seal"):
        store.push(
            ENTITY,
            VIEW,
            BUCKETS,
            push_rows(keys_of(), packed(7)),
            seals=one,
            started_from={},
        )

    assert versions(store) == {None}


def test_every_bucket_is_numbered_on_through_all_blocks_and_sealed_by_its_last_chunk() -> None:
    calls = PushCalls(
        Names("test"), shipped_library(), ENTITY, VIEW, BUCKETS, seals_of(7), started_from={}
    )
    ids = range(5000)
    blocks = [ids[:2000], ids[2000:]]

    chunks = [c for b in blocks for c in calls.rows(push_rows(keys_of(b), packed(7, b)))]
    last = calls.sealing()

    assert sum(chunk.rows for chunk in chunks) == len(ids)
    assert max(chunk.rows for chunk in chunks) <= CHUNK_ROWS
    assert [(chunk.bucket, chunk.rows) for chunk in last] == [(n, 0) for n in range(BUCKETS)]
    for bucket in range(BUCKETS):
        numbers = [chunk.number for chunk in [*chunks, *last] if chunk.bucket == bucket]
        assert numbers == list(range(1, len(numbers) + 1))


def test_blocks_of_any_size_arrive_whole(store: OnlineStore) -> None:
    ids = range(1000)
    blocks = [push_rows(keys_of(ids[at:end]), packed(7, ids[at:end])) for at, end in CUTS]

    receipt = store.push(ENTITY, VIEW, BUCKETS, iter(blocks), seals=seals_of(7), started_from={})

    assert receipt.written == len(ids)
    assert versions(store, ids) == {7}


def test_whoever_comes_second_to_a_new_view_does_not_wipe_what_the_first_has_pushed(
    store: OnlineStore,
) -> None:
    store.wipe(ENTITY, VIEW, BUCKETS, table_id=TABLE, own_rows_too=False)
    push(store, 7)

    removed = store.wipe(ENTITY, VIEW, BUCKETS, table_id=TABLE, own_rows_too=False)

    assert removed == 0

    assert versions(store) == {7}
    assert store.seals(ENTITY, VIEW, BUCKETS) == seals_of(7)
