"""Which node of a cluster is asked for what, from real answers to CLUSTER SLOTS; no connection."""

from collections.abc import Sequence
from typing import Any

import hiredis
import pytest

from lockstep.errors import OnlineError
from lockstep.stores.address import Address
from lockstep.stores.resp import ASKING, Batch, command
from lockstep.stores.routing import Part, Refresh, Topology, exchange

HOME = Address.parse("redis://user:pw@10.0.0.1:7000")
# As Valkey 9 and Redis 7 answer: first and last slot, then primary and replicas, each with
# preferred endpoint, port, id and metadata.
SLOTS = [
    [0, 5460, [b"127.0.0.1", 7001, b"a" * 40, []], [b"127.0.0.1", 7004, b"d" * 40, []]],
    [5461, 10922, [b"", 7002, b"b" * 40, []]],
    [10923, 16000, [b"127.0.0.1", 7003, b"c" * 40, [b"hostname", b"redis-3"]]],
    [16001, 16383, [b"127.0.0.1", 7001, b"a" * 40, []]],
]
A, B, C = (
    HOME.node(host, port)
    for host, port in [("127.0.0.1", 7001), ("10.0.0.1", 7002), ("127.0.0.1", 7003)]
)
CLUSTER = Topology.of(SLOTS, HOME)


def batch(*slots: int) -> Batch:
    """One command per slot, which names its position."""
    return Batch([command(b"GET", b"%d" % at) for at in range(len(slots))], lambda: slots)


def error(text: str) -> hiredis.ReplyError:
    return hiredis.ReplyError(text)


def run(steps: Any, *answers: Any) -> tuple[list[Any], Any]:
    """What the steps asked for, and what they returned after those answers."""
    asked = [next(steps)]
    for answer in answers:
        try:
            asked.append(steps.send(answer))
        except StopIteration as done:
            return asked, done.value
    pytest.fail(f"it asked for {asked[-1]}")


def parts(*expected: tuple[Address, Sequence[int], str]) -> list[Part]:
    made = []
    for node, positions, prefix in expected:
        packed = b"".join(prefix.encode() + command(b"GET", b"%d" % at) for at in positions)
        made.append(Part(node, packed, len(positions) * (2 if prefix else 1)))
    return made


def test_slots_belong_to_primaries_and_a_nameless_node_is_the_one_asked() -> None:
    assert (A, B, C) == CLUSTER.nodes
    assert [A, A, B, C, C, A] == [CLUSTER.owner(at) for at in (0, 5460, 5461, 10923, 16000, 16383)]
    assert {"pw"} == {node.password for node in CLUSTER.nodes}


def test_a_cluster_without_nodes_is_an_error() -> None:
    with pytest.raises(OnlineError, match="CLUSTERDOWN"):
        Topology.of([], HOME)
    with pytest.raises(OnlineError, match="does not allow"):
        Topology.of(error("NOPERM no"), HOME)


def test_a_single_server_gets_everything_in_one_write() -> None:
    asked, answer = run(
        exchange(batch(1, 2, 3), Topology((HOME,))), [[b"a", None, error("WRONGTYPE x")]]
    )

    assert [parts((HOME, [0, 1, 2], ""))] == asked
    assert [b"a", None] == answer[:2]
    assert "WRONGTYPE x" == str(answer[2])


def test_commands_go_to_their_owners_at_once_and_answers_come_back_in_order() -> None:
    asked, answer = run(exchange(batch(0, 6000, 1, 11000), CLUSTER), [[b"0", b"2"], [b"1"], [b"3"]])

    assert [parts((A, [0, 2], ""), (B, [1], ""), (C, [3], ""))] == asked
    assert [b"0", b"1", b"2", b"3"] == answer


def test_a_moved_slot_is_looked_up_again_and_asked_for_once_more() -> None:
    now = Topology.of([[0, 16383, [b"127.0.0.1", 7003, b"c" * 40]]], HOME)
    moved = error("MOVED 1 127.0.0.1:7003")

    asked, answer = run(exchange(batch(0, 1), CLUSTER), [[b"0", moved]], now, [[b"1"]])

    assert [parts((A, [0, 1], "")), Refresh(CLUSTER.nodes), parts((C, [1], ""))] == asked
    assert [b"0", b"1"] == answer


def test_a_slot_under_way_is_asked_for_where_it_goes() -> None:
    ask = error("ASK 1 127.0.0.1:7003")

    asked, answer = run(exchange(batch(0, 1), CLUSTER), [[b"0", ask]], CLUSTER, [[b"OK", b"1"]])

    assert parts((C, [1], ASKING.decode())) == asked[2]
    assert [b"0", b"1"] == answer


@pytest.mark.parametrize("text", ["MOVED 1 127.0.0.1:7003", "TRYAGAIN later"])
def test_what_moves_on_twice_is_an_error(text: str) -> None:
    steps = exchange(batch(0), CLUSTER)

    with pytest.raises(OnlineError, match=text.split(maxsplit=1)[0]):
        run(steps, [[error(text)]], CLUSTER, [[error(text)]])


def test_the_part_of_a_lost_node_is_sent_once_more_after_looking_around() -> None:
    gone = OnlineError("gone")
    now = Topology.of([[0, 16383, [b"127.0.0.1", 7004, b"d" * 40]]], HOME)

    asked, answer = run(exchange(batch(0, 6000), CLUSTER), [gone, [b"1"]], now, [[b"0"]])

    assert parts((HOME.node("127.0.0.1", 7004), [0], "")) == asked[2]
    assert [b"0", b"1"] == answer
    with pytest.raises(OnlineError, match="gone"):
        run(exchange(batch(0), CLUSTER), [gone], CLUSTER, [gone])


def test_a_slot_that_nobody_serves_is_looked_for_and_then_an_error() -> None:
    holes = Topology.of([[0, 5, [b"127.0.0.1", 7001, b"a" * 40]]], HOME)

    asked, answer = run(exchange(batch(0, 6000), holes), [[b"0"]], CLUSTER, [[b"1"]])

    assert [parts((A, [0], "")), Refresh((A,)), parts((B, [1], ""))] == asked
    assert [b"0", b"1"] == answer
    with pytest.raises(OnlineError, match="no node has slot 6000"):
        run(exchange(batch(6000), holes), [], holes, [])


def test_a_server_that_has_become_a_cluster_is_noticed() -> None:
    moved = error("MOVED 6000 10.0.0.1:7002")

    asked, answer = run(exchange(batch(6000), Topology((HOME,))), [[moved]], CLUSTER, [[b"0"]])

    assert parts((B, [0], "")) == asked[2]
    assert [b"0"] == answer
