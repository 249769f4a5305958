"""The project that a command works on, opened; broken view files are named on the way."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from lockstep.cli.console import warn_broken
from lockstep.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from lockstep.sources import Readable
    from lockstep.store import Store
    from lockstep.view import FeatureView


def opened() -> "Store":
    """Open the project at or above the working directory, and warn of view files that are broken.

    Raises:
        ConfigError: There is no project, or its settings are wrong.
        DeclarationError: Two declarations share a name.
    """
    from lockstep.store import open_store

    store = open_store()
    warn_broken(store.catalog)
    return store


def views_named(store: "Store", names: Sequence[str]) -> "list[FeatureView]":
    """Return the named views, or all of them.

    Raises:
        UnknownNameError: There is no such view.
    """
    return [store.catalog.view(name) for name in names] or list(store.views.values())


def built(store: "Store", views: "Iterable[FeatureView]") -> "list[FeatureView]":
    """Return those of the views that have a table."""
    return [view for view in views if store.lake.table(view).exists()]


def readables(store: "Store") -> "dict[str, Readable]":
    """Return every source, snapshot and view by name, in the order in which they are built."""
    catalog = store.catalog
    return {**catalog.sources, **catalog.snapshots, **catalog.views}


def require_names(store: "Store", names: Sequence[str]) -> None:
    """Raise UnknownNameError if one is no source, snapshot or view."""
    known = readables(store)
    for name in names:
        if name not in known:
            near = _near(name, known)
            raise UnknownNameError(
                f"There is no view, source or snapshot named {name!r}.",
                expected=f"one of {list(known)}",
                fix=f"Did you mean {near!r}?" if near else None,
                effect="Nothing was started.",
            )


def _near(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1)), None)


def ended_days(store: "Store", days: str | None) -> list[date]:
    """Return the days of `FROM..TO`, or the last full day.

    Raises:
        InputError: The text names no days, or a day that has not ended.
    """
    from lockstep.time import last_full_day, parse_days

    newest = last_full_day(store.now(), store.project.zone)
    chosen = [newest] if days is None else parse_days(days)
    if chosen[-1] > newest:
        raise InputError(
            f"{chosen[-1]} has not ended yet in {store.project.zone.key}.",
            expected=f"days up to {newest}",
            fix="Ask for earlier days; a day is computed from everything that happened in it.",
            effect="Nothing was started.",
        )
    return chosen
