"""How a run says that it is for landed files: then each asset does only what they touch."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import dagster as dg

from lockstep.affected import affected_days
from lockstep.time import days_between, parse_days
from lockstep.view import FeatureView

LANDED_TAG: Final = "lockstep/landed"


def encode_landed(source: str, first: date, last: date) -> str:
    """Return the tag's value, `transactions=2026-11-01..2026-11-03`."""
    return f"{source}={first}..{last}"


def asked_days(
    context: dg.AssetExecutionContext, name: str, views: Iterable[FeatureView]
) -> list[date]:
    """Return the days of the run that this asset has to do.

    All of the run's days; or, in a run for landed files, those of them that the files touch.

    Args:
        name: The source's or view's name.
        views: Every view, each after those it reads.
    """
    keys: Sequence[str] = context.partition_keys
    days = [date.fromisoformat(key) for key in keys]
    landed = context.run.tags.get(LANDED_TAG)
    if landed is None:
        return days
    source, _, text = landed.partition("=")
    changed = parse_days(text)
    if name == source:
        return changed
    affected = affected_days(views, {source: changed}, max(days))
    return sorted(affected.get(name, set()) & set(days_between(min(days), max(days))))


def for_landed_files(context: dg.AssetExecutionContext) -> bool:
    """Whether the run was started for landed files; then an incomplete window is no failure."""
    return LANDED_TAG in context.run.tags
