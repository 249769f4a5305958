"""The write protocol explored as a model, and the real functions held against it.

G2, G5, G6, G8: whatever arrives late, twice, in another order or never, whichever server is lost.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from random import Random

import pytest
import redis

from lockstep.calls import FunctionLibrary, shipped_library
from lockstep.stores.server import EmbeddedServer
from tests.protocol_model import (
    at_random,
    drawn_event,
    drawn_setting,
    exhaustively,
    many_at_random,
    replay,
)
from tests.protocol_model_real import DivergenceError, Real
from tests.protocol_model_rules import SHIPPED, Rules
from tests.protocol_model_world import Commit, Setting

HISTORIES = int(os.environ.get("MODEL_HISTORIES", "2000"))
SEED = int(os.environ.get("MODEL_SEED", "20261122"))
MOST_STATES = 100_000


def commits(*days: tuple[int, set[int]]) -> tuple[Commit, ...]:
    return tuple((day, frozenset(keys)) for day, keys in days)


VANISHES = commits((0, {0, 1}), (1, {0}), (1, set()))
BETWEEN = commits((0, {1}), (0, {0, 1}), (0, {1}))
APART = commits((0, {0}), (1, {1}), (0, set()))
ONE = commits((0, {0}), (1, {0}))
REPLICA = ("replicate", None)

SETTINGS: Mapping[str, Setting] = {
    "a correction lets rows vanish, failover": Setting(
        (VANISHES,), now=2, plans=2, faults=(REPLICA, ("failover", 1))
    ),
    "a revision between, three pushes": Setting((BETWEEN,)),
    "days apart, failover": Setting((APART,), now=2, plans=2, faults=(REPLICA, ("failover", 1))),
    "a bucket's hash is evicted": Setting((VANISHES,), now=2, plans=2, faults=(("forget", 1),)),
    "a row is evicted, a flush": Setting(
        (APART,), now=2, plans=2, faults=(("evict", 1), ("flush", 1))
    ),
    "two shards, failover": Setting(
        (APART,), now=2, plans=2, buckets=2, shards=2, faults=(("replicate", 1), ("failover", 1))
    ),
    "days end and rows expire": Setting((VANISHES,), plans=2, ttl=1, faults=(("tick", 3),)),
    "another table takes its place": Setting(
        (VANISHES[:2], APART[:2]), now=2, plans=2, faults=(("swap", 1), REPLICA, ("failover", 1))
    ),
    "nobody has begun, two wipers and a rebuild": Setting(
        (ONE,), keys=1, plans=2, now=2, begun=False, stepwise=True, faults=(("rebuild", 1),)
    ),
    "a wipe's calls come late": Setting(
        (ONE,),
        keys=1,
        plans=2,
        pushers=1,
        now=2,
        stepwise=True,
        faults=(("again", 1), ("rebuild", 2)),
    ),
    "failover while it is rebuilt": Setting(
        (ONE,),
        keys=1,
        plans=2,
        pushers=1,
        now=2,
        stepwise=True,
        faults=(REPLICA, ("failover", 1), ("rebuild", 1)),
    ),
    "failover while a table is wiped": Setting(
        (ONE, ONE[:1]),
        keys=1,
        plans=2,
        now=2,
        stepwise=True,
        faults=(("swap", 1), ("replicate", 1), ("failover", 1)),
    ),
    "failover of a shard while a table is wiped": Setting(
        (ONE, ONE[:1]),
        keys=2,
        buckets=2,
        shards=2,
        plans=2,
        pushers=1,
        now=2,
        stepwise=True,
        faults=(("swap", 1), ("replicate", 1), ("failover", 1)),
    ),
}

# Guard taken away → the setting in which that is found out.
MUTATIONS: Mapping[str, tuple[Rules, str]] = {
    "order by (day, revision) instead of the table's version": (
        SHIPPED._replace(by_version=False),
        "a correction lets rows vanish, failover",
    ),
    "seals kept apart from rows": (SHIPPED._replace(seals_with_rows=False), "days apart, failover"),
    "no gap is refused": (SHIPPED._replace(refuse_gap=False), "days apart, failover"),
    "seals are not compared": (SHIPPED._replace(compare_seal=False), "days apart, failover"),
    "rows are never compared": (
        SHIPPED._replace(heed_newest=False),
        "a revision between, three pushes",
    ),
    "any push says that nothing is newer": (
        SHIPPED._replace(newest_by_wipe=False),
        "a bucket's hash is evicted",
    ),
    "no tombstones": (SHIPPED._replace(tombstones=False), "a revision between, three pushes"),
    "revisions since the seal are forgotten": (
        SHIPPED._replace(every_revision=False),
        "a revision between, three pushes",
    ),
    "any wipe finishes any other": (SHIPPED._replace(name_wipes=False), "a wipe's calls come late"),
    "a wipe does not notice that a call was lost": (
        SHIPPED._replace(count_wipes=False),
        "failover while it is rebuilt",
    ),
    "the clock is read before the head": (
        SHIPPED._replace(clock_after_head=False),
        "days end and rows expire",
    ),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_no_history_of_a_small_world_ends_in_a_violation(name: str) -> None:
    explored = exhaustively(SETTINGS[name], SHIPPED, most_states=MOST_STATES)

    assert explored.found is None, f"\n{explored.found}"
    assert explored.whole


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_without_a_guard_the_shortest_history_that_needs_it_is_found(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    mutated, where = MUTATIONS[name]

    explored = exhaustively(SETTINGS[where], mutated, most_states=MOST_STATES)

    assert explored.found is not None
    record_property("counterexample", str(explored.found))
    assert replay(SETTINGS[where], SHIPPED, explored.found.history) is None


def test_thousands_of_long_histories_on_two_shards_end_in_no_violation() -> None:
    found = many_at_random(SEED, HISTORIES, length=70)

    assert found is None, f"\n{found}"


def test_the_known_limit_is_a_bucket_hash_evicted_alone_while_another_table_takes_its_place() -> (
    None
):
    """A late push of the former table finds a bucket that belongs to nobody, and takes it.

    Only that bucket's seal is wrong, and it names the former table or is behind a claim of it, so
    the next push or reconcile wipes it; servers that evict are refused unless told. To take pushes
    in buckets that were wiped for their table only would close it.
    """
    setting = SETTINGS["another table takes its place"]._replace(
        faults=(("swap", 1), ("forget", 1))
    )

    shipped = exhaustively(setting, SHIPPED, most_states=MOST_STATES)
    stricter = exhaustively(setting, SHIPPED._replace(claimed_only=True), most_states=MOST_STATES)

    assert shipped.found is not None
    assert (stricter.found, stricter.whole) == (None, True)


def test_a_counterexample_is_made_short_and_printed_an_event_a_line() -> None:
    random = Random(1)
    mutated = SHIPPED._replace(heed_newest=False)
    settings = (drawn_setting(random) for _ in range(200))
    found = next(filter(None, (at_random(s, mutated, random, 90) for s in settings)))

    assert len(found.history) <= 16
    assert str(found).count("\n") == len(found.history)
    assert "went from version" in str(found)


@pytest.fixture
def client(shared_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(shared_server.url, protocol=2) as opened:
        opened.function_load(shipped_library().source, replace=True)
        yield opened


def drive(client: "redis.Redis", library: FunctionLibrary, histories: int, length: int) -> int:
    """Drive the model's random histories against the server; returns the number of events."""
    events = 0
    for n in range(histories):
        random = Random(f"{SEED}:{n}")
        faults = drawn_setting(random)
        bounded = tuple(f for f in faults.faults if f[0] not in {"tick", "reconcile"})
        ttl = None if faults.ttl is None else 50
        real = Real(client, library, faults._replace(stepwise=True, faults=bounded, ttl=ttl))
        for _ in range(length):
            real.happen(drawn_event(real.world, random))
        events += length
        real.clean()
    return events


def test_the_functions_do_what_the_model_does_after_every_event(client: "redis.Redis") -> None:
    assert drive(client, shipped_library(), 60, 60) == 3600


@pytest.mark.parametrize(
    ("guard", "instead"),
    [
        ("tonumber(args[5]) > last_chunk + 1", "false"),
        ("VERSIONS > version", "VERSIONS >= version"),
        ("if not newest or newest > version then", "if not newest then"),
    ],
)
def test_functions_that_do_something_else_are_told_from_the_model(
    client: "redis.Redis", guard: str, instead: str
) -> None:
    source = shipped_library().source.replace(shipped_library().name, "lockstep_v1")
    assert source.count(guard) == 1
    other = FunctionLibrary.of(source.replace(guard, instead))
    client.function_load(other.source, replace=True)

    with pytest.raises(DivergenceError):
        drive(client, other, 400, 60)

    client.function_delete(other.name)
