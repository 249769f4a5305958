"""Which node of a cluster has which slot, and what to do when one has moved. Pure; no connection.

A generator says what is to be sent and is told what came back; the clients that do the sending, one
blocking and one not, share every decision this way.
"""

from array import array
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import hiredis

from lockstep.errors import OnlineError
from lockstep.stores.address import Address
from lockstep.stores.resp import ASKING, SLOTS, Batch, Reply, command

CLUSTER_SLOTS: Final = command(b"CLUSTER", b"SLOTS")
_NOBODY: Final = 0xFFFF


@dataclass(frozen=True)
class Part:
    """Commands for one node, sent in one write: `count` answers are to come."""

    node: Address
    packed: bytes
    count: int


@dataclass(frozen=True)
class Refresh:
    """Ask any of these nodes, in this order, for CLUSTER SLOTS."""

    nodes: Sequence[Address]


Outcome: TypeAlias = "list[Reply] | OnlineError"
Steps: TypeAlias = "Generator[list[Part] | Refresh, list[Outcome] | Topology, list[Reply]]"


@dataclass(frozen=True)
class Topology:
    """One server, or the primaries of a cluster and the slots of each.

    Attributes:
        nodes: Primaries; of a single server just that.
        owners: Slot → position in `nodes`; None for a single server.
    """

    nodes: tuple[Address, ...]
    owners: Sequence[int] | None = None

    @classmethod
    def of(cls, reply: Reply, asked: Address) -> Self:
        """The cluster that a node's answer to CLUSTER SLOTS describes.

        A node that does not know its own name leaves it out: it is the one that was asked.

        Raises:
            OnlineError: It is no such answer, or no slot has a node.
        """
        if isinstance(reply, hiredis.ReplyError):
            raise asked.refused(str(reply))
        owners = array("H", [_NOBODY]) * SLOTS
        nodes: dict[Address, int] = {}
        for first, last, primary, *_ in reply:
            host = (primary[0] or b"").decode()
            node = asked.node(host if host not in {"", "?"} else asked.host, primary[1])
            at = nodes.setdefault(node, len(nodes))
            owners[first : last + 1] = array("H", [at]) * (last + 1 - first)
        if not nodes:
            raise asked.refused("CLUSTERDOWN no slot is served")
        return cls(tuple(nodes), owners)

    def owner(self, slot: int) -> Address | None:
        """The node that has the slot, if one has."""
        at = 0 if self.owners is None else self.owners[slot]
        return None if at == _NOBODY else self.nodes[at]


def exchange(batch: Batch, topology: Topology) -> Steps:
    """Yield what to send; return the answers in the order of the commands.

    Yields a list of parts, to be sent to their nodes at the same time, and wants as many outcomes;
    or `Refresh`, and wants the new topology. Commands that moved, or whose node broke off, are sent
    once more.

    Raises:
        OnlineError: A node did not answer, or sent commands on twice.
    """
    if topology.owners is None:
        whole = Part(topology.nodes[0], b"".join(batch.commands), len(batch.commands))
        (outcome,) = _outcomes((yield [whole]))
        if isinstance(outcome, OnlineError):
            raise outcome
        if not _pushed_on(outcome):
            return outcome
        replies: list[Reply] = list(outcome)
        wanted: list[int] = _pushed_on(outcome)
    else:
        replies = [None] * len(batch.commands)
        wanted = list(range(len(replies)))
        wanted = yield from _round(batch, topology, wanted, replies)
    if wanted:
        asked = _asked_on(topology, wanted, replies)
        found = yield Refresh(topology.nodes)
        if not isinstance(found, Topology):
            raise TypeError(found)
        again = yield from _round(batch, found, wanted, replies, asked)
        if again:
            last = replies[again[0]]
            raise last if isinstance(last, OnlineError) else found.nodes[0].refused(str(last))
    return replies


def _round(
    batch: Batch,
    topology: Topology,
    wanted: Sequence[int],
    replies: list[Reply],
    asked: Mapping[int, Address] | None = None,
) -> "Generator[list[Part] | Refresh, list[Outcome] | Topology, list[int]]":
    """Send the wanted commands to their owners; return the positions to be sent once more."""
    slots = batch.slots()
    by_node: dict[Address, list[int]] = {}
    again: list[int] = []
    asking = asked or {}
    for at in wanted:
        node = asking.get(at) or topology.owner(slots[at])
        if node is None:
            replies[at] = topology.nodes[0].refused(f"CLUSTERDOWN no node has slot {slots[at]}")
            again.append(at)
        else:
            by_node.setdefault(node, []).append(at)
    parts = [
        Part(
            node,
            b"".join((ASKING if at in asking else b"") + batch.commands[at] for at in places),
            sum(2 if at in asking else 1 for at in places),
        )
        for node, places in by_node.items()
    ]
    for places, outcome in zip(by_node.values(), _outcomes((yield parts)), strict=True):
        if isinstance(outcome, OnlineError):
            for at in places:
                replies[at] = outcome
            again += places
            continue
        answers = iter(outcome)
        for at in places:
            if at in asking:
                next(answers)
            replies[at] = next(answers)
        again += [places[at] for at in _pushed_on([replies[at] for at in places])]
    return again


def _outcomes(sent: list[Outcome] | Topology) -> list[Outcome]:
    if isinstance(sent, Topology):
        raise TypeError(sent)
    return sent


def _pushed_on(replies: Sequence[Reply]) -> list[int]:
    """Positions of the commands that another node has to answer, or this one later."""
    if hiredis.ReplyError not in set(map(type, replies)):
        return []
    return [
        at
        for at, reply in enumerate(replies)
        if isinstance(reply, hiredis.ReplyError)
        and str(reply).startswith(("MOVED ", "ASK ", "TRYAGAIN"))
    ]


def _asked_on(
    topology: Topology, wanted: Sequence[int], replies: Sequence[Reply]
) -> dict[int, Address]:
    """Where ASK sends single commands, without moving their slot."""
    found: dict[int, Address] = {}
    for at in wanted:
        word, _, rest = str(replies[at]).partition(" ")
        if word == "ASK":
            host, _, port = rest.partition(" ")[2].rpartition(":")
            found[at] = topology.nodes[0].node(host or topology.nodes[0].host, int(port))
    return found
