"""Replays a history of a push protocol on a real server and checks what must always hold.

A table of three keys: version v changes key v % 3. A push planned from a sealed version carries the
keys changed since, one per chunk, and seals with one chunk more. Chunks arrive in any order, many
times or never; a rollback is a failover to a replica that stopped earlier. A history begins with a
wipe, from which the function knows that nothing newer is stored, or without. After every event two
things must hold:

- a key's version never falls (but by a rollback or a wipe);
- a sealed bucket holds, for every key, the content of the sealed version or of a newer one.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import redis

from lockstep.calls import FunctionLibrary, PushCalls
from lockstep.codec import header_of
from lockstep.layout import Names, PushRows, Seal
from lockstep.stores.redis import OnlineStore
from tests.online_rows import CODEC, ENTITY, TABLE, VIEW, keys_of, packed, push_rows

KEYS = (0, 1, 2)


class ViolationError(AssertionError):
    """The history reached a state that must not exist."""


def last_change(key: int, version: int) -> int:
    """The newest version up to the given one that changed the key; 0 if none did."""
    return max((v for v in range(1, version + 1) if v % len(KEYS) == key), default=0)


@dataclass
class History:
    client: "redis.Redis"
    library: FunctionLibrary
    wiped: bool = True
    names: Names = field(default_factory=lambda: Names(f"history:{uuid4().hex}"))
    planned: list[list[bytes]] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)
    kept: dict[bytes, bytes | None] = field(default_factory=dict)
    sealed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.wiped:
            self.wipe()

    def plan(self, version: int, chunk_rows: int = 1) -> None:
        before = self.seal()
        since = before.version if before else 0
        if since > version:
            return
        changed = [key for key in KEYS if last_change(key, version) > since]
        calls = PushCalls(
            self.names,
            self.library,
            ENTITY,
            VIEW,
            1,
            {0: Seal(TABLE, version, "", len(self.planned))},
            {0: before},
        )
        chunks = [*calls.rows(self.rows(changed, version), lambda: chunk_rows), *calls.sealing()]
        self.planned.append([chunk.packed for chunk in chunks])

    def rows(self, changed: list[int], version: int) -> PushRows:
        values = []
        for key in changed:
            value = packed(last_change(key, version), [key])[0]
            values.append((2**30 + version).to_bytes(4, "big") + value[4:])
        return push_rows(keys_of(changed), values)

    def deliver(self, which: int, number: int) -> Any:
        """Deliver one chunk of one planned push; refusals are as good as answers."""
        if not self.planned:
            return None
        chunks = self.planned[which % len(self.planned)]
        answer = sent(self.client, chunks[number % len(chunks)])
        refused = isinstance(answer, redis.ResponseError)
        if refused and not str(answer).startswith(("LSSEAL ", "LSGAP ", "LSTABLE ")):
            raise answer
        self.check()
        return answer

    def deliver_all(self, which: int) -> None:
        for number in range(len(self.planned[which % len(self.planned)]) if self.planned else 0):
            self.deliver(which, number)

    def snapshot(self) -> None:
        self.kept = {name: self.client.dump(name) for name in self.redis_keys()}

    def rollback(self) -> None:
        if not self.kept:
            return
        for name, dump in self.kept.items():
            self.client.delete(name)
            if dump is not None:
                self.client.restore(name, 0, dump)
        self.seen.clear()
        self.check()

    def forget(self) -> None:
        """The bucket's hash is evicted, its rows are not."""
        self.client.delete(self.names.bucket_key(ENTITY, 0))

    def wipe(self) -> None:
        """Remove everything, as one process does when nothing disturbs it."""
        connection = self.client.connection_pool.connection_kwargs
        url = f"redis://{connection['host']}:{connection['port']}/{connection['db']}"
        store = OnlineStore(url, namespace=self.names.namespace, library=self.library)
        store.wipe(ENTITY, VIEW, 1, table_id=TABLE)
        store.close()
        self.seen.clear()

    def wipe_step(self, wiper: str, step: str, era: bytes = b"", number: int = 0) -> Any:
        """Send one step of a wipe by itself; a "rows" step removes key 0. Refusals are answers."""
        rows = [self.redis_key(0)] if step == "rows" else []
        names = (f"{self.library.name}_wipe", 1 + len(rows), self.names.bucket_key(ENTITY, 0))
        words = (VIEW, step, TABLE, wiper, era, number or "", "1")
        try:
            return self.client.execute_command("FCALL", *names, *rows, *words)
        except redis.ResponseError as error:
            return error

    def check(self) -> None:
        stored = {key: self.stored(key) for key in KEYS}
        for key, (version, _) in stored.items():
            if version < self.seen.get(key, 0):
                raise ViolationError(f"key {key} went from version {self.seen[key]} to {version}")
            self.seen[key] = version
        seal = self.seal()
        if seal is None:
            return
        self.sealed.add(seal.version)
        for key, (version, content) in stored.items():
            if content != last_change(key, max(version, seal.version)):
                raise ViolationError(f"sealed at {seal.version}, key {key} has {content}")

    def stored(self, key: int) -> tuple[int, int]:
        """Version and content of the stored row; (0, 0) if there is none."""
        name = self.redis_key(key)
        if self.client.type(name) != b"hash":
            return 0, 0
        value = self.client.hget(name, VIEW)
        if value is None:
            return 0, 0
        values = CODEC.decode(value).values
        return header_of(value).version, values["version_seen"] if values else 0

    def seal(self) -> Seal | None:
        text = self.client.hget(self.names.bucket_key(ENTITY, 0), VIEW)
        return Seal.parse(text) if text else None

    def newest(self) -> int | None:
        """The version that the bucket says no row is newer than."""
        text = self.client.hget(self.names.bucket_key(ENTITY, 0), f"newest:{VIEW}")
        return int(text) if text else None

    def redis_key(self, key: int) -> bytes:
        return self.names.entity_key(ENTITY, 0, keys_of([key])[0])

    def redis_keys(self) -> list[bytes]:
        return [self.names.bucket_key(ENTITY, 0), *map(self.redis_key, KEYS)]


def sent(client: "redis.Redis", call: bytes) -> Any:
    """The answer to a packed call, or the refusal."""
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([call])
        return connection.read_response()
    except redis.ResponseError as error:
        return error
    finally:
        pool.release(connection)
