"""What `lockstep land` calls in this project: replay the retail data into the landing zone."""

from collections.abc import Callable
from datetime import date

from demo.replay import Landed
from demo.replay import land as replay
from lockstep.store import Store


def land(
    store: Store, first: date, last: date, on_day: Callable[[date], None] | None = None
) -> Landed:
    """Land the files of the days, both included; files that are there already stay untouched."""
    return replay(store.lake.landing, first, last, on_day=on_day)
