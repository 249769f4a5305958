"""What pins a training set so that it can be rebuilt bit for bit. Pure but for reading one file.

`docs/training-manifest.schema.json` describes the JSON. The manifest carries a digest of itself: a
field changed by hand is noticed before anything is read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from lockstep.errors import InputError
from lockstep.hashing import type_name
from lockstep.set_folder import MANIFEST

Mode: TypeAlias = Literal["event", "known"]
MODES: Final = ("event", "known")
FORMAT: Final = 1
BOUNDS: Final = "event_timestamp <= t <= event_timestamp + ttl"

_PLAIN: Final[dict[str, pl.DataType]] = {
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "boolean": pl.Boolean(),
    "string": pl.String(),
    "binary": pl.Binary(),
    "date": pl.Date(),
    "datetime[us,UTC]": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class ViewPin:
    """One view as a set reads it: what the join needs, without the catalog.

    Attributes:
        table_id: None, like `version`, for a view that was never materialized.
        version: The Delta version that is read.
        keys: Key column → type.
        features: The wanted features → type, in the order asked for.
        code_versions: Version of the view's code → the days that it last produced, as text.
        days: Day → (revision, content hash) of every revision that a spine row may meet; oldest
            first. In event mode there is one per day.
        largest: Rows of the view's largest day; not in the JSON.
        widths: Feature → bytes of a value, where the type doesn't say; not in the JSON.
    """

    view: str
    table_id: str | None
    version: int | None
    keys: Mapping[str, pl.DataType]
    features: Mapping[str, pl.DataType]
    ttl: timedelta | None
    landing_delay: timedelta
    contract_hash: str
    code_versions: Mapping[str, str]
    days: Mapping[date, Sequence[tuple[int, str]]]
    largest: int = field(default=0, compare=False)
    widths: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "table_id": self.table_id,
            "version": self.version,
            "keys": {name: type_name(dtype) for name, dtype in self.keys.items()},
            "features": {name: type_name(dtype) for name, dtype in self.features.items()},
            "ttl_seconds": None if self.ttl is None else self.ttl.total_seconds(),
            "landing_delay_seconds": self.landing_delay.total_seconds(),
            "contract_hash": self.contract_hash,
            "code_versions": dict(self.code_versions),
            "days": {
                day.isoformat(): [
                    {"revision": revision, "content_hash": digest} for revision, digest in found
                ]
                for day, found in sorted(self.days.items())
            },
        }

    @classmethod
    def from_json(cls, view: str, data: Mapping[str, Any]) -> "ViewPin":
        """Read what `to_json` returned."""
        ttl = data["ttl_seconds"]
        return cls(
            view=view,
            table_id=data["table_id"],
            version=data["version"],
            keys={name: type_from(word) for name, word in data["keys"].items()},
            features={name: type_from(word) for name, word in data["features"].items()},
            ttl=None if ttl is None else timedelta(seconds=ttl),
            landing_delay=timedelta(seconds=data["landing_delay_seconds"]),
            contract_hash=data["contract_hash"],
            code_versions=data["code_versions"],
            days={
                date.fromisoformat(day): [
                    (item["revision"], item["content_hash"]) for item in found
                ]
                for day, found in data["days"].items()
            },
        )


@dataclass(frozen=True)
class Contents:
    """Rows and columns of a spine or a set, and their hashes (see `lockstep.training.column_hash`).

    Attributes:
        columns: Column → {"type": words, "hash": hex}, in order.
    """

    rows: int
    hash: str
    columns: Mapping[str, Mapping[str, Any]]

    def equals(self, other: "Contents") -> bool:
        """Whether the rows and columns are the same.

        Without a row the columns and their types say it: an earlier release had two hashes of that.
        """
        if self.rows or other.rows:
            return self.hash == other.hash
        one, another = (
            [(name, column["type"]) for name, column in of.columns.items()] for of in (self, other)
        )
        return one == another


@dataclass(frozen=True)
class Manifest:
    """What a training set was made of, and what came of it.

    Attributes:
        name: The name under which the lake keeps it; None if it is not kept.
        feature_set: {"name", "version"} of the feature set that was asked for, if it was one.
        features: `view:feature` in column order.
        timestamp: The spine's instant column.
        time_zone: The zone in which a naive timestamp was read; None if it was not naive.
        partition_zone: The zone of the days.
        spine: What went in.
        output: What came out: the spine's columns, then the features.
        libraries: Library → version.
        files: Which files the lake keeps beside the manifest: "data", "spine"; and "to", the
            place that a set was written to elsewhere.
        warnings: What the reader of the set should know.
    """

    name: str | None
    created_at: datetime
    feature_set: Mapping[str, str] | None
    features: tuple[str, ...]
    mode: Mode
    timestamp: str
    time_zone: str | None
    partition_zone: str
    spine: Contents
    views: Mapping[str, ViewPin]
    output: Contents
    libraries: Mapping[str, str]
    files: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the set, as many as its spine has."""
        return self.output.rows

    @property
    def profile_file(self) -> str:
        """The name of its profile where several builds may write beside one manifest."""
        said = [self.output.hash, self.spine.hash, self.mode, self.timestamp, self.time_zone]
        return f"profile-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}.json"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values, its digest last."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "created_at": self.created_at.astimezone(UTC).isoformat(),
            "feature_set": None if self.feature_set is None else dict(self.feature_set),
            "features": list(self.features),
            "mode": self.mode,
            "bounds": BOUNDS,
            "timestamp": self.timestamp,
            "time_zone": self.time_zone,
            "partition_zone": self.partition_zone,
            "spine": asdict(self.spine),
            "views": {name: pin.to_json() for name, pin in self.views.items()},
            "libraries": dict(self.libraries),
            "rows": self.rows,
            "output": {"hash": self.output.hash, "columns": dict(self.output.columns)},
            "files": dict(self.files),
            "warnings": list(self.warnings),
        }
        return data | {"digest": _digest(data)}

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Manifest":
        """Read what `to_bytes` returned.

        Args:
            where: The file, for messages.

        Raises:
            InputError: It is no manifest, of another format, or was changed since it was written.
        """
        try:
            data = json.loads(content)
            if data.get("format") != FORMAT:
                raise _unusable(where, f"format {data.get('format')!r}")
            stated = data.pop("digest", None)
            if stated != _digest(data):
                raise _unusable(where, "a file that was changed since it was written")
            return _manifest(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unusable(where, f"{type(error).__name__} on reading") from error


def beside(path: Path) -> Path:
    """Return where the manifest of a set stands that was written to a file."""
    return path.with_name(f"{path.name}.{MANIFEST}")


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a local file, or beside a set that was written to a file.

    Raises:
        InputError: There is none, or it is not usable.
    """
    for file in (path / MANIFEST, beside(path) if path.suffix != ".json" else path):
        if file.is_file():
            return Manifest.from_bytes(file.read_bytes(), str(file))
    raise InputError(
        f"There is no manifest at {path}.",
        expected="a manifest.json, the folder it is in, a written set, or the name of a kept set",
        fix="`lockstep training-sets list` names the kept sets.",
        effect="Nothing was read.",
    )


def type_from(word: Any) -> pl.DataType:
    """Return the type that `lockstep.hashing.type_name` put into words."""
    match word:
        case ["decimal", precision, scale]:
            return pl.Decimal(precision, scale)
        case ["list", inner]:
            return pl.List(type_from(inner))
        case ["struct", *fields]:
            return pl.Struct({name: type_from(inner) for name, inner in fields})
    return _PLAIN[word]


def _manifest(data: Mapping[str, Any]) -> Manifest:
    return Manifest(
        name=data["name"],
        created_at=datetime.fromisoformat(data["created_at"]),
        feature_set=data["feature_set"],
        features=tuple(data["features"]),
        mode=data["mode"],
        timestamp=data["timestamp"],
        time_zone=data["time_zone"],
        partition_zone=data["partition_zone"],
        spine=Contents(**data["spine"]),
        views={name: ViewPin.from_json(name, pin) for name, pin in data["views"].items()},
        output=Contents(data["rows"], data["output"]["hash"], data["output"]["columns"]),
        libraries=data["libraries"],
        files=data["files"],
        warnings=tuple(data["warnings"]),
    )


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unusable(where: str, got: str) -> InputError:
    return InputError(
        f"The manifest {where} is not usable.",
        expected=f"a manifest of format {FORMAT}, as it was written",
        got=got,
        fix="Restore it from a backup, or take the one that the lake keeps. A kept set that nobody "
        "needs may be removed all the same: lockstep training-sets remove NAME.",
        effect="Nothing was read.",
    )
