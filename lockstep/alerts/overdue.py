"""The command that builds what a late view lacks: its newest days, and what they are read from."""

from collections.abc import Callable, Collection
from datetime import date

from lockstep.errors import LockstepError
from lockstep.sources import Readable
from lockstep.stores.day_index import Head
from lockstep.time import SNAPSHOT_DAY, days_between
from lockstep.view import FeatureView

HeadOf = Callable[[Readable], Head | None]


def command_for(view: FeatureView, newest: date, head: HeadOf) -> str:
    """Return the command that builds the days after the newest committed one; inputs come first.

    If no day is missing, or what is committed of an input cannot be told, it is one that looks.

    Args:
        newest: The newest day that is due.
        head: What is committed; None if there is no table.
    """
    committed = _committed(view, head)
    missing = days_between(max(committed, default=newest), newest)[1:]
    lacking: dict[str, set[date]] = {}
    try:
        _collect(view, missing, head, lacking)
    except LockstepError:  # the view is late all the same, and somebody has to be told
        return "lockstep status"
    if not missing:
        return "lockstep status"
    dated = set().union(*lacking.values(), missing) - {SNAPSHOT_DAY}
    names = " ".join([*lacking, view.name])
    return f"lockstep materialize {names} --days {min(dated)}..{max(dated)}"


def _collect(
    view: FeatureView, days: Collection[date], head: HeadOf, lacking: dict[str, set[date]]
) -> None:
    """Add input → days that the view's days read and nobody committed, what it reads before it."""
    for item in view.inputs:
        of, committed = item.of, _committed(item.of, head)
        read = {
            each for day in days for each in item.days_read(day, live=min(committed, default=day))
        }
        missing = {day for day in read if day >= of.start and day not in committed}
        if missing and isinstance(of, FeatureView):
            _collect(of, missing, head, lacking)
        if missing:
            lacking.setdefault(of.name, set()).update(missing)


def _committed(of: Readable, head: HeadOf) -> Collection[date]:
    found = head(of)
    return found.days if found else ()
