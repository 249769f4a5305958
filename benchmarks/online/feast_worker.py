"""Feast, in its own environment: declares its views, materializes, reads, tries types.

    FEAST_PYTHON -m benchmarks.online.feast_worker FOLDER REDIS_PORT

The repository uses the fastest settings that Feast's documents offer for this: the DuckDB offline
store over parquet, `skip_dedup` and large write batches.
"""

import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import feast.types as ft
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType

from benchmarks.online.talk import answer
from benchmarks.online.type_cases import SAME_AS_FEASTS, same
from benchmarks.timing import closed_loop, peak_rss_mb

SETTINGS = """\
project: bench
registry: registry.db
provider: local
offline_store:
    type: duckdb
online_store:
    type: redis
    connection_string: "127.0.0.1:{port}"
    skip_dedup: true
materialization:
    online_write_batch_size: 10000
entity_key_serialization_version: 3
"""
BEGIN, END = datetime(2024, 12, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
EVENT = datetime(2025, 1, 2, tzinfo=UTC)
DTYPES = {
    "Int64": ft.Int64,
    "Int32": ft.Int32,
    "Float64": ft.Float64,
    "Float32": ft.Float32,
}
ARROW = {
    "int16": (pa.int16(), ft.Int32),
    "int32": (pa.int32(), ft.Int32),
    "int64": (pa.int64(), ft.Int64),
    "uint64": (pa.uint64(), ft.Int64),
    "float32": (pa.float32(), ft.Float32),
    "float64": (pa.float64(), ft.Float64),
    "bool": (pa.bool_(), ft.Bool),
    "string": (pa.string(), ft.String),
    "bytes": (pa.binary(), ft.Bytes),
    "timestamp": (pa.timestamp("us", "UTC"), ft.UnixTimestamp),
    "date": (pa.date32(), ft.UnixTimestamp),
    "decimal(20,4)": (pa.decimal128(20, 4), getattr(ft, "Decimal", ft.Float64)),
}


class Repository:
    """One Feast repository on one Redis."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "feature_store.yaml").write_text(SETTINGS.format(port=port), encoding="utf-8")
        self.folder = folder
        self.store = FeatureStore(repo_path=str(folder))

    def declare(self, views: dict[str, dict[str, Any]]) -> None:
        """Apply views: name → entity, key, features (name → type), path of the parquet file."""
        entities: dict[str, Entity] = {}
        made = []
        for name, view in views.items():
            entity = entities.setdefault(
                view["entity"],
                Entity(name=view["entity"], join_keys=[view["key"]], value_type=ValueType.INT64),
            )
            fields = [Field(name=view["key"], dtype=ft.Int64)]
            fields += [Field(name=n, dtype=DTYPES[dtype]) for n, dtype in view["features"].items()]
            source = FileSource(
                name=f"{name}_source", path=view["path"], timestamp_field="event_timestamp"
            )
            made.append(
                FeatureView(
                    name=name,
                    entities=[entity],
                    ttl=timedelta(days=view["ttl_days"]),
                    schema=fields,
                    source=source,
                )
            )
        self.store.apply([*entities.values(), *made])

    def materialize(self, views: list[str]) -> dict[str, float]:
        """Materialize views into Redis; seconds and the process's peak memory."""
        started = time.perf_counter()
        self.store.materialize(BEGIN, END, feature_views=views)
        return {"seconds": time.perf_counter() - started, "peak_rss_mb": peak_rss_mb()}

    def values(self, features: list[str], key: str, ids: list[int]) -> dict[str, list[Any]]:
        """`view__feature` → value per entity."""
        rows = [{key: one} for one in ids]
        found = self.store.get_online_features(
            features=features, entity_rows=rows, full_feature_names=True
        )
        return dict(found.to_dict())

    def fetch(
        self, features: list[str], key: str, requests: list[list[int]], seconds: float
    ) -> dict[str, Any]:
        """Read in a closed loop."""
        return closed_loop(lambda ids: self.values(features, key, ids), requests, seconds)

    def types(self) -> dict[str, str]:
        """Case → "exact", or what came back."""
        return {name: self._case(name, *case) for name, case in SAME_AS_FEASTS.items()}

    def _case(self, name: str, kind: str, values: list[Any]) -> str:
        inner = kind.removeprefix("list<").removesuffix(">")
        arrow, dtype = ARROW[inner]
        if inner != kind:
            arrow, dtype = pa.list_(arrow), ft.Array(dtype)
        try:
            path = self.folder / f"{name}.parquet"
            columns = {
                "id": pa.array(range(len(values)), pa.int64()),
                "v": pa.array(values, arrow),
                "event_timestamp": pa.array([EVENT] * len(values), pa.timestamp("us", "UTC")),
            }
            pq.write_table(pa.table(columns), path)
            entity = Entity(name="sample", join_keys=["id"], value_type=ValueType.INT64)
            view = FeatureView(
                name=f"case_{name}",
                entities=[entity],
                ttl=timedelta(days=3650),
                schema=[Field(name="id", dtype=ft.Int64), Field(name="v", dtype=dtype)],
                source=FileSource(
                    name=f"case_{name}_source", path=str(path), timestamp_field="event_timestamp"
                ),
            )
            self.store.apply([entity, view])
            self.store.materialize(BEGIN, END, feature_views=[view.name])
            found = self.values([f"{view.name}:v"], "id", list(range(len(values))))
            got = found[f"{view.name}__v"]
        except Exception as error:  # noqa: BLE001 - how it fails is the result
            return f"{type(error).__name__}: {str(error)[:120]}"
        if all(same(a, _plain(b, a)) for a, b in zip(values, got, strict=True)):
            return "exact"
        return repr(got)[:120]


def _plain(value: Any, wanted: Any) -> Any:
    """Give Feast the benefit of the doubt: any sequence for a list, an equal instant in UTC."""
    if isinstance(wanted, list) and hasattr(value, "__len__") and not isinstance(value, str):
        padded = [*wanted, *[None] * len(value)]
        return [_plain(item, like) for item, like in zip(value, padded, strict=False)]
    if isinstance(value, datetime) and value.tzinfo and type(wanted) is not date:
        return value.astimezone(UTC)
    return value


def main() -> None:
    """Answer the benchmark's questions."""
    repository = Repository(Path(sys.argv[1]), int(sys.argv[2]))
    answer(
        {
            "version": lambda: feast.__version__,
            "declare": repository.declare,
            "materialize": repository.materialize,
            "values": repository.values,
            "fetch": repository.fetch,
            "types": repository.types,
        }
    )


if __name__ == "__main__":
    os.environ.setdefault("FEAST_USAGE", "False")
    main()
