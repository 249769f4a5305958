"""A training set: a spine with features joined to it, its manifest and its profile."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lockstep.training.column_hash import ColumnHashes, blocks_of, total_hash
from lockstep.training.join import Found, Joined
from lockstep.training.libraries import versions
from lockstep.training.manifest import Contents, Manifest
from lockstep.training.pins import Pinned
from lockstep.training.profile import FeatureProfile, Profiler, profile_warnings
from lockstep.training.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa


class TrainingSet(ABC):
    """A spine with features joined to it: its columns, then `view:feature` in asked order.

    Attributes:
        features: `view:feature`, in column order.
        path: Where the set is: the file that was asked for, else what the lake keeps; None for one
            that is only in memory, or in a temporary file as long as this object lives.
        name: The name under which the lake keeps it, or pins what it read; None if it does not.
        future: Those of the warnings that are about rows of the spine in the future; only of a set
            that was just made.
    """

    def __init__(
        self,
        features: Sequence[str],
        path: str | None,
        name: str | None,
        future: Sequence[str] = (),
    ) -> None:
        self.features = tuple(features)
        self.path = path
        self.name = name
        self.future = tuple(future)

    @property
    @abstractmethod
    def frame(self) -> pl.DataFrame:
        """The whole set in memory; read again at each use if it was written to a file."""

    def scan(self) -> pl.LazyFrame:
        """Return the set as a LazyFrame, rows in the spine's order."""
        return self.frame.lazy()

    @property
    def rows(self) -> int:
        """Rows, as many as the spine has."""
        return self.manifest.rows

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """What pins it. Of a set that is only in memory its hashes are computed at first use."""

    @property
    @abstractmethod
    def profile(self) -> Mapping[str, FeatureProfile]:
        """`view:feature` → what it looks like; computed at first use of a set in memory."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know, a sentence each; looks at the profile."""
        return self.manifest.warnings

    def to_pandas(self) -> Any:
        """Return it as a pandas frame."""
        return self.frame.to_pandas()

    def to_arrow(self) -> "pa.Table":
        """Return it as an Arrow table."""
        return self.frame.to_arrow()

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        count = len(self.warnings)
        said = f"; {count} warning{'s'[: count != 1]}: see .warnings" if count else ""
        return f"<TrainingSet of {self.rows:,} rows and {len(self.features)} features{where}{said}>"


class SetInMemory(TrainingSet):
    """A set that is in memory and nowhere else.

    Args:
        pinned: What was asked for.
        spine: The spine.
        joined: What was joined to it.
    """

    def __init__(self, pinned: Pinned, spine: pl.DataFrame, joined: Joined) -> None:
        super().__init__(pinned.features, None, None, pinned.future)
        self._pinned, self._joined = pinned, joined
        self._width = spine.width
        # The columns are shared with the spine and the join, not copied.
        self._frame = pl.DataFrame([*spine.iter_columns(), *joined.features.iter_columns()])

    @property
    def frame(self) -> pl.DataFrame:
        """The whole set."""
        return self._frame

    @property
    def rows(self) -> int:
        """Rows, as many as the spine has."""
        return self._frame.height

    @cached_property
    def _hashes(self) -> ColumnHashes:
        found = ColumnHashes(self._frame.schema)
        for block in blocks_of(self._frame):
            found.update(block)
        return found

    @cached_property
    def manifest(self) -> Manifest:
        """What pins it; its hashes are computed at first use."""
        columns = self._hashes.columns
        of_spine = dict(list(columns.items())[: self._width])
        return manifest_of(
            self._pinned,
            Contents(self.rows, total_hash(self.rows, of_spine), of_spine),
            Contents(self.rows, self._hashes.total, columns),
            warnings=self.warnings,
        )

    @cached_property
    def profile(self) -> Mapping[str, FeatureProfile]:
        """`view:feature` → what it looks like; computed at first use."""
        profiler = Profiler(self._pinned.types, self.rows)
        start = 0
        for block in blocks_of(self._joined.features):
            profiler.add(part_of(self._joined, block, start))
            start += block.height
        return profiler.profile()

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know, a sentence each."""
        return warnings_of(self._pinned, self.profile)


class SetInFile(TrainingSet):
    """A set that was written to a file.

    Args:
        manifest: Its manifest.
        profile: Its profile.
        data: The Parquet file: a local path or an s3:// URI.
        path: The file that was asked for, or that the lake keeps; None if the file is temporary.
        options: What Polars needs to reach it.
        workspace: What must live as long as the file is read.
        future: See `TrainingSet`.

    Attributes:
        data: The Parquet file.
    """

    def __init__(
        self,
        manifest: Manifest,
        profile: Mapping[str, FeatureProfile],
        data: str,
        *,
        path: str | None,
        options: Mapping[str, Any] | None = None,
        workspace: Workspace | None = None,
        future: Sequence[str] = (),
    ) -> None:
        super().__init__(manifest.features, path, manifest.name, future)
        self._manifest, self._profile = manifest, profile
        self._options, self._workspace = options, workspace
        self.data = data

    @property
    def frame(self) -> pl.DataFrame:
        """The whole set, read from its file."""
        return self.scan().collect()

    def scan(self) -> pl.LazyFrame:
        """Return the set as a LazyFrame, rows in the spine's order."""
        options = dict(self._options) if self._options else None
        return pl.scan_parquet(self.data, glob=False, storage_options=options)

    @property
    def manifest(self) -> Manifest:
        """What pins it."""
        return self._manifest

    @property
    def profile(self) -> Mapping[str, FeatureProfile]:
        """`view:feature` → what it looks like."""
        return self._profile


def part_of(joined: Joined, features: pl.DataFrame, start: int) -> Joined:
    """Return the rows of a join that begin at `start` and have these features."""
    end = start + features.height
    found = [
        Found(item.view, features, item.status[start:end], item.age_us[start:end])
        for item in joined.found
    ]
    return Joined(features, found)


def warnings_of(pinned: Pinned, profile: Mapping[str, FeatureProfile]) -> tuple[str, ...]:
    """Return everything that a reader of a set should know, a sentence each."""
    unbuilt = [pin.view for pin in pinned.views if pin.version is None]
    empty = () if any(found.rows for found in profile.values()) else ("The spine has no rows.",)
    return (*empty, *pinned.warnings, *profile_warnings(profile, unbuilt))


def manifest_of(
    pinned: Pinned,
    spine: Contents,
    output: Contents,
    *,
    warnings: Sequence[str],
    name: str | None = None,
    files: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the manifest of a set."""
    return Manifest(
        name=name,
        created_at=pinned.created_at,
        feature_set=pinned.feature_set,
        features=pinned.features,
        mode=pinned.mode,
        timestamp=pinned.timestamp,
        time_zone=pinned.time_zone,
        partition_zone=pinned.partition_zone,
        spine=spine,
        views={pin.view: pin for pin in pinned.views},
        output=output,
        libraries=versions(),
        files=files or {},
        warnings=tuple(warnings),
    )


def profile_json(profile: Mapping[str, FeatureProfile]) -> bytes:
    """Return a profile as the content of a file; `profile_from` reads it back."""
    return json.dumps({name: found.to_json() for name, found in profile.items()}).encode()


def profile_from(content: bytes | None) -> dict[str, FeatureProfile]:
    """Read what `profile_json` returned; nothing from None."""
    data = json.loads(content) if content else {}
    return {name: FeatureProfile.from_json(found) for name, found in data.items()}


def local_path(path: Path) -> str:
    """Return a path as people and libraries take it."""
    return str(path.absolute())
