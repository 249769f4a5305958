"""Three masters on loopback that form a cluster, and slots that move between them step by step."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from lockstep.errors import OnlineError
from lockstep.stores.server import EmbeddedServer

MASTERS = 3
_SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    # A node that gets no time on a busy machine must not be taken for a dead one.
    "cluster-node-timeout": "60000",
    "repl-diskless-sync-delay": "0",
}
_FORM_SECONDS = 30.0
_POLL_SECONDS = 0.02


class Server(EmbeddedServer):
    """A server that is asked only whether it is this process, by a client of the test's own.

    Args:
        client: Opens a plain client for a port; by default without TLS and without a user.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        binary: Path | None,
        settings: dict[str, str],
        client: "Callable[[int], redis.Redis] | None" = None,
    ) -> None:
        super().__init__(folder, port=port, binary=binary, settings=settings)
        self.port = port
        self._client = client or (lambda port: redis.Redis(port=port, protocol=2))

    def client(self) -> "redis.Redis":
        """A plain client of this server alone, to be closed by the caller."""
        return self._client(self.port)

    def _answers_by(self, deadline: float) -> bool:
        while self.running():
            try:
                with self.client() as client:
                    if client.info("server")["process_id"] == self._pid():
                        return True
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    return False
            time.sleep(_POLL_SECONDS)
        return False


