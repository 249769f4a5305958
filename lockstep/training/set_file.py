"""The file of a training set: written block by block, whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lockstep.crash import crash_point
from lockstep.errors import InputError, first_line
from lockstep.training.column_hash import ColumnHashes
from lockstep.training.manifest import Manifest, beside

KINDS: Final = (".parquet", ".csv")
_NOTHING: Final = "Nothing was written."


class SetFile:
    """A Parquet file of one row group per block: its bytes depend on the blocks and nothing else.

    The feature columns are hashed while it is written.

    Args:
        path: Where it is written.
        types: The features' types; hashes are theirs.
    """

    def __init__(self, path: Path, types: Mapping[str, pl.DataType]) -> None:
        self._path = path
        self._features = list(types)
        self.hashes = ColumnHashes(types)
        self._pool = ThreadPoolExecutor(1)
        self._waiting: Future[None] | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the file."""
        if self._waiting is not None:
            self._waiting.result()
        if self._writer is not None:
            self._writer.close()
        self._pool.shutdown()

    def write(self, block: pl.DataFrame) -> None:
        """Append a block: the spine's columns and the features."""
        if self._waiting is not None:
            self._waiting.result()
        features = block.select(self._features)
        if block.height:  # as everywhere: what has no rows has no block
            self._waiting = self._pool.submit(self.hashes.update, features)
        table = block.to_arrow()
        if self._writer is None:
            texts = [f.name for f in table.schema if not pa.types.is_primitive(f.type)]
            self._writer = pq.ParquetWriter(
                str(self._path), table.schema, compression="zstd", use_dictionary=texts
            )
        if block.height:
            self._writer.write_table(table, row_group_size=block.height)


def require_kind(path: Path) -> None:
    """Return if a set can be written to such a file.

    Raises:
        InputError: It is neither .parquet nor .csv, its folder does not exist, or it is a folder.
    """
    if path.suffix not in KINDS:
        raise InputError(
            f"{path} is of no known kind.",
            expected="a .parquet or .csv file",
            fix="Write its end in small letters." if path.suffix.lower() in KINDS else None,
            effect=_NOTHING,
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(
            f"The training set can't be written to {path}.",
            expected="a folder that exists",
            got="a folder of that very name" if path.is_dir() else None,
            fix="Create it, or choose another place.",
            effect=_NOTHING,
        )


@contextmanager
def exporting(
    data: Path, path: Path, *, moving: bool = False
) -> Iterator[Callable[[Manifest], None]]:
    """Write a set beside a file, and yield what puts it in the file's place with its manifest.

    Until that is called the file is what it was: what can fail has been done by then.

    Args:
        data: The set's Parquet file.
        moving: Whether it is not needed where it is, so that it may be renamed.

    Raises:
        InputError: The folder can't be written, or CSV can't hold a column.
    """
    partial = _partial(path)
    try:
        with _writing(path):
            if path.suffix == ".csv":
                pl.scan_parquet(data, glob=False).sink_csv(partial)
            elif moving:
                shutil.move(data, partial)
            else:
                shutil.copyfile(data, partial)
        yield lambda manifest: _put(partial, path, manifest)
    finally:
        partial.unlink(missing_ok=True)


def _put(partial: Path, path: Path, manifest: Manifest) -> None:
    where, content = beside(path), manifest.to_bytes()
    with _writing(path):
        # The manifest of what was here before is none of what will be here; the same set's stays,
        # for it may be the only one.
        if not describes(where, manifest):
            where.unlink(missing_ok=True)
        partial.replace(path)
        crash_point("set_exported")
        written = _partial(where)
        try:
            written.write_bytes(content)
            written.replace(where)
        finally:
            written.unlink(missing_ok=True)


def describes(file: Path, manifest: Manifest) -> bool:
    """Whether a file is a manifest of the very set of another one."""
    try:
        there = Manifest.from_bytes(file.read_bytes(), str(file))
    except (OSError, InputError):
        return False
    return (there.spine, there.output, there.mode, there.timestamp, there.time_zone) == (
        manifest.spine,
        manifest.output,
        manifest.mode,
        manifest.timestamp,
        manifest.time_zone,
    )


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"The training set can't be written to {path}.",
            got=first_line(error),
            fix="Choose another place; lists and structs need .parquet.",
            effect=_NOTHING,
        ) from error
