"""The push function under every order, duplication, loss and rollback; and that the tests notice.

G2: a push never replaces the result of a newer Delta version by an older one; a seal never lies.
"""

import re
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.calls import FunctionLibrary, shipped_library
from lockstep.stores.server import EmbeddedServer
from tests.push_history import History, ViolationError

LUA = files("lockstep.stores").joinpath("lockstep.lua").read_text("utf-8")

EVENTS = st.one_of(
    st.tuples(st.just("plan"), st.integers(1, 9)),
    st.tuples(st.just("deliver"), st.integers(0, 9), st.integers(0, 3)),
    st.tuples(st.just("deliver_all"), st.integers(0, 9)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("forget")),
    st.tuples(st.just("wipe")),
)


@pytest.fixture
def client(shared_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(shared_server.url, protocol=2) as opened:
        load(opened, shipped_library())
        yield opened


def load(client: "redis.Redis", library: FunctionLibrary) -> None:
    client.function_load(library.source, replace=True)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wiped=st.booleans(), events=st.lists(EVENTS, min_size=5, max_size=40))
def test_no_order_duplication_loss_or_rollback_makes_a_seal_lie(
    client: "redis.Redis", wiped: bool, events: list[tuple[str, int]]
) -> None:
    history = History(client, shipped_library(), wiped)

    for name, *arguments in events:
        getattr(history, name)(*arguments)

    client.delete(*history.redis_keys())


def older_chunk_late(history: History) -> None:
    """Two pushes under way, the older one's chunk arrives last."""
    history.plan(1)
    history.plan(4)
    history.deliver(1, 0)
    history.deliver(1, 1)
    history.deliver(0, 0)


def chunks_lost_in_failover(history: History) -> None:
    """A replica that missed the first chunks is promoted before the last one."""
    history.plan(3)
    history.snapshot()
    history.deliver(0, 0)
    history.deliver(0, 1)
    history.rollback()
    history.deliver(0, 2)
    history.deliver(0, 3)


def failover_behind_the_seal_a_push_started_from(history: History) -> None:
    """An incremental push arrives at a replica that never saw what it builds on."""
    history.snapshot()
    history.plan(3)
    history.deliver_all(0)
    history.plan(4)
    history.rollback()
    history.deliver_all(1)


def the_hash_alone_is_evicted_and_an_older_push_arrives_twice(history: History) -> None:
    """Who takes the first version that arrives for the newest one overwrites newer rows."""
    history.plan(3)
    history.plan(4)
    history.deliver(1, 0)
    history.forget()
    history.deliver(0, 0)
    history.deliver(0, 0)


def a_push_ends_in_an_error_and_an_older_chunk_arrives(history: History) -> None:
    """Somebody keeps a text under the name of an entity: the rows before it were written."""
    history.plan(3)
    history.plan(4, chunk_rows=3)
    history.client.set(history.redis_key(1), "not ours")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        history.deliver(1, 0)
    history.check()
    history.deliver(0, 0)


def a_wipe_that_ended_finishes_again_in_another_one(history: History) -> None:
    """Its last call comes late, when rows are there again and another process removes them."""
    era = history.wipe_step("a", "begin")
    history.wipe_step("a", "finish", era, 1)
    history.plan(3)
    history.plan(4)
    history.deliver(1, 0)
    history.wipe_step("b", "begin")
    history.wipe_step("a", "finish", era, 1)
    history.deliver(0, 0)


def a_wipe_loses_a_step_in_failover(history: History) -> None:
    """The replica saw it begin and never saw the rows go."""
    history.plan(3)
    history.plan(4)
    history.deliver(1, 0)
    era = history.wipe_step("a", "begin")
    history.snapshot()
    history.wipe_step("a", "rows", era, 1)
    history.rollback()
    history.wipe_step("a", "finish", era, 2)
    history.deliver(0, 0)


Story = Callable[[History], None]
CALL = r"(?:redis\.)?call"
NEWEST = (
    rf"  if newest and version > newest then {CALL}\('HSET', bucket, 'newest:' .. view, args\[3\]\)"
)
BEGUN_BY_A_PUSH = """\
  if not newest or version > newest then
    redis.call('HSET', bucket, 'newest:' .. view, args[3])"""
