"""Parity tells what differs and why: every kind, each cause injected on a real server, samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from lockstep.codec import bucket_of, encode_key, header_of
from lockstep.differing import Cause, Kind
from lockstep.parity import Parity, parity, valid_rows
from lockstep.view import FeatureView
from tests.scenario import USER
from tests.test_g8_parity import DAYS, History, begin

PEOPLE = list(range(1, 41))


@dataclass
class Shop:
    """A view whose day 2 is committed and pushed for forty users."""

    history: History
    client: redis.Redis

    def look(self, view: FeatureView | None = None) -> Parity:
        made = self.history.made
        online = made.store.online_store
        return parity(made.store.lake, online, view or self.history.view, made.clock.now)

    def key(self, user: int) -> bytes:
        name = encode_key([user])
        names = self.history.made.store.online_store.names
        return names.entity_key("user", bucket_of(name, USER.buckets), name)

    def stored(self, user: int) -> bytes:
        found = self.client.hget(self.key(user), "both")
        assert isinstance(found, bytes)
        return found

    def write(self, user: int, value: bytes) -> None:
        """Write behind Lockstep's back."""
        self.client.hset(self.key(user), "both", value)

    def sampling(self, limit: int) -> FeatureView:
        view = self.history.view
        return replace(view, contract=replace(view.contract, parity=limit))


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Shop]:
    history = begin(tmp_path, redis_url)
    history.commit(2, dict.fromkeys(PEOPLE, 10.0))
    history.push()
    with redis.Redis.from_url(redis_url) as client:
        yield Shop(history, client)


def foreign_bytes(shop: Shop) -> None:
    shop.write(1, b"{}")


def foreign_row(shop: Shop) -> None:
    value = bytearray(shop.stored(1))
    value[-1] ^= 1
    shop.write(1, bytes(value))


def newer_than_delta(shop: Shop) -> None:
    value = shop.stored(1)
    shop.write(1, value[:1] + b"\x00\x03\xe7" + value[4:-1] + bytes([value[-1] ^ 1]))


def lost(shop: Shop) -> None:
    shop.client.delete(shop.key(1))


def removed_by_somebody(shop: Shop) -> None:
    shop.write(1, bytes([shop.stored(1)[0] | 0x40]) + shop.stored(1)[1:16])


def not_pushed(shop: Shop) -> None:
    shop.history.commit(2, {**dict.fromkeys(PEOPLE, 10.0), 1: 11.0})


def new_user_not_pushed(shop: Shop) -> None:
    shop.history.commit(2, {**dict.fromkeys(PEOPLE, 10.0), 99: 11.0})


def removal_not_pushed(shop: Shop) -> None:
    shop.history.commit(2, dict.fromkeys(PEOPLE[1:], 10.0))


def torn_push(shop: Shop) -> None:
    shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))
    shop.history.tear()


def put_back(shop: Shop) -> None:
    before = shop.stored(1)
    shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))
    shop.history.push()
    shop.write(1, before)


def nobody_s_row(shop: Shop) -> None:
    shop.write(77, shop.stored(1))


def expired(shop: Shop) -> None:
    shop.history.advance(50)
    shop.history.commit(4, dict.fromkeys(PEOPLE, 12.0))
    shop.history.advance(24)


CASES: dict[str, tuple[Callable[[Shop], None], Kind, Cause]] = {
    "bytes that are no row": (foreign_bytes, "mismatch", "another writer"),
    "a row with another value": (foreign_row, "mismatch", "another writer"),
    "a row of a version that Delta does not have": (newer_than_delta, "mismatch", "another writer"),
    "a deleted key": (lost, "missing", "deleted"),
    "a correction that was not pushed": (not_pushed, "stale", "not pushed"),
    "a new entity that was not pushed": (new_user_not_pushed, "missing", "not pushed"),
    "a removal that was not pushed": (removal_not_pushed, "extra", "not pushed"),
    "a push that died halfway": (torn_push, "stale", "partial push"),
    "an older row after the push": (put_back, "stale", "put back"),
    "a row of an entity that Delta does not have": (nobody_s_row, "extra", "another writer"),
    "a row that expired before the next was pushed": (expired, "missing", "expired"),
}


