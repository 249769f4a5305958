"""In-process reads of three views: our clients, Feast's SDK, redis-py, and the least in Python."""

from typing import Any

from benchmarks.online import data
from benchmarks.online.bench import Bench
from benchmarks.online.measure_push import redis_benchmark
from benchmarks.online.read_views import FEAST, FEATURES, FLOOR, KEY, LOADED, ON_VALKEY, ReadViews
from benchmarks.online.workers import Worker
from benchmarks.timing import middle

SIZES = (1, 100, 1000)
FLOORS = {"redis_py": "redis-py pipeline", "packed": "packed by hand"}


def measure(bench: Bench, views: ReadViews) -> dict[str, Any]:
    """Contender → entities per request → times, medians over rounds."""
    workers = contenders(bench, views)
    rounds: dict[str, dict[int, list[Any]]] = {}
    try:
        for size in SIZES:
            requests = views.asked(size)
            bench.say(f"in-process fetch of {size} entities")
            for _ in range(bench.sizes.rounds):
                for name, (worker, how) in workers.items():
                    found = worker.ask(
                        "fetch", requests=requests, seconds=bench.sizes.seconds, **how
                    )
                    rounds.setdefault(name, {}).setdefault(size, []).append(found)
                found = _redis_benchmark(bench, size)
                rounds.setdefault("redis-benchmark", {}).setdefault(size, []).append(found)
    finally:
        for worker, _ in workers.values():
            worker.close()
    return {
        name: {str(size): middle(found) for size, found in by_size.items()}
        for name, by_size in rounds.items()
    }


def contenders(bench: Bench, views: ReadViews) -> dict[str, tuple[Worker, dict[str, Any]]]:
    """Name → its worker and what it is told besides; each was seen to read right."""

    def ours(client: str, server: str) -> tuple[Worker, dict[str, Any]]:
        worker = bench.worker("fetch_worker", str(bench.project), server=server)
        return worker, {"client": client}

    made: dict[str, tuple[Worker, dict[str, Any]]] = {
        "lockstep": ours("client", LOADED),
        "lockstep, asyncio": ours("async", LOADED),
        **{name: ours(client, LOADED) for client, name in FLOORS.items()},
    }
    if ON_VALKEY in views.grown:
        made["lockstep on valkey"] = ours("client", ON_VALKEY)
    if bench.feast_python:
        made["feast"] = (bench.feast(FEAST), {"features": FEATURES, "key": KEY})
    for name, (worker, how) in made.items():
        views.require_right(name, worker.ask("values", ids=views.ids, **how))
    return made


def _redis_benchmark(bench: Bench, size: int) -> dict[str, float]:
    """One pipeline of as many HMGETs, sent by C."""
    pipelines = 20 if bench.quick else max(200, 20_000 // size)
    command = ["HMGET", "h:__rand_int__", *data.READ]
    return redis_benchmark(bench, FLOOR, pipelines * size, size, 1, command)
