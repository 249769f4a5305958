"""One join by a plain engine, alone in a process: `raw_worker CONTENDER REQUEST.json`.

The request: the spine's file, per view its files, features and ttl, and where the result goes.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from benchmarks.timing import peak_rss_mb
from benchmarks.training import data

EVENT = "event_timestamp"
ORDER = "created"
DAY_US = 86_400_000_000
SPAN = 1 << 46
"""More microseconds than any workload spans (about two years)."""

Request = Mapping[str, Any]
View = Mapping[str, Any]


def polars_in_memory(asked: Request) -> pl.DataFrame:
    """`join_asof` per view."""
    return _join_asof(asked).collect(engine="in-memory")


def polars_streaming(asked: Request) -> pl.DataFrame:
    """The same on Polars' streaming engine."""
    return _join_asof(asked).collect(engine="streaming")


def polars_sink(asked: Request) -> None:
    """The same, written to the file as it comes."""
    _join_asof(asked).sink_parquet(asked["out"], engine="streaming")


def _join_asof(asked: Request) -> pl.LazyFrame:
    left = pl.scan_parquet(asked["spine"]).sort(EVENT)
    for view in asked["views"]:
        order = [ORDER] if view["ties"] else []
        right = (
            pl.scan_parquet(view["files"], hive_partitioning=False)
            .select(data.KEY, EVENT, *order, *view["features"])
            .sort(EVENT, *order)
            .drop(order)
        )
        ttl = view["ttl_days"] and f"{view['ttl_days']}d"
        left = left.join_asof(right, on=EVENT, by=data.KEY, tolerance=ttl)
    return left


def duckdb_asof(asked: Request) -> pl.DataFrame:
    """`ASOF LEFT JOIN` per view, superseded rows dropped first."""
    return pl.DataFrame(_duckdb(asked).sql(_sql(asked)).to_arrow_table())


def duckdb_copy(asked: Request) -> None:
    """The same, written to the file as it comes."""
    _duckdb(asked).execute(f"COPY ({_sql(asked)}) TO '{asked['out']}' (FORMAT parquet)")


def _duckdb(asked: Request) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if "budget" in asked:
        connection.execute(f"SET memory_limit = '{asked['budget'] // 1_000_000}MB'")
        connection.execute(f"SET temp_directory = '{asked['spill']}'")
        connection.execute("SET preserve_insertion_order = false")
    return connection


def _sql(asked: Request) -> str:
    chosen, joins = ["s.*"], ""
    for number, view in enumerate(asked["views"]):
        of, names = f"v{number}", ", ".join(view["features"])
        rows = f"SELECT {data.KEY}, {EVENT}, {names} FROM read_parquet({view['files']!r})"  # noqa: S608
        if view["ties"]:
            rows += (
                f" QUALIFY row_number() OVER (PARTITION BY {data.KEY}, {EVENT} "
                f"ORDER BY {ORDER} DESC) = 1"
            )
        joins += (
            f" ASOF LEFT JOIN ({rows}) {of} ON s.{data.KEY} = {of}.{data.KEY} "
            f"AND s.{EVENT} >= {of}.{EVENT}"
        )
        ttl = view["ttl_days"]
        valid = f"{of}.{EVENT} >= s.{EVENT} - INTERVAL {ttl} DAY" if ttl else "true"
        chosen += [f"CASE WHEN {valid} THEN {of}.{name} END AS {name}" for name in view["features"]]
    spine = f"(SELECT * FROM read_parquet('{asked['spine']}')) s"  # noqa: S608
    return f"SELECT {', '.join(chosen)} FROM {spine}{joins}"  # noqa: S608 - paths and names of ours


def numpy_searchsorted(asked: Request) -> pl.DataFrame:
    """Key and instant as one integer: a sort, a search, and a gather per column."""
    spine = pl.read_parquet(asked["spine"]).sort(data.KEY, EVENT)
    parts = [spine, *(_searched(spine, view) for view in asked["views"])]
    return pl.concat(parts, how="horizontal")


def _searched(spine: pl.DataFrame, view: View) -> pl.DataFrame:
    columns = [data.KEY, EVENT, *([ORDER] if view["ties"] else []), *view["features"]]
    rows = pl.read_parquet(view["files"], columns=columns)
    instants = rows[EVENT].to_physical().to_numpy()
    base = instants.min()
    keys = rows[data.KEY].to_numpy() * SPAN + (instants - base)
    order = np.argsort(keys, kind="stable")
    found = keys[order]
    if view["ties"]:
        created = rows[ORDER].to_physical().to_numpy()
        for at in np.flatnonzero(found[1:] == found[:-1]):
            if created[order[at]] > created[order[at + 1]]:
                order[at], order[at + 1] = order[at + 1], order[at]
    wanted = spine[data.KEY].to_numpy()
    search = wanted * SPAN + (spine[EVENT].to_physical().to_numpy() - base)
    at = np.searchsorted(found, search, side="right") - 1
    hit = at >= 0
    at = np.maximum(at, 0)
    hit &= found[at] // SPAN == wanted
    if view["ttl_days"]:
        hit &= search - found[at] <= view["ttl_days"] * DAY_US
    index = pl.select(pl.when(pl.Series(hit)).then(pl.Series(order[at].astype("u4")))).to_series()
    return rows.select(pl.col(view["features"]).gather(index))


def decoding(asked: Request) -> None:
    """No answer: every column that is needed is decoded once."""
    pl.read_parquet(asked["spine"])
    for view in asked["views"]:
        columns = [data.KEY, EVENT, *([ORDER] if view["ties"] else []), *view["features"]]
        pl.read_parquet(view["files"], columns=columns, hive_partitioning=False)


CONTENDERS: dict[str, Callable[[Request], pl.DataFrame | None]] = {
    "polars": polars_in_memory,
    "polars streaming": polars_streaming,
    "polars sink": polars_sink,
    "duckdb": duckdb_asof,
    "duckdb copy": duckdb_copy,
    "numpy": numpy_searchsorted,
    "decoding": decoding,
}


def work(contender: str, request: str) -> dict[str, Any]:
    """Join, say how long it took, then write the result for the comparison."""
    join, asked = CONTENDERS[contender], json.loads(Path(request).read_text("utf-8"))
    started, cpu = time.perf_counter(), time.process_time()
    frame = join(asked)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    said = {"seconds": seconds, "cpu_s": cpu, "peak_rss_mb": peak_rss_mb()}
    if frame is not None and asked.get("result"):
        said["rows"] = frame.height
        frame.write_parquet(asked["result"])
    return said


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
