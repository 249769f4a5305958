"""Drives the real functions through a history of the model, and compares every state and answer.

Key n becomes an entity id that falls into the model's bucket, day d a civil day that ends d + 1
days after an instant far ahead (so that nothing expires meanwhile; when it would is compared). A
replica is a dump of the shard's keys.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

import polars as pl
import redis

from lockstep.calls import FunctionLibrary, PushCalls
from lockstep.codec import RowCodec, bucket_of, encode_key
from lockstep.layout import Names, PushRows, Seal
from tests import protocol_model_rules as rules
from tests.online_rows import push_rows
from tests.protocol_model_wipes import next_step, next_turn
from tests.protocol_model_world import Event, Setting, World, begin, happen
from tests.push_history import sent

ENTITY, VIEW = "household", "modelled"
FIRST_DAY = date(2200, 1, 1)
FIRST_INSTANT = datetime(2200, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CODEC = RowCodec({"of_table": pl.Int64(), "of_day": pl.Int64()})
Dumps = list[tuple[bytes, bytes | None, int]]


class DivergenceError(AssertionError):
    """The server did not do what the model does."""


@dataclass
class Real:
    """One history on a server, beside the model's world."""

    client: "redis.Redis"
    library: FunctionLibrary
    setting: Setting
    guards: rules.Rules = rules.SHIPPED
    names: Names = field(default_factory=lambda: Names(f"model:{uuid4().hex}"))
    replicas: dict[int, Dumps] = field(default_factory=dict)
    chunks: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    eras: dict[int, bytes] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = begin(self.setting, self.guards)
        self.ids = ids_of(self.setting.keys, self.setting.buckets)
        if self.setting.begun:
            for bucket in range(self.setting.buckets):
                self.client.hset(
                    self.bucket_key(bucket), mapping={f"table:{VIEW}": "t0", f"newest:{VIEW}": 0}
                )
        for shard in range(self.setting.shards):
            self._replicate(shard)
        self.compare(("begin",))

    def happen(self, event: Event) -> None:
        """Let the event happen in the model and on the server; both must do the same.

        Raises:
            DivergenceError: They do not.
        """
        name, *arguments = event
        before, self.world = self.world, happen(self.world, event)
        if self.world is before and name not in {"deliver", "again"}:
            return
        act = getattr(self, f"_{name}", None)
        if act is not None:
            act(*((before, *arguments) if name in {"deliver", "wipe", "again"} else arguments))
        self.compare(event)

    def _deliver(self, before: World, push: int, number: int) -> None:
        if push >= len(before.pushes) or number >= len(before.pushes[push]):
            return
        chunk = before.pushes[push][number]
        if (push, 0, 1) not in self.chunks:
            self._pack(push, before.pushes[push])
        answer = sent(self.client, self.chunks[push, chunk.bucket, chunk.number])
        _, expected = rules.take(before.bucket(chunk.bucket), chunk, self.guards, before.now)
        if isinstance(expected, str):
            same = isinstance(answer, redis.ResponseError) and str(answer).startswith(expected)
        else:
            same = answer == [*expected, 0]
        if not same:
            raise DivergenceError(f"{chunk}: the model says {expected}, the server {answer!r}")

    def _wipe(self, before: World, at: int) -> None:
        wiper = before.pushers[at].wiper
        if wiper is not None:
            kind, number = next_turn(wiper, self.setting.buckets)
            if kind != "scan":
                self._step(before, next_step(wiper, kind, number))

    def _again(self, before: World, which: int) -> None:
        if which < len(before.steps):
            self._step(before, before.steps[which])

    def _step(self, before: World, step: rules.Step) -> None:
        rows = [self.redis_key(place * self.setting.buckets + step.bucket) for place in step.places]
        words = ("FCALL", f"{self.library.name}_wipe", 1 + len(rows), self.bucket_key(step.bucket))
        era = self.eras.get(step.era, b"") if step.kind != "begin" else b""
        number = "" if step.kind == "begin" else step.number
        own = "1" if step.own_rows_too else "0"
        table, wiper = f"t{step.table}", f"w{step.wiper}"
        answer: Any
        try:
            answer = self.client.execute_command(
                *words, *rows, VIEW, step.kind, table, wiper, era, number, own
            )
        except redis.ResponseError as error:
            answer = error
        _, expected = rules.wipe(before.bucket(step.bucket), step, self.guards, before.eras)
        refused = isinstance(answer, redis.ResponseError) and str(answer).startswith("LSWIPE ")
        if (expected is None) != refused:
            raise DivergenceError(f"{step}: the model says {expected}, the server {answer!r}")
        if step.kind == "begin" and expected is not None:
            known = self.eras.setdefault(expected, answer)
            if known != answer or (expected == rules.SPARED) != (answer == b""):
                raise DivergenceError(f"{step}: the model says {expected}, the server {answer!r}")

    def _replicate(self, shard: int) -> None:
        found: Dumps = []
        for name in self._names_of(shard):
            with self.client.pipeline(transaction=False) as pipe:
                dump, expiry = pipe.dump(name).pexpiretime(name).execute()
            found.append((name, dump, expiry))
        self.replicas[shard] = found

    def _failover(self, shard: int) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for name, dump, expiry in self.replicas[shard]:
                pipe.delete(name)
                if dump is not None:
                    pipe.restore(name, max(expiry, 0), dump, absttl=expiry > 0)
            pipe.execute()

    def _flush(self, shard: int) -> None:
        self.client.delete(*self._names_of(shard))

    def _evict(self, key: int) -> None:
        self.client.delete(self.redis_key(key))

    def _forget(self, bucket: int) -> None:
        self.client.delete(self.bucket_key(bucket))

    def _pack(self, push: int, chunks: tuple[rules.Chunk, ...]) -> None:
        """Pack a push as the engine does, a row to a chunk."""
        sealing = [chunk for chunk in chunks if chunk.seal is not None]
        calls = PushCalls(
            self.names,
            self.library,
            ENTITY,
            VIEW,
            self.setting.buckets,
            {chunk.bucket: seal_of(chunk.seal) for chunk in sealing if chunk.seal},
            {chunk.bucket: seal_of(c) if (c := chunk.started_from) else None for chunk in sealing},
            0 if self.setting.ttl is None else self.keep_ms,
            push_id=f"p{push}",
        )
        rows = self._rows(chunks)
        for packed in [*calls.rows(rows, lambda: 1), *calls.sealing()]:
            self.chunks[push, packed.bucket, packed.number] = packed.packed

    def _rows(self, chunks: tuple[rules.Chunk, ...]) -> PushRows:
        rows = [
            (place * self.setting.buckets + chunk.bucket, row)
            for chunk in chunks
            for place, row in chunk.rows
        ]
        keys = [encode_key([self.ids[key]]) for key, _ in rows]
        return push_rows(keys, [value_of(row._replace(until=None)) for _, row in rows])

    @property
    def keep_ms(self) -> int:
        return ((self.setting.ttl or 0) + rules.GRACE) * (DAY // timedelta(milliseconds=1))

    def compare(self, event: Event) -> None:
        """Every bucket and row, with expiry, on the server against the model.

        Raises:
            DivergenceError: They differ.
        """
        with self.client.pipeline(transaction=False) as pipe:
            for number in range(self.setting.buckets):
                pipe.hgetall(self.bucket_key(number))
            for key in range(self.setting.keys):
                pipe.hget(self.redis_key(key), VIEW).pexpiretime(self.redis_key(key))
            answers = iter(pipe.execute())
        for number in range(self.setting.buckets):
            self._same(event, f"bucket {number}", self._fields(number), next(answers))
        for key in range(self.setting.keys):
            self._same(event, f"key {key}", self._row(key), (next(answers), next(answers)))

    def _same(self, event: Event, what: str, expected: Any, found: Any) -> None:
        if isinstance(found, Mapping):
            found = dict(plainly(found))
        if expected != found:
            raise DivergenceError(f"{what} after {event}: model {expected}, server {found}")

    def _fields(self, number: int) -> dict[str, Any]:
        bucket = self.world.bucket(number)
        fields: dict[str, Any] = {}
        if bucket.seal is not None:
            fields[VIEW] = seal_of(bucket.seal).text
        if bucket.claim is not None:
            kind, table = bucket.claim
            fields[f"table:{VIEW}"] = f"t{table}" if kind == rules.PER_TABLE else f"wiping t{table}"
        if bucket.newest is not None:
            fields[f"newest:{VIEW}"] = str(bucket.newest)
        if bucket.pushes:
            fields[f"push:{VIEW}"] = {f"p{push}": last for push, last in bucket.pushes}
        if bucket.wipe is not None:
            era = self.eras.get(bucket.wipe.era, b"?").decode()
            steps = {f"w{wiper}": last for wiper, last in bucket.wipe.steps}
            fields[f"wipe:{VIEW}"] = {"era": era, "steps": steps}
        return fields

    def _row(self, key: int) -> tuple[bytes | None, int]:
        count = self.setting.buckets
        row = self.world.bucket(key % count).rows[key // count]
        if row is None:
            return None, -2
        if row.until is None:
            return value_of(row), -1
        until = FIRST_INSTANT + row.until * DAY
        return value_of(row._replace(until=None)), round(until.timestamp() * 1000)

    def _names_of(self, shard: int) -> list[bytes]:
        count, shards = self.setting.buckets, self.setting.shards
        keys = [key for key in range(self.setting.keys) if key % count % shards == shard]
        buckets = [self.bucket_key(number) for number in range(shard, count, shards)]
        return [*buckets, *map(self.redis_key, keys)]

    def bucket_key(self, bucket: int) -> bytes:
        return self.names.bucket_key(ENTITY, bucket)

    def redis_key(self, key: int) -> bytes:
        encoded = encode_key([self.ids[key]])
        return self.names.entity_key(ENTITY, key % self.setting.buckets, encoded)

    def clean(self) -> None:
        """Remove what the history has left on the server."""
        for shard in range(self.setting.shards):
            self.client.delete(*self._names_of(shard))


@lru_cache(maxsize=100)
def _ids(keys: int, buckets: int) -> tuple[int, ...]:
    found: list[int] = []
    for key in range(keys):
        candidates = range(found[-1] + 1 if found else 0, 10**6)
        wanted = key % buckets
        found.append(next(n for n in candidates if bucket_of(encode_key([n]), buckets) == wanted))
    return tuple(found)


def ids_of(keys: int, buckets: int) -> list[int]:
    """An entity id for every key of the model, ascending, each in the key's bucket."""
    return list(_ids(keys, buckets))


def seal_of(seal: rules.Seal) -> Seal:
    days = ",".join(f"{day}={revision}" for day, revision in seal.days)
    return Seal(f"t{seal.table}", seal.version, days, 0)


@lru_cache(maxsize=10_000)
def value_of(row: rules.Row) -> bytes:
    """The packed value whose header and columns say what the model's row says."""
    at, day = FIRST_INSTANT + (row.day + 1) * DAY, FIRST_DAY + row.day * DAY
    if row.removed:
        return CODEC.tombstone(
            version=row.version, day=day, revision=row.revision, event_timestamp=at
        )
    frame = pl.DataFrame(
        {
            "day": [day],
            "revision": [row.revision],
            "event_timestamp": [at],
            "of_table": [row.table],
            "of_day": [row.day],
        },
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )
    return CODEC.encode(frame, version=row.version)[0]


def plainly(fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, Any]]:
    """The fields of a bucket's hash; what is JSON is read."""
    for name, text in fields.items():
        key = name.decode()
        yield key, json.loads(text) if key.startswith(("push:", "wipe:")) else text.decode()
