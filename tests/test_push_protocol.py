"""The push function under every order, duplication, loss and rollback; and that the tests notice.

G2: a push never replaces the result of a newer Delta version by an older one; a seal never lies.
"""

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
    st.tuples(st.just("deliver"), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("deliver_all"), st.integers(0, 9)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("rollback")),
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
@given(events=st.lists(EVENTS, min_size=5, max_size=40))
def test_no_order_duplication_loss_or_rollback_makes_a_seal_lie(
    client: "redis.Redis", events: list[tuple[str, int]]
) -> None:
    history = History(client, shipped_library())

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


def failover_behind_the_seal_a_push_started_from(history: History) -> None:
    """An incremental push arrives at a replica that never saw what it builds on."""
    history.snapshot()
    history.plan(3)
    history.deliver_all(0)
    history.plan(4)
    history.rollback()
    history.deliver_all(1)


GUARDS = {
    "compare": "  if stored_version > version then return false end\n",
    "gap": "  if tonumber(args[5]) > last_chunk + 1 then\n",
    "seal": "  if (redis.call('HGET', bucket, args[1]) or '') ~= args[6] then\n",
}


@pytest.mark.parametrize(
    ("guard", "disabled", "story"),
    [
        ("compare", "", older_chunk_late),
        ("gap", "  if false then\n", chunks_lost_in_failover),
        ("seal", "  if false then\n", failover_behind_the_seal_a_push_started_from),
    ],
)
def test_without_each_guard_a_known_history_ends_wrong_and_with_it_right(
    client: "redis.Redis", guard: str, disabled: str, story: Callable[[History], None]
) -> None:
    assert LUA.count(GUARDS[guard]) == 1
    broken = FunctionLibrary.of(LUA.replace(GUARDS[guard], disabled))
    load(client, broken)

    story(History(client, shipped_library()))
    with pytest.raises(ViolationError):
        story(History(client, broken))

    client.function_delete(broken.name)


def test_the_newest_push_alone_ends_sealed_and_right(client: "redis.Redis") -> None:
    history = History(client, shipped_library())

    for version in (1, 4, 5, 9):
        history.plan(version)
        history.deliver_all(len(history.planned) - 1)

    assert history.sealed == {1, 4, 5, 9}


def test_a_late_chunk_of_an_older_push_is_counted_as_superseded(client: "redis.Redis") -> None:
    history = History(client, shipped_library())
    history.plan(1)
    history.plan(4)
    history.deliver(1, 0)
    history.deliver(1, 1)

    answer = client.execute_command(*history.planned[0][0])

    assert answer == [0, 0, 1, 0]
