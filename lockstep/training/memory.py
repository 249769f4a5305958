"""How much memory there is, and how much a join would take."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import polars as pl

from lockstep.errors import InputError

DEFAULT_SHARE: Final = 0.6
"""Share of what is free that a training set takes unless told otherwise."""
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
_TEXT: Final = 32
"""Bytes that a text or a list is taken to need, its value included, if nobody has looked."""


def available_bytes() -> int:
    """Return how much memory this process may still take, container limits included."""
    free = [_meminfo()]
    for limit, used in _CGROUPS:
        most, taken = _number(Path(limit)), _number(Path(used))
        if most is not None and taken is not None:
            free.append(max(0, most - taken))
    return min(free)


def budget(asked: int | None) -> int:
    """Return the bytes that one training set may take.

    Args:
        asked: None is 60 % of what is free.

    Raises:
        InputError: It is not positive.
    """
    if asked is None:
        return int(available_bytes() * DEFAULT_SHARE)
    if asked < 1:
        raise InputError(f"A memory budget of {asked} bytes is none.", effect="Nothing was joined.")
    return asked


def parse_bytes(text: str) -> int:
    """Return the bytes of `4GB`, `500M` or a plain number.

    Raises:
        InputError: It is neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(
            f"{text!r} is no amount of memory.",
            expected="bytes, or a number with KB, MB, GB or TB, e.g. 4GB",
            effect="Nothing was joined.",
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def row_bytes(types: Mapping[str, pl.DataType], widths: Mapping[str, int] | None = None) -> int:
    """Return about how many bytes a row of such columns takes in memory.

    Args:
        types: Column → type.
        widths: Column → bytes of a value, of those that were looked at.
    """
    known = widths or {}
    return sum(known.get(name) or _width(dtype) for name, dtype in types.items())


def has_fixed_width(dtype: pl.DataType) -> bool:
    """Return whether the type says how many bytes a value takes."""
    if isinstance(dtype, pl.Struct):
        return all(has_fixed_width(inner) for inner in _fields(dtype))
    if isinstance(dtype, pl.Array):
        return has_fixed_width(_inner(dtype))
    return not isinstance(dtype, pl.String | pl.Binary | pl.List)


def _width(dtype: pl.DataType) -> int:
    if dtype.is_decimal():
        return 16
    if dtype.is_numeric() or dtype.is_temporal() or isinstance(dtype, pl.Boolean):
        return 8
    if isinstance(dtype, pl.Struct):
        return sum(map(_width, _fields(dtype)))
    if isinstance(dtype, pl.Array):
        return dtype.size * _width(_inner(dtype))
    return _TEXT


def _fields(dtype: pl.Struct) -> Iterator[pl.DataType]:
    for field in dtype.fields:
        yield field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()


def _inner(dtype: pl.Array) -> pl.DataType:
    return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()


def _meminfo() -> int:
    file = Path("/proc/meminfo")
    if file.is_file():
        found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _number(file: Path) -> int | None:
    """Return what a control file says; None where it is not there or says no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
