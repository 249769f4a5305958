"""What readers notice of a backfill: idle, beside a throttled push, beside an unthrottled one."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.online import data
from benchmarks.online.bench import Bench
from benchmarks.online.read_views import LOADED, ReadViews
from benchmarks.timing import middle, spread

CLIENT = "client"
ENTITIES = 10
RATE = 250.0
"""Requests per second; each is timed from when it was due."""
IDLE_SECONDS = 20  # loops, so that the idle 99th percentile has as many requests as the others
PUSHES = {"throttled": True, "unthrottled": False}
"""Phase → whether the push adapts to what readers wait."""


def measure(bench: Bench, views: ReadViews) -> dict[str, Any]:
    """Phase → what readers waited, and how fast the push was meanwhile; medians over rounds."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    project = str(bench.project)
    with (
        bench.worker("push_worker", project, server=LOADED) as pusher,
        bench.worker("fetch_worker", project, server=LOADED) as reader,
    ):
        pusher.ask("ready")
        views.require_right("lockstep", reader.ask("values", client=CLIENT, ids=views.ids))
        for number in range(bench.sizes.rounds):
            bench.say(f"readers, round {number + 1}")
            rounds.setdefault("idle", []).append(_idle(bench, reader, views))
            for name, throttled in PUSHES.items():
                _forget(bench)
                stop = _start(bench, reader, views)
                time.sleep(0.2)
                limit = bench.sizes.most_seconds
                pushed = pusher.ask(
                    "push", view=data.PUSHED, throttled=throttled, most_seconds=limit
                )
                stop.touch()
                rounds.setdefault(name, []).append(_during(pushed, reader.result()))
    return {name: middle(found) for name, found in rounds.items()}


def _start(bench: Bench, reader: Any, views: ReadViews) -> Path:
    stop = bench.work / "stop-readers"
    stop.unlink(missing_ok=True)
    requests = views.asked(ENTITIES)
    reader.start("paced", client=CLIENT, requests=requests, rate=RATE, stop=str(stop))
    return stop


def _idle(bench: Bench, reader: Any, views: ReadViews) -> dict[str, Any]:
    stop = _start(bench, reader, views)
    time.sleep(bench.sizes.seconds * (1 if bench.quick else IDLE_SECONDS / 4))
    stop.touch()
    return spread(reader.result()["took"])


def _during(pushed: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What readers waited whose requests were due while the push ran."""
    asked = list(zip(seen["due"], seen["took"], strict=True))
    waited = [took for due, took in asked if pushed["began"] <= due <= pushed["ended"]]
    # A push of a few rows can be over before the next request is due: then the nearest one.
    waited = waited or [min(asked, key=lambda one: abs(one[0] - pushed["began"]))[1]]
    return {**spread(waited), "pushed_rows_per_s": pushed["rows_per_s"]}


def _forget(bench: Bench) -> None:
    """Remove the pushed view's entities and seals, as if it had never been online."""
    client = bench.client(LOADED)
    batch: list[bytes] = []
    for key in client.scan_iter(match=f"*{{{data.ENTITIES[data.PUSHED]}:*", count=1000):
        batch.append(key)
        if len(batch) == 1000:  # noqa: PLR2004 - keys per call
            client.unlink(*batch)
            batch.clear()
    if batch:
        client.unlink(*batch)
