"""Errors that nobody foresaw: one part is unknown then, or one receiver not told, and no other."""

import logging
import traceback
from typing import Final

import polars as pl

UNEXPECTED: Final = (Exception, pl.exceptions.PanicException)
"""What may be caught where one part must not blind all: a panic of Polars is no Exception."""
_LOGGER: Final = logging.getLogger("lockstep.alerts")


def unexpected(what: str, error: BaseException) -> str:
    """Log which error came from where, and return its type: its words may hold anything.

    Args:
        what: What could not be done because of it, as the beginning of a sentence.
    """
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    _LOGGER.error("%s: %s at %s. This is a bug of what stands there.", what, kind, where)
    return kind
