"""Manifests that pin versions, and the clock of a lake's store."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from lockstep.stores.delta import DayTable
from lockstep.stores.files import Place
from lockstep.training.manifest import Contents, Manifest, ViewPin

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def manifest_of(name: str, pins: Mapping[str, tuple[str, int]]) -> Manifest:
    """A manifest that pins view → (table id, version)."""
    nothing = Contents(0, "", {})
    return Manifest(
        name=name,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        feature_set=None,
        features=(),
        mode="known",
        timestamp="event_timestamp",
        time_zone=None,
        partition_zone="America/New_York",
        spine=nothing,
        views={
            view: ViewPin(view, table_id, version, {}, {}, None, timedelta(0), "", {}, {})
            for view, (table_id, version) in pins.items()
        },
        output=nothing,
        libraries={},
        files={},
    )


def pin(root: Place, name: str, table: DayTable, version: int | None = None) -> int:
    """Keep a training set that reads a table at a version (the newest); return the version."""
    at = table.head().version if version is None else version
    said = manifest_of(name, {table.name: (table.history(at).table_id, at)})
    root.write(f"training_sets/{name}/manifest.json", said.to_bytes())
    return at


def instant_ns(nanoseconds: int) -> datetime:
    """An instant of the store's clock, rounded down to microseconds."""
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


def later(root: Place, by: timedelta = timedelta(days=30)) -> datetime:
    """The instant so long after the newest file of the lake."""
    return instant_ns(max(info.modified_ns for info in root.list())) + by