GUARDS: dict[str, tuple[str, str, list[Story]]] = {
    "compare": (
        r"struct\.unpack\('>I4', stored\) % VERSIONS > version",
        "false",
        [the_hash_alone_is_evicted_and_an_older_push_arrives_twice, older_chunk_late],
    ),
    "gap": (
        r"  if tonumber\(args\[5\]\) > last_chunk \+ 1 then\n",
        "  if false then\n",
        [chunks_lost_in_failover],
    ),
    "seal": (
        rf"  if \({CALL}\('HGET', bucket, args\[1\]\) or ''\) ~= args\[6\] then\n",
        "  if false then\n",
        [failover_behind_the_seal_a_push_started_from],
    ),
    "rows are compared if they may be older than the newest": (
        "if not newest or newest > version then",
        "if not newest then",
        [older_chunk_late],
    ),
    "rows are compared if nobody knows the newest": (
        "if not newest or newest > version then",
        "if newest and newest > version then",
        [the_hash_alone_is_evicted_and_an_older_push_arrives_twice],
    ),
    "every newer push is the newest": (
        NEWEST,
        "  if false then redis.call('PING')",
        [older_chunk_late],
    ),
    "only a wipe begins it": (
        NEWEST,
        BEGUN_BY_A_PUSH,
        [the_hash_alone_is_evicted_and_an_older_push_arrives_twice],
    ),
    "it is kept before the rows are": (
        rf"({NEWEST} end\n)(  local counts = [^\n]*\n)",
        r"\2\1",
        [a_push_ends_in_an_error_and_an_older_chunk_arrives],
    ),
    "a wipe's calls count for that wipe only": (
        r"found\.era == args\[5\] and found\.steps\[wiper\]",
        "(found.steps and 0)",
        [a_wipe_that_ended_finishes_again_in_another_one],
    ),
    "a wipe's calls are counted": (
        r"number > last \+ 1",
        "false",
        [a_wipe_loses_a_step_in_failover],
    ),
}


@pytest.mark.parametrize(
    ("guard", "story"), [(guard, story) for guard, (*_, all_) in GUARDS.items() for story in all_]
)
def test_without_each_guard_a_known_history_ends_wrong_and_with_it_right(
    client: "redis.Redis", guard: str, story: Story
) -> None:
    found, instead, _ = GUARDS[guard]
    broken_lua, times = re.subn(found, instead, LUA)
    assert times == 1
    broken = FunctionLibrary.of(broken_lua)
    load(client, broken)

    story(History(client, shipped_library()))
    with pytest.raises(ViolationError):
        story(History(client, broken))

    client.function_delete(broken.name)


@pytest.mark.parametrize("wiped", [True, False])
def test_the_newest_push_alone_ends_sealed_and_right(client: "redis.Redis", wiped: bool) -> None:
    history = History(client, shipped_library(), wiped)

    for version in (1, 4, 5, 9):
        history.plan(version)
        history.deliver_all(len(history.planned) - 1)

    assert history.sealed == {1, 4, 5, 9}


@pytest.mark.parametrize("wiped", [True, False])
def test_a_late_chunk_of_an_older_push_is_counted_as_superseded(
    client: "redis.Redis", wiped: bool
) -> None:
    history = History(client, shipped_library(), wiped)
    history.plan(1)
    history.plan(4)
    history.deliver(1, 0)
    history.deliver(1, 1)

    assert history.deliver(0, 0) == [0, 0, 1, 0]


def test_a_bucket_knows_its_newest_version_from_a_wipe_until_its_hash_is_lost(
    client: "redis.Redis",
) -> None:
    history = History(client, shipped_library())
    known = [history.newest()]
    for version in (4, 1):
        history.plan(version)
        history.deliver(len(history.planned) - 1, 0)
        known.append(history.newest())
    history.forget()
    history.plan(9)
    history.deliver_all(2)

    assert [*known, history.newest()] == [0, 4, 4, None]


def test_what_another_program_keeps_under_our_name_is_not_overwritten(
    client: "redis.Redis",
) -> None:
    history = History(client, shipped_library())
    history.plan(1)
    history.client.set(history.redis_key(1), "not ours")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        history.deliver_all(0)

    assert client.get(history.redis_key(1)) == b"not ours"
    assert history.seal() is None
