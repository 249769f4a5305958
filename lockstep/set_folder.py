"""Where the lake keeps training sets: `training_sets/<name>/manifest.json`, and files beside it."""

from collections.abc import Iterator
from typing import Final

from lockstep.stores.files import Place

SETS: Final = "training_sets"
WORK: Final = ".work-"
"""How the folder of a build that is under way begins, in the folder of the kept sets."""
MANIFEST: Final = "manifest.json"
VOIDED: Final = "voided.json"
"""Stands where the manifest was of a set that an erasure has voided."""


def in_set(name: str, file: str) -> str:
    """Return where a file of a kept set is, relative to the lake."""
    return f"{SETS}/{name}/{file}"


def names_with(place: Place, file: str = MANIFEST) -> Iterator[str]:
    """Yield the sets whose folder holds the file; a set is there when its manifest is."""
    for info in place.list(SETS):
        _, name, *below = info.path.split("/")
        if below == [file] and not name.startswith(WORK):
            yield name
