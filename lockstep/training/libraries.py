"""Versions of what has a say in the bits of a result."""

import platform
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import lockstep

_NAMES: Final = ("lockstep", "polars", "pyarrow", "numpy", "deltalake")


@cache
def versions() -> dict[str, str]:
    """Return library → version, and Python's own."""
    found = {"python": platform.python_version()}
    for name in _NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its sources
            found[name] = _of_sources()
    return found


def _of_sources() -> str:
    file = Path(lockstep.__file__).parents[1] / "pyproject.toml"
    if not file.is_file():
        return "unknown"
    return f"{tomllib.loads(file.read_text('utf-8'))['project']['version']}+sources"
