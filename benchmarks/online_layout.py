"""Measures the online layout against the alternative, on the embedded server and this machine.

    python -m benchmarks.online_layout [--entities 20000] [--runs 5] [--out online_layout.json]

- `hash`: one hash per entity, one field per view, read with HMGET (ours)
- `hash_default`: the same with the server's default hash-max-listpack-value of 64
- `string`: one string key per (view, entity), read with one MGET

Three views of ten features each, written by plain pipelined commands and read in two ways: as
redis-py does it (a pipeline of HMGETs, one MGET), and with commands packed by hand over a socket
and parsed by hiredis, which is the least that a client in Python can spend. Runs alternate between
layouts; medians are reported.
"""

import argparse
import json
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import numpy as np
import polars as pl
import redis

from lockstep.codec import RowCodec, bucket_of, encode_keys
from lockstep.layout import Names
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import LISTPACK_VALUE, EmbeddedServer

SEED = 20261122
VIEWS = ("txn_7d", "txn_30d", "profile")
FEATURES = 10
AMOUNTS = 6  # of the features; then counts, and one text
NULLS = 0.05
BUCKETS = 64
ENTITY = "household"
EVENT = datetime(2026, 11, 22, 5, tzinfo=UTC)
FAR_MS = 4_102_444_800_000  # when the keys may go, as those of a view with a ttl
WRITTEN_AT_ONCE = 1000  # commands of one pipeline
ENTITIES_READ = {1: 400, 100: 100, 1000: 20}  # entities per request: requests per run


@dataclass(frozen=True)
class StringNames(Names):
    """One Redis key per (view, entity)."""

    view: str = ""

    def entity_key(self, entity: str, bucket: int, key: bytes) -> bytes:
        """The string of one entity and view."""
        return super().entity_key(entity, bucket, self.view.encode() + b":" + key)