@pytest.mark.parametrize(("inject", "kind", "cause"), CASES.values(), ids=CASES.keys())
def test_every_injected_cause_is_told_with_its_kind(
    shop: Shop, inject: Callable[[Shop], None], kind: Kind, cause: Cause
) -> None:
    """Rows carry their day's revision, so every other row of a restated day is stale as well."""
    assert shop.look().holds

    inject(shop)
    found = shop.look()

    assert not found.holds
    told = {example.kind: example.cause for example in found.examples}
    assert cause == told.pop(kind)
    assert {} == {k: c for k, c in told.items() if (k, c) != ("stale", "not pushed")}
    counts = (found.mismatch, found.missing, found.extra, found.stale)
    assert getattr(found, kind) >= 1
    assert sum(counts) == found.entities - found.equal
    assert "Likely cause: " in found.sentence
    assert found.cause in found.sentence
    assert "Repair: lockstep push both" in found.sentence


def test_an_evicting_server_is_told_apart_from_deleted_rows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = shop.history.made.store.online_store
    dropping = {
        name: replace(info, maxmemory_policy="allkeys-lru", evicted_keys=3)
        for name, info in online.nodes().items()
    }
    monkeypatch.setattr(online, "nodes", lambda: dropping)
    lost(shop)

    found = shop.look()

    assert ("missing", "evicted") == (found.examples[0].kind, found.examples[0].cause)
    assert "evicted keys" in found.sentence


def test_several_kinds_are_counted_apart_and_each_has_examples(shop: Shop) -> None:
    foreign_row(shop)
    nobody_s_row(shop)
    for user in (2, 3, 4):
        shop.client.delete(shop.key(user))

    found = shop.look()

    assert (1, 3, 1, 0) == (found.mismatch, found.missing, found.extra, found.stale)
    assert ["mismatch", "missing", "missing", "extra"] == [e.kind for e in found.examples]
    assert found.cause.startswith("rows were deleted")


@pytest.mark.parametrize("limit", [5, 15, 30])
def test_a_sample_finds_of_its_entities_what_the_whole_comparison_finds(
    shop: Shop, limit: int
) -> None:
    foreign_row(shop)
    foreign_bytes(shop)
    for user in range(2, 20, 2):
        shop.client.delete(shop.key(user))
    for user in range(50, 90):
        shop.write(user, shop.stored(21))
    whole, view = shop.look(), shop.sampling(limit)

    found = shop.look(view)
    again = shop.look(view)

    assert found == again
    assert found.sampled is not None
    assert 0 < found.sampled < 40 == found.of
    assert found.missing < whole.missing
    assert found.extra < whole.extra
    assert 0 < found.extra
    assert found.mismatch <= whole.mismatch
    assert f"(a sample of {found.of})" in found.sentence


