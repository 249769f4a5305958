"""One training set by Lockstep, alone in a process: `ours_worker WAY REQUEST.json`."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.timing import peak_rss_mb, rss_mb
from lockstep.project import find_project
from lockstep.store import Store
from lockstep.training.kept_sets import KeptSets
from lockstep.training.memory import budget
from lockstep.training.reproduce import rebuild_set

Asked = dict[str, Any]
KEPT = "bench"
"""The name under which the lake keeps a set."""


def join(store: Store, asked: Asked) -> pl.DataFrame:
    """To the frame in memory."""
    return store.training_set(asked["spine"], asked["features"], mode=asked["mode"]).frame


def described(store: Store, asked: Asked) -> pl.DataFrame:
    """To the frame, its manifest with all hashes, and its profile."""
    found = store.training_set(asked["spine"], asked["features"], mode=asked["mode"])
    if not (found.manifest.output.hash and found.profile):
        raise RuntimeError("a set without hash or profile")
    return found.frame


def stream(store: Store, asked: Asked) -> None:
    """To a file, manifest and profile included, within a memory budget."""
    to, memory = asked["result"], asked["memory"]
    store.training_set(asked["spine"], asked["features"], to=to, memory=memory)


def keep(store: Store, asked: Asked) -> None:
    """To a set that the lake keeps by its name."""
    store.training_set(asked["spine"], asked["features"], name=KEPT)


def rebuild(store: Store, _: Asked) -> None:
    """The kept set again, from its manifest, every bit compared."""
    manifest = KeptSets(store.lake).find(KEPT)
    if manifest is None:
        raise RuntimeError(f"there is no set {KEPT}")
    rebuild_set(store, manifest, memory=budget(None))


def leakage(store: Store, asked: Asked) -> None:
    """The report that compares the two modes; there is something to report."""
    found = store.leakage(asked["spine"], asked["features"])
    if not found.suspects:
        raise RuntimeError("no cell of a restated day changed")


WAYS: dict[str, Callable[[Store, Asked], pl.DataFrame | None]] = {
    "join": join,
    "described": described,
    "stream": stream,
    "keep": keep,
    "rebuild": rebuild,
    "leakage": leakage,
}


def work(way: str, request: str) -> dict[str, Any]:
    """From opening the project to the end, timed; then write the frame for the comparison."""
    asked = json.loads(Path(request).read_text("utf-8"))
    imported = rss_mb()
    started, cpu = time.perf_counter(), time.process_time()
    store = Store(find_project(Path(asked["project"])))
    if way == "keep":
        forget(store)
        started, cpu = time.perf_counter(), time.process_time()
    frame = WAYS[way](store, asked)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    said = {
        "seconds": seconds,
        "cpu_s": cpu,
        "peak_rss_mb": peak_rss_mb(),
        "imported_rss_mb": imported,
    }
    if frame is not None and "result" in asked:
        frame.write_parquet(asked["result"])
    return said


def forget(store: Store) -> None:
    """Remove what an earlier run kept."""
    sets = KeptSets(store.lake)
    if sets.find(KEPT) is not None:
        sets.remove(KEPT)


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
