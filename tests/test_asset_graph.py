"""The reference project as Dagster sees it, held against a golden file.

After a wanted change: `.venv/bin/python -m tests.test_asset_graph` writes the file again; read the
difference before you commit it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg

import definitions

GOLDEN = Path(__file__).parent / "golden" / "asset_graph.json"


def snapshot() -> dict[str, Any]:
    """Everything that a person can see of the project before anything ran; no machine's paths."""
    repository = definitions.defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "assets": {
            key.to_user_string(): _asset(graph.get(key))
            for key in sorted(graph.get_all_asset_keys())
        },
        "checks": {
            f"{key.asset_key.to_user_string()}:{key.name}": _check(graph.get_check_spec(key))
            for key in sorted(graph.asset_check_keys, key=str)
        },
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "zone": schedule.execution_timezone,
                "job": schedule.job_name,
                "status": schedule.default_status.value,
            }
            for schedule in repository.schedule_defs
        },
        "sensors": {
            sensor.name: {
                "job": sensor.job_name if sensor.targets else None,
                "status": sensor.default_status.value,
            }
            for sensor in repository.sensor_defs
        },
    }


def _asset(node: Any) -> dict[str, Any]:
    metadata = node.metadata
    lineage = metadata.get("dagster/column_lineage")
    return {
        "group": node.group_name,
        "owners": sorted(node.owners),
        "kinds": sorted(node.kinds),
        "tags": {k: v for k, v in sorted(node.tags.items()) if not k.startswith("dagster/")},
        "partitions": str(node.partitions_def) if node.partitions_def else None,
        "reads": {
            parent.to_user_string(): str(node.partition_mappings.get(parent, "same"))
            for parent in sorted(node.parent_keys)
        },
        "columns": [
            f"{column.name}: {column.type}{' PII' if 'pii' in column.tags else ''}"
            for column in _schema(metadata).columns
        ],
        "made_of": {
            name: [f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps]
            for name, deps in (_lineage(lineage).deps_by_column.items() if lineage else ())
        },
        "single_run": node.backfill_policy == dg.BackfillPolicy.single_run(),
    }


def _schema(metadata: Any) -> dg.TableSchema:
    found = metadata.get("dagster/column_schema")
    return getattr(found, "value", found) or dg.TableSchema([])


def _lineage(found: Any) -> dg.TableColumnLineage:
    return getattr(found, "value", found)  # type: ignore[no-any-return]


def _check(spec: dg.AssetCheckSpec) -> dict[str, Any]:
    return {
        "blocking": spec.blocking,
        "per_day": spec.partitions_def is not None,
        "description": spec.description,
    }


def test_the_asset_graph_is_the_golden_one() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))

    assert golden == json.loads(json.dumps(snapshot()))


def test_every_view_is_pushed_and_checked_eight_ways() -> None:
    found = snapshot()
    views = [name for name, asset in found["assets"].items() if "polars" in asset["kinds"]]

    assert 10 == len(views)
    assert all(f"{view}_online" in found["assets"] for view in views)
    assert dict.fromkeys(views, 8) == {
        view: sum(name.startswith((f"{view}:", f"{view}_online:")) for name in found["checks"])
        for view in views
    }


def test_the_golden_file_names_no_place_of_this_machine() -> None:
    text = GOLDEN.read_text(encoding="utf-8")

    assert str(Path(__file__).parents[1]) not in text
    assert "site-packages" not in text


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(snapshot(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{GOLDEN} was written.\n")