@dataclass
class Cluster:
    """Three masters, each with a third of the slots; more nodes may join as replicas.

    Args:
        settings: Further settings of the node on a port.
        client_of: Opens a plain client for a port; by default without TLS and without a user.
    """

    folder: Path
    binary: Path | None
    settings: "Callable[[int], Mapping[str, str]]" = lambda _: {}
    client_of: "Callable[[int], redis.Redis] | None" = None
    nodes: list[Server] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)
    _clients: "dict[int, redis.Redis]" = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The first node, by which the others are found."""
        return self.nodes[0].url

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.nodes]

    def start(self) -> None:
        """Start the masters and wait until every one of them serves every slot."""
        ports = free_ports(2 * MASTERS)
        for port, bus in zip(ports[:MASTERS], ports[MASTERS:], strict=True):
            self._join(port, bus)
        share = REDIS_CLUSTER_HASH_SLOTS // MASTERS
        for at in range(MASTERS):
            last = REDIS_CLUSTER_HASH_SLOTS - 1 if at == MASTERS - 1 else (at + 1) * share - 1
            self.say(at, "ADDSLOTSRANGE", at * share, last)
            self.say(at, "SET-CONFIG-EPOCH", at + 1)
            for other in range(at):
                self.say(at, "MEET", "127.0.0.1", ports[other], ports[MASTERS + other])
        self.wait_until_whole()

    def stop(self) -> None:
        """Kill the nodes; what they hold is not wanted again."""
        self._open.close()
        for node in self.nodes:
            node.kill()

    def add_replica(self, of: int) -> int:
        """Let another node follow a master; its position once it has every key."""
        port, bus = free_ports(2)
        self._join(port, bus)
        at = len(self.nodes) - 1
        for other in range(at):
            self.say(at, "MEET", "127.0.0.1", self.ports[other], self._bus(other))
        own = self.node_id(at)
        until(
            lambda: all(own in self._ids_known_by(node) for node in range(at)),
            "the replica is not met by everybody",
        )
        self.say(at, "REPLICATE", self.node_id(of))
        until(lambda: self._follows(at, of), "the replica does not follow")
        return at

    def client(self, at: int) -> "redis.Redis":
        """A plain client of one node."""
        if at not in self._clients:
            client = self.nodes[at].client()
            self._clients[at] = self._open.enter_context(closing(client))
        return self._clients[at]

    def say(self, at: int, *words: Any) -> Any:
        """The node's answer to a CLUSTER command."""
        return self.client(at).execute_command("CLUSTER", *words)

    def node_id(self, at: int) -> bytes:
        return bytes(self.say(at, "MYID"))

    def owner(self, key: bytes, *, seen_by: int = 0) -> int:
        """Which node has the key's slot, as one node sees it."""
        slot = key_slot(key)
        for first, last, (_, port, *_), *_ in self._ranges(seen_by):
            if first <= slot <= last:
                return self.ports.index(port)
        raise LookupError(slot)

    def keys(self, at: int, pattern: bytes) -> list[bytes]:
        """Keys of one node that match a glob."""
        return sorted(self.client(at).scan_iter(pattern))

    def wait_until_whole(self) -> None:
        """Wait until every node says that every slot is served."""
        until(lambda: all(map(self._whole, self.members)), "the cluster does not form")

    def begin_move(self, slot: int, source: int, target: int) -> None:
        """From now on the source sends asks for absent keys of the slot to the target."""
        self.say(target, "SETSLOT", slot, "IMPORTING", self.node_id(source))
        self.say(source, "SETSLOT", slot, "MIGRATING", self.node_id(target))

    def move_keys(self, slot: int, source: int, target: int, count: int | None = None) -> int:
        """Move some or all keys of the slot; how many there were to move."""
        names = self.say(source, "GETKEYSINSLOT", slot, 1_000_000)[:count]
        if names:
            words = ("MIGRATE", "127.0.0.1", self.ports[target], "", 0, 5000, "KEYS", *names)
            self.client(source).execute_command(*words)
        return len(names)

    def end_move(self, slot: int, source: int, target: int) -> None:
        """The target has the slot, the source knows, and then everybody does."""
        owner = self.node_id(target)
        for at in (target, source, *self.members):
            self.say(at, "SETSLOT", slot, "NODE", owner)

    def move(self, slot: int, source: int, target: int) -> None:
        """Move a slot with all its keys."""
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def owns(self, seen_by: int, at: int, slot: int) -> bool:
        """Whether one node believes that another has the slot."""
        return any(
            first <= slot <= last and master[1] == self.ports[at]
            for first, last, master, *_ in self._ranges(seen_by)
        )

    def forget(self, at: int) -> None:
        """Everybody forgets a replica; it runs on alone, with neither slots nor keys."""
        gone = self.node_id(at)
        self.members.remove(at)
        for node in self.members:
            self.say(node, "FORGET", gone)
        self.say(at, "RESET", "HARD")

    def _join(self, port: int, bus: int) -> None:
        at = len(self.nodes)
        node = Server(
            self.folder / f"node {at}",
            port,
            binary=self.binary,
            settings={**_SETTINGS, "cluster-port": str(bus), **self.settings(port)},
            client=self.client_of,
        )
        self.nodes.append(node)
        self.members.append(at)
        node.start()

    def _bus(self, at: int) -> int:
        return int(self.client(at).config_get("cluster-port")["cluster-port"])

    def _ranges(self, at: int) -> Sequence[Any]:
        found: Sequence[Any] = self.client(at).execute_command("CLUSTER SLOTS")
        return found

    def _facts(self, at: int) -> dict[str, str]:
        text = self.say(at, "INFO")
        if isinstance(text, dict):
            return text
        return dict(line.split(":", 1) for line in text.decode().split())

    def _ids_known_by(self, at: int) -> set[bytes]:
        text: bytes = self.client(at).execute_command("CLUSTER", "NODES", NEVER_DECODE=[])
        return {line.split()[0] for line in text.splitlines() if b"handshake" not in line}

    def _follows(self, at: int, master: int) -> bool:
        facts = self.client(at).info("replication")
        offset = self.client(master).info("replication")["master_repl_offset"]
        up = facts["role"] == "slave" and facts["master_link_status"] == "up"
        return up and facts["slave_repl_offset"] >= offset

    def _whole(self, at: int) -> bool:
        facts = self._facts(at)
        known = int(facts["cluster_known_nodes"]) == len(self.members)
        return known and facts["cluster_state"] == "ok" and len(self._ranges(at)) >= MASTERS


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + _FORM_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise OnlineError(otherwise)
        time.sleep(_POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
