"""Versions of what has a say in the bits of a result."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_NAMES: Final = ("lockstep", "polars", "pyarrow", "numpy", "deltalake")


@cache
def versions() -> dict[str, str]:
    """Return library → version, and Python's own."""
    found = {"python": platform.python_version()}
    for name in _NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its sources
            found[name] = "unknown"
    return found
