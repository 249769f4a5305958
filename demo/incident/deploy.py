"""Another release of the view files: an edited copy of their package, imported as a project's."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from demo.incident.base import chosen_catalog, the_project
from lockstep.catalog import Catalog
from lockstep.errors import InputError


def redeployed(folder: Path, edits: Mapping[str, tuple[str, str]], names: Sequence[str]) -> Catalog:
    """Return what the views package declares after some edits.

    Args:
        folder: Where the copy goes.
        edits: View file → the text to replace, and by what.
        names: The views that are wanted.

    Raises:
        InputError: A file does not hold the text that is to be replaced.
    """
    project = the_project()
    # Modules are cached per process by name, so every release has a name of its own.
    package = f"views_{uuid4().hex[:10]}"
    target = folder / package
    target.mkdir()
    for file in (project.folder / project.views).iterdir():
        if file.suffix == ".py" and (file.stem == "__init__" or not file.stem.startswith("_")):
            text = file.read_text(encoding="utf-8").replace(f"{project.views}.", f"{package}.")
            text = _edited(text, *edits[file.stem]) if file.stem in edits else text
            (target / file.name).write_text(text, encoding="utf-8")
        elif file.suffix == ".yml":
            shutil.copy(file, target)
    return chosen_catalog(replace(project, folder=folder, views=package), names)


def _edited(text: str, before: str, after: str) -> str:
    if before not in text:
        raise InputError(
            f"The view file does not hold {before!r}.",
            fix="Write the edit of this incident anew: the file has changed.",
            effect="Nothing was deployed.",
        )
    return text.replace(before, after)
