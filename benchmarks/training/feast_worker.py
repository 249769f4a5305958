"""One training set by Feast on DuckDB, alone in a process: `feast_worker HOW REQUEST.json`.

HOW is "declare", which writes the repository, or how the result is asked for: "arrow" or "df".
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("FEAST_USAGE", "False")

import feast.types as ft
import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType

from benchmarks.timing import peak_rss_mb

SETTINGS = """\
project: bench
registry: registry.db
provider: local
offline_store:
    type: duckdb
online_store:
    type: sqlite
    path: online.db
entity_key_serialization_version: 3
"""
TYPES = {
    "Int64": ft.Int64,
    "Int32": ft.Int32,
    "Float64": ft.Float64,
    "Float32": ft.Float32,
    "String": ft.String,
}


def declare(asked: dict[str, Any]) -> None:
    """Write the repository and apply a view per file."""
    folder = Path(asked["repository"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(SETTINGS, encoding="utf-8")
    entity = Entity(name="customer", join_keys=[asked["key"]], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=view["name"],
            entities=[entity],
            ttl=timedelta(days=view["ttl_days"] or 0),
            schema=[
                Field(name=asked["key"], dtype=ft.Int64),
                *(Field(name=name, dtype=TYPES[dtype]) for name, dtype in view["types"].items()),
            ],
            source=FileSource(
                name=f"{view['name']}_source",
                path=view["files"],
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
            ),
        )
        for view in asked["views"]
    ]
    FeatureStore(repo_path=str(folder)).apply([entity, *views])


def join(how: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask for the training set; then write it for the comparison."""
    store = FeatureStore(repo_path=asked["repository"])
    features = [f"{view['name']}:{name}" for view in asked["views"] for name in view["types"]]
    started, cpu = time.perf_counter(), time.process_time()
    spine = pd.read_parquet(asked["spine"])
    job = store.get_historical_features(entity_df=spine, features=features)
    found = job.to_arrow() if how == "arrow" else job.to_df()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    said = {"seconds": seconds, "cpu_s": cpu, "peak_rss_mb": peak_rss_mb(), "rows": len(found)}
    if asked.get("result"):
        if how == "arrow":
            pq.write_table(found, asked["result"])
        else:
            found.to_parquet(asked["result"])
    return said


def main() -> None:
    """Do what the command line says."""
    how, asked = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))
    if how == "declare":
        declare(asked)
        said: dict[str, Any] = {}
    else:
        said = join(how, asked)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
