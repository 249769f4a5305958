"""Which days a change reaches: the days of every view, direct or not, whose window contains it."""

from collections.abc import Iterable, Mapping
from datetime import date

from lockstep.sources import Input
from lockstep.time import days_between, following_days
from lockstep.view import FeatureView


def affected_days(
    views: Iterable[FeatureView], changed: Mapping[str, Iterable[date]], newest: date
) -> dict[str, set[date]]:
    """Return view → the days up to `newest` that read a changed day, closing rows included.

    Args:
        views: Views, each after those it reads.
        changed: Name of a source, snapshot or view → its changed days.
    """
    reached: dict[str, set[date]] = {name: set(days) for name, days in changed.items()}
    for view in views:
        days = {
            reading
            for item in view.inputs
            for day in reached.get(item.of.name, ())
            for reading in _reading(view, item, day, newest)
        }
        if days:
            reached.setdefault(view.name, set()).update(days)
    return {name: days for name, days in reached.items() if name not in changed}


def _reading(view: FeatureView, item: Input, day: date, newest: date) -> list[date]:
    return [d for d in _window(view, item, day, newest) if view.start <= d <= newest]


def _window(view: FeatureView, item: Input, day: date, newest: date) -> list[date]:
    if item.reach == "same_day":
        return [day]
    if item.days is not None:
        closing = 1 if view.contract.when_absent == "empty" else 0
        return following_days(day, item.days + closing)
    if item.ttl is not None:
        return [d for d in days_between(day, newest) if day in item.days_read(d, live=day)]
    return days_between(max(day, view.start), newest)
