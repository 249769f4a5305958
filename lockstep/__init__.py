"""Lockstep: a feature is a promise. Audited days in Delta, the same bits in Redis."""

from typing import TYPE_CHECKING

from lockstep.errors import LockstepError
from lockstep.project import local
from lockstep.schema import Entity, Feature, Features
from lockstep.sources import Snapshot, Source
from lockstep.view import FeatureSet, FeatureView, feature_view

if TYPE_CHECKING:
    from lockstep.store import Store

__all__ = [
    "Entity",
    "Feature",
    "FeatureSet",
    "FeatureView",
    "Features",
    "LockstepError",
    "Snapshot",
    "Source",
    "feature_view",
    "local",
    "open",
]


def open(folder: str | None = None) -> "Store":  # noqa: A001 - lockstep.open() reads well
    """Open the project at or above `folder`, the current one if not given.

    Raises:
        ConfigError: There is no project there, or its settings are wrong.
    """
    from lockstep.store import open_store

    return open_store(folder)
