"""When an entity's key goes: with the longest of its views, never earlier, and never by a push."""

import pytest
import redis

from lockstep.codec import bucket_of, encode_key
from lockstep.stores.redis import OnlineStore
from tests.online_rows import BUCKETS, ENTITY, FAR, VIEW, keys_of, packed, push_one, tombstone

HOUR_MS = 3_600_000
PAST = 1_000
OTHER = "recency"


def expiry(store: OnlineStore, raw: "redis.Redis", key: int = 1) -> int:
    """When the entity's key goes, in ms since 1970; -1 never, -2 there is no such key."""
    found = list(raw.scan_iter(match=f"{store.names.namespace}:*:{encode_key([key]).decode()}"))
    return int(raw.pexpiretime(found[0])) if found else -2


def bucket_of_one() -> int:
    return bucket_of(keys_of([1])[0], BUCKETS)


def server_ms(raw: "redis.Redis") -> int:
    seconds, microseconds = raw.time()
    return seconds * 1000 + microseconds // 1000


def row(version: int = 1) -> bytes:
    return packed(version, [1])[0]


def test_a_new_key_goes_exactly_when_its_row_says(store: OnlineStore, raw: "redis.Redis") -> None:
    push_one(store, 1, row(), FAR)

    assert expiry(store, raw) == FAR


def test_a_later_expiry_moves_the_key_upward(store: OnlineStore, raw: "redis.Redis") -> None:
    push_one(store, 1, row(), FAR)

    push_one(store, 1, row(), FAR + 5, view=OTHER)

    assert expiry(store, raw) == FAR + 5


def test_a_shorter_view_never_shortens_the_key(store: OnlineStore, raw: "redis.Redis") -> None:
    push_one(store, 1, row(), FAR)

    push_one(store, 1, row(), FAR - 5, view=OTHER)

    assert expiry(store, raw) == FAR


def test_a_newer_row_of_the_same_view_never_shortens_the_key(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(1), FAR)

    push_one(store, 1, row(2), FAR - 5)

    assert expiry(store, raw) == FAR


def test_a_view_without_ttl_keeps_a_new_key_for_ever(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(), 0)

    assert expiry(store, raw) == -1


def test_a_view_without_ttl_keeps_a_key_that_would_have_gone(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(), FAR)

    push_one(store, 1, row(), 0, view=OTHER)

    assert expiry(store, raw) == -1


def test_a_view_with_ttl_does_not_end_a_key_kept_for_ever(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(), 0)

    push_one(store, 1, row(), FAR, view=OTHER)

    assert expiry(store, raw) == -1


def test_a_row_that_is_rejected_as_older_does_not_move_the_expiry(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(5), FAR)
    for bucket in range(BUCKETS):
        raw.hdel(store.names.bucket_key(ENTITY, bucket), VIEW)

    receipt = push_one(store, 1, row(4), FAR + 5)

    assert receipt.superseded == 1
    assert expiry(store, raw) == FAR


def test_an_expiry_in_the_past_never_deletes_the_other_views(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(), FAR)

    receipt = push_one(store, 1, row(), PAST, view=OTHER)

    assert (receipt.written, receipt.expired) == (1, 1)
    assert expiry(store, raw) == FAR
    assert store.fetch(ENTITY, keys_of([1]), [VIEW, OTHER], BUCKETS) == [[row(), row()]]


@pytest.mark.parametrize("value", [row(7), tombstone(7)])
def test_what_arrives_expired_on_a_new_key_stays_an_hour_to_beat_older_rows(
    store: OnlineStore, raw: "redis.Redis", value: bytes
) -> None:
    before = server_ms(raw)

    receipt = push_one(store, 1, value, PAST)

    assert receipt.expired == 1
    assert before + HOUR_MS <= expiry(store, raw) <= server_ms(raw) + HOUR_MS
    assert store.fetch(ENTITY, keys_of([1]), [VIEW], BUCKETS) == [[value]]


def test_a_key_whose_time_has_come_takes_all_its_views_along(
    store: OnlineStore, raw: "redis.Redis"
) -> None:
    push_one(store, 1, row(), FAR)
    push_one(store, 1, row(), FAR, view=OTHER)
    name = store.names.entity_key(ENTITY, bucket_of_one(), keys_of([1])[0])

    raw.pexpireat(name, PAST)

    assert store.fetch(ENTITY, keys_of([1]), [VIEW, OTHER], BUCKETS) == [[None, None]]