@dataclass(frozen=True)
class Layout:
    """One layout: how it is named, written and read."""

    name: str
    listpack_value: int
    names: Mapping[str, Names]
    write: Callable[[bytes, str, bytes], tuple[Any, ...]]
    commands: Callable[["Layout", Sequence[tuple[int, bytes]]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Rows:
    """The rows of one view: encoded entity keys, and a packed value each."""

    keys: pl.Series
    values: pl.Series


@dataclass
class Measured:
    """One number per run, for each measurement of a layout."""

    bytes_per_entity: list[float] = field(default_factory=list)
    redis_py_ms: dict[int, list[float]] = field(
        default_factory=lambda: {n: [] for n in ENTITIES_READ}
    )
    packed_ms: dict[int, list[float]] = field(
        default_factory=lambda: {n: [] for n in ENTITIES_READ}
    )


def hmgets(layout: Layout, wanted: Sequence[tuple[int, bytes]]) -> list[tuple[Any, ...]]:
    """One HMGET per entity: all views of it."""
    entity_key = layout.names[VIEWS[0]].entity_key
    return [("HMGET", entity_key(ENTITY, bucket, key), *VIEWS) for bucket, key in wanted]


def mget(layout: Layout, wanted: Sequence[tuple[int, bytes]]) -> list[tuple[Any, ...]]:
    """One MGET for all entities and views."""
    names = [layout.names[view] for view in VIEWS]
    return [("MGET", *(n.entity_key(ENTITY, b, key) for b, key in wanted for n in names))]


def hset(key: bytes, view: str, value: bytes) -> tuple[Any, ...]:
    """A field of the entity's hash."""
    return ("HSET", key, view, value)


def set_string(key: bytes, _view: str, value: bytes) -> tuple[Any, ...]:
    """A string; its key names the view."""
    return ("SET", key, value)


def layouts() -> list[Layout]:
    """The layouts to compare, ours first."""
    of_hash = dict.fromkeys(VIEWS, Names("bench"))
    of_string = {view: StringNames("bench", view) for view in VIEWS}
    return [
        Layout("hash", LISTPACK_VALUE, of_hash, hset, hmgets),
        Layout("hash_default", 64, of_hash, hset, hmgets),
        Layout("string", LISTPACK_VALUE, of_string, set_string, mget),
    ]


def rows_of(entities: int, view: int) -> Rows:
    """Ten features as they occur: six amounts, three counts, one text; one cell in twenty null."""
    random = np.random.default_rng([SEED, view])
    columns: dict[str, pl.Series] = {}
    for n in range(FEATURES):
        cells: Any = random.gamma(2.0, 40.0, entities).round(2)
        if n >= AMOUNTS:
            cells = random.integers(0, 500, entities)
        series = pl.Series(f"feature_{n}", cells)
        if n == FEATURES - 1:
            series = pl.Series(random.choice(["GROCERY", "PRODUCE", "DELI", "MEAT"], entities))
        nulls = pl.Series(random.random(entities) < NULLS)
        columns[f"feature_{n}"] = series.set(nulls, None)
    codec = RowCodec({name: column.dtype for name, column in columns.items()})
    frame = pl.DataFrame(columns).with_columns(
        day=pl.lit(EVENT.date()),
        revision=pl.lit(1, pl.Int64),
        event_timestamp=pl.lit(EVENT, pl.Datetime("us", "UTC")),
        household_id=pl.int_range(1, entities + 1, dtype=pl.Int64),
    )
    return Rows(encode_keys(frame, ["household_id"]), codec.encode(frame, version=7))


def write(client: "redis.Redis", layout: Layout, rows: Mapping[str, Rows]) -> None:
    """Write every view."""
    for view, of_view in rows.items():
        buckets = bucket_of(of_view.keys, BUCKETS)
        pipeline = client.pipeline(transaction=False)
        for bucket, key, value in zip(buckets, of_view.keys, of_view.values, strict=True):
            name = layout.names[view].entity_key(ENTITY, bucket, key)
            pipeline.execute_command(*layout.write(name, view, value))
            pipeline.execute_command("PEXPIREAT", name, FAR_MS)
            if len(pipeline) >= WRITTEN_AT_ONCE:
                pipeline.execute()
        pipeline.execute()


def pack(command: Sequence[Any]) -> bytes:
    """The command as RESP bytes."""
    words = [word if isinstance(word, bytes) else word.encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def read_packed(connection: socket.socket, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send the commands in one write and parse their answers; nothing else."""
    reader = hiredis.Reader()
    connection.sendall(b"".join(map(pack, commands)))
    answers: list[Any] = []
    while len(answers) < len(commands):
        reader.feed(connection.recv(1 << 17))
        while (answer := reader.gets()) is not False:
            answers.append(answer)
    return answers


def read_redis_py(client: "redis.Redis", commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers as redis-py gets them in one round trip."""
    if len(commands) == 1:
        return [client.execute_command(*commands[0])]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return list(pipeline.execute())


def median_ms(read: Callable[[Sequence[Sequence[Any]]], list[Any]], layout: Layout,
              requests: Sequence[Sequence[tuple[int, bytes]]]) -> float:  # fmt: skip
    """Median milliseconds of the requests, packing of the command included."""
    taken = []
    for wanted in requests:
        started = time.perf_counter()
        answers = read(layout.commands(layout, wanted))
        taken.append((time.perf_counter() - started) * 1000)
        cells = [cell for answer in answers for cell in answer]
        if len(cells) != len(wanted) * len(VIEWS) or None in cells:
            sys.exit("a read did not find what was pushed")
    return statistics.median(taken)


def run(url: str, layout: Layout, rows: Mapping[str, Rows], measured: Measured) -> None:
    """One run of one layout on a server that holds nothing yet."""
    client = redis.Redis.from_url(url, protocol=2)
    client.config_set("hash-max-listpack-value", layout.listpack_value)
    before = client.info("memory")["used_memory"]
    write(client, layout, rows)
    client.close()
    client = redis.Redis.from_url(url, protocol=2)
    keys = rows[VIEWS[0]].keys
    measured.bytes_per_entity.append((client.info("memory")["used_memory"] - before) / len(keys))

    places = list(zip(bucket_of(keys, BUCKETS).to_list(), keys.to_list(), strict=True))
    random = np.random.default_rng(SEED)
    with socket.create_connection(
        (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
    ) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size, count in ENTITIES_READ.items():
            picks = random.integers(0, len(places), (count, size)).tolist()
            requests = [[places[at] for at in pick] for pick in picks]
            measured.redis_py_ms[size].append(
                median_ms(lambda commands: read_redis_py(client, commands), layout, requests)
            )
            measured.packed_ms[size].append(
                median_ms(lambda commands: read_packed(raw, commands), layout, requests)
            )
    client.close()


def report(
    measured: Mapping[str, Measured], entities: int, runs: int, engine: str
) -> dict[str, Any]:
    """Settings, machine and the median over runs of every measurement."""

    def of(values: Sequence[float], digits: int) -> float:
        return round(statistics.median(values), digits)

    results = {
        name: {
            "bytes_per_entity": of(m.bytes_per_entity, 1),
            "redis_py_p50_ms": {size: of(v, 3) for size, v in m.redis_py_ms.items()},
            "packed_p50_ms": {size: of(v, 3) for size, v in m.packed_ms.items()},
        }
        for name, m in measured.items()
    }
    settings = {"entities": entities, "runs": runs, "seed": SEED, "views": len(VIEWS)}
    machine = {"engine": engine, "python": platform.python_version(), "cpu": platform.machine()}
    return {**settings, "features_per_view": FEATURES, "machine": machine, "results": results}


def main() -> None:
    """Run the benchmark and write its JSON to --out, or to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = {view: rows_of(options.entities, n) for n, view in enumerate(VIEWS)}
    measured: dict[str, Measured] = {layout.name: Measured() for layout in layouts()}
    engine = ""
    for _ in range(options.runs):
        for layout in layouts():
            with tempfile.TemporaryDirectory() as folder:
                server = EmbeddedServer(Path(folder))
                try:
                    url = server.start()
                    run(url, layout, rows, measured[layout.name])
                    engine = OnlineStore(url, namespace="bench").info().engine
                finally:
                    server.stop()
    text = json.dumps(report(measured, options.entities, options.runs, engine), indent=2)
    if options.out is None:
        sys.stdout.write(text + "\n")
    else:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