def test_of_all_samples_together_nothing_is_left_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every wrong entity is told exactly where the hash chooses it."""
    monkeypatch.setattr("lockstep.parity.EXAMPLES", 1_000)
    for user in range(2, 20, 2):
        shop.client.delete(shop.key(user))
    for user in range(50, 90):
        shop.write(user, shop.stored(21))
    whole = {(example.kind, example.key) for example in shop.look().examples}
    view, seen = shop.sampling(20), set()

    for days in range(30):
        found = parity(
            shop.history.made.store.lake,
            shop.history.made.store.online_store,
            replace(view, contract=replace(view.contract, ttl=None)),
            shop.history.made.clock.now + timedelta(days=days),
        )
        told = {(example.kind, example.key) for example in found.examples}
        assert told <= whole
        seen |= told

    assert whole == seen


def test_a_sample_that_agrees_says_that_it_is_one(shop: Shop) -> None:
    found = shop.look(shop.sampling(10))

    assert found.holds
    assert found.entities == found.sampled
    assert f"for a sample of {found.sampled} of 40 entities" in found.sentence
    assert shop.look().sampled is None
    assert shop.look(shop.sampling(40)).sampled is None


def test_only_so_many_keys_are_walked_for_those_that_are_online_only(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_s_row(shop)
    monkeypatch.setattr("lockstep.parity.SCAN_CALLS", 0)

    found = shop.look(shop.sampling(39))

    assert (0, 0) == (found.extra, found.missing)


def test_the_version_is_no_difference(shop: Shop) -> None:
    shop.history.commit(1, {1: 1.0})
    shop.history.push()
    shop.history.commit(2, {**dict.fromkeys(PEOPLE, 10.0), 40: 12.0})
    shop.history.push()

    assert shop.look().holds
    assert header_of(shop.stored(1)).day == DAYS[2]


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None], *, times: int) -> None:
    """Let something happen between the reading of Delta and that of Redis, so many times."""
    left = [times]

    def read(*words: Any, **named: Any) -> pl.DataFrame:
        rows = valid_rows(*words, **named)
        if left[0]:
            left[0] -= 1
            happens()
        return rows

    monkeypatch.setattr("lockstep.parity.valid_rows", read)


def test_a_correction_that_is_pushed_while_both_are_compared_is_no_difference(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrected() -> None:
        shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))
        shop.history.push()

    meanwhile(monkeypatch, corrected, times=1)

    assert shop.look().holds


def test_a_push_that_ends_between_the_reading_of_rows_and_seals_is_no_difference(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = shop.history.made.store.online_store
    read = online.scan
    shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))

    def pushed_after(entity: str, view: str) -> list[tuple[bytes, bytes]]:
        rows = list(read(entity, view))
        shop.history.push()
        return rows

    monkeypatch.setattr(online, "scan", pushed_after)

    assert shop.look().holds


def test_where_something_is_pushed_during_each_comparison_nobody_is_blamed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(range(20, 40))

    def corrected() -> None:
        shop.history.commit(2, dict.fromkeys(PEOPLE, float(next(values))))
        shop.history.push()

    meanwhile(monkeypatch, corrected, times=9)
    found = shop.look()

    assert 23 == next(values), "three comparisons, and no more"
    assert (False, True, False) == (found.holds, found.moving, found.waits)
    assert {"moving"} == {example.cause for example in found.examples}
    assert "it was committed to or pushed each time that it was compared" in found.sentence
    assert found.sentence.endswith("Compare again: lockstep parity both")
    assert "--rebuild" not in found.sentence


def test_a_difference_that_is_there_is_told_beside_something_that_moves_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrected() -> None:
        shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))
        shop.history.push()
        foreign_row(shop)

    meanwhile(monkeypatch, corrected, times=1)
    found = shop.look()

    assert (1, False) == (found.mismatch, found.moving)
    assert "another writer" == found.examples[0].cause


def test_days_wait_for_their_push_half_an_hour_after_the_newest_was_committed(shop: Shop) -> None:
    shop.history.advance(24)
    shop.history.commit(1, {1: 1.0})
    shop.history.made.clock.now += timedelta(minutes=29)
    shop.history.commit(2, dict.fromkeys(PEOPLE, 11.0))
    shop.history.made.clock.now += timedelta(minutes=29)

    waits = shop.look()
    assert (False, True, True) == (waits.holds, waits.waits, waits.pushed)
    assert "2 days are committed and not pushed yet (2026-03-02..2026-03-03)" in waits.waiting
    assert "2 days are committed and not pushed yet" in waits.sentence
    assert "40 of 40 entities are served as they were before" in waits.waiting

    shop.history.made.clock.now += timedelta(minutes=1)
    assert not shop.look().waits


def test_commits_that_never_end_hide_no_push_that_never_comes(shop: Shop) -> None:
    shop.history.advance(24)
    waited = []
    for number in range(21):
        shop.history.commit(min(number, 1), {1: float(number)})
        waited.append(shop.look().waits)
        shop.history.made.clock.now += timedelta(minutes=20)

    assert [True] * 18 + [False] * 3 == waited


@pytest.mark.parametrize(
    "inject", [foreign_bytes, lost, removed_by_somebody, torn_push], ids=lambda each: each.__name__
)
def test_what_no_push_explains_is_not_waited_for(
    shop: Shop, inject: Callable[[Shop], None]
) -> None:
    shop.history.commit(1, {1: 1.0})
    assert shop.look().waits

    inject(shop)

    assert not shop.look().waits


def test_buckets_without_a_seal_beside_others_are_not_waited_for(shop: Shop) -> None:
    names = shop.history.made.store.online_store.names.namespace
    seals = list(shop.client.scan_iter(f"{names}:*!seal"))

    shop.client.delete(seals[0])
    part = shop.look()
    shop.client.delete(*seals)
    nothing = shop.look()

    assert 1 < len(seals)
    assert (False, True, False) == (part.waits, part.pushed, nothing.pushed)
