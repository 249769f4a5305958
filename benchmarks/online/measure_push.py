"""Rows per second from Delta to a sealed view in Redis, and the memory it takes."""

import csv
import subprocess
from itertools import islice
from typing import Any

from benchmarks.online import data
from benchmarks.online.bench import Bench
from benchmarks.timing import middle

PIPELINE = 100


def measure(bench: Bench) -> dict[str, Any]:
    """Our push, Feast's materialize and redis-benchmark's HSET of as many bytes, in turn."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(bench.sizes.rounds):
        for engine in bench.engines:
            last = ours(bench, engine)
            rounds.setdefault(f"lockstep on {engine}", []).append(last)
        for connections in (1,) if bench.quick else (1, 50):
            name = f"redis-benchmark, {connections} connections"
            rounds.setdefault(name, []).append(floor(bench, connections, last["row_bytes"]))
        if bench.feast_python and number < bench.sizes.feast_pushes:
            rounds.setdefault("feast", []).append(feast(bench))
    found = {name: middle(of) for name, of in rounds.items()}
    engine = next(iter(bench.engines))
    if not bench.quick:
        found["lockstep, throttle on"] = ours(bench, engine, throttled=True)
        found["lockstep with append-only file"] = ours(bench, engine, aof=True)
    return found


def ours(
    bench: Bench, engine: str, *, aof: bool = False, throttled: bool = False
) -> dict[str, Any]:
    """One push of the whole view to an empty server."""
    name = f"push-{engine}{'-aof' if aof else ''}"
    bench.server(name, engine, aof=aof)
    client = bench.client(name)
    client.flushall()
    before = client.info("memory")["used_memory"]
    how = {"throttled": True, "most_seconds": bench.sizes.most_seconds} if throttled else {}
    bench.say(f"push of {bench.sizes.pushed:,} rows by lockstep to {name}")
    with bench.worker("push_worker", str(bench.project), server=name) as worker:
        found: dict[str, Any] = worker.ask("push", view=data.PUSHED, **how)
    if found["whole"] and found["rows"] != bench.sizes.pushed:
        raise RuntimeError(f"{found['rows']} rows of {bench.sizes.pushed} were written")
    keys = list(islice(client.scan_iter(match="*:i*", count=100), 100))
    row_bytes = [client.hstrlen(key, data.PUSHED) for key in keys]
    grown = client.info("memory")["used_memory"] - before
    found.pop("began"), found.pop("ended")
    found["row_bytes"] = round(sum(row_bytes) / len(row_bytes), 1)
    found["key_bytes"] = round(sum(map(len, keys)) / len(keys), 1)
    found["server_bytes_per_entity"] = round(grown / found["rows"], 1)
    client.flushall()
    return found


def feast(bench: Bench) -> dict[str, Any]:
    """One `materialize` of the same rows to an empty server."""
    client = bench.client("push-feast")
    client.flushall()
    with bench.feast("push-feast") as worker:
        bench.say(f"materialize of {bench.sizes.pushed:,} rows by Feast")
        found: dict[str, Any] = worker.ask("materialize", views=[data.PUSHED])
    keys = client.dbsize()
    if keys != bench.sizes.pushed:
        raise RuntimeError(f"Feast wrote {keys} of {bench.sizes.pushed} entities")
    client.flushall()
    return {"rows": keys, **found, "rows_per_s": round(keys / found["seconds"])}


def floor(bench: Bench, connections: int, row_bytes: float) -> dict[str, Any]:
    """redis-benchmark writing hashes of one field with keys and values of our length."""
    client = bench.client("push-floor")
    client.flushall()
    key = "lockstep:bench:{shop:0}:__rand_int__"
    value = "v" * round(row_bytes)
    command = ["HSET", key, data.PUSHED, value]
    found = redis_benchmark(bench, "push-floor", bench.sizes.pushed, PIPELINE, connections, command)
    client.flushall()
    return {"rows_per_s": round(found["per_s"]), "row_bytes": len(value)}


def redis_benchmark(
    bench: Bench, server: str, count: int, pipeline: int, connections: int, command: list[str]
) -> dict[str, float]:
    """Commands per second, and the median time of one pipeline in milliseconds."""
    options = {"-p": bench.port(server), "-n": count, "-P": pipeline, "-c": connections}
    options["-r"] = bench.sizes.pushed if server == "push-floor" else bench.sizes.read
    words = ["redis-benchmark", "-h", "127.0.0.1", "--csv"]
    words += [str(word) for option in options.items() for word in option]
    done = subprocess.run([*words, *command], capture_output=True, text=True, check=True)  # noqa: S603
    *_, last = csv.reader(done.stdout.splitlines())
    return {"per_s": float(last[1]), "p50_ms": float(last[4]), "p99_ms": float(last[6])}
