"""What came of the days of a step: told to Dagster day by day, and how the step ends.

A day that is not certified must neither stop the other days nor be forgotten: the good days go on
to the steps below, and a last step of the run fails and names what failed above it. What an asset
could not certify is kept between the steps as a tag of the run, where people see it too.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, Final

import dagster as dg

from feature_assets._events import CheckOutcome, DayEvents, finish, record_days
from feature_assets._landed import for_landed_files
from lockstep.errors import LockstepError
from lockstep.outcome import DayOutcome
from lockstep.progress import report
from lockstep.quality import Verdict
from lockstep.time import parse_days, span

BATCH: Final = 16
"""Days told to Dagster at once."""

NOT_CERTIFIED: Final = "not_certified/"
"""First part of the run tag that names, for the asset in its second part, the days that failed."""

NAMES_DAYS: Final = "days"
"""Metadata of a failure that only names days, each of which was told with its own reason."""

Failed = Mapping[date, str]
Checked = Callable[[DayOutcome, Verdict], Mapping[str, Any]]


def _no_check(_: DayOutcome, verdict: Verdict) -> Mapping[str, Any]:
    return verdict.numbers


def tell(
    context: dg.AssetExecutionContext,
    outcomes: Iterator[DayOutcome],
    metadata: Callable[[DayOutcome], Mapping[str, Any]],
    checked: Checked = _no_check,
) -> Failed:
    """Record the days as they come, in batches; return day → message of those not certified.

    In a run for landed files a day that had to be skipped is no failure.

    Args:
        metadata: What is shown of a certified day.
        checked: What is shown of a check on a day, certified or not.
    """
    failed: dict[date, str] = {}
    batch: list[DayEvents] = []
    try:
        for outcome in outcomes:
            batch.append(_events(outcome, metadata, checked))
            report_day(outcome)
            if not outcome.certified:
                context.log.warning(outcome.message)
                if outcome.status != "skipped" or not for_landed_files(context):
                    failed[outcome.day] = outcome.message
            if len(batch) >= BATCH:
                record_days(context, batch)
                batch = []
    except LockstepError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    finally:
        record_days(context, batch)
    return failed


def report_day(outcome: DayOutcome) -> None:
    """Report the day to whoever started the run."""
    report(
        "day",
        name=outcome.name,
        day=outcome.day,
        status=outcome.status,
        message=outcome.message,
        rows=outcome.rows,
    )


def _events(
    outcome: DayOutcome, metadata: Callable[[DayOutcome], Mapping[str, Any]], checked: Checked
) -> DayEvents:
    return DayEvents(
        day=str(outcome.day),
        data_version=outcome.content_hash if outcome.certified else None,
        metadata=metadata(outcome) if outcome.certified else {},
        checks=[
            CheckOutcome(
                name=verdict.check,
                passed=verdict.passed or verdict.released,
                blocking=verdict.severity == "block",
                description=verdict.message,
                metadata=checked(outcome, verdict),
            )
            for verdict in outcome.verdicts
        ],
    )


def end(
    context: dg.AssetExecutionContext, name: str, days: Collection[date], failed: Failed
) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
    """End the step that built `days` of `name`.

    Raises:
        Failure: No day is certified, or some day in this run is not and nothing runs after this
            step that would say so.
    """
    if failed and len(failed) == len(days):
        raise failure(name, failed)
    _keep(context, name, failed)
    if failed and not _selected(context, _node(context).child_keys):
        raise failure(name, failed)
    yield from end_last(context)


def end_last(
    context: dg.AssetExecutionContext,
) -> Iterator[dg.Output[None] | dg.MaterializeResult[None]]:
    """End a step; the last of a branch fails if what it is made of failed and nothing else says so.

    Raises:
        Failure: Nothing runs after this step, and something above it is not certified on some day.
    """
    if not _selected(context, _node(context).child_keys) and (unsaid := _unsaid(context)):
        raise dg.Failure(
            f"Not every day of what {context.asset_key.path[-1]} is made of is certified: "
            f"{'; '.join(unsaid)}. The reasons are in the warnings of those steps. What could be "
            "built was built.",
            metadata={NAMES_DAYS: "; ".join(unsaid)},
            allow_retries=False,
        )
    yield from finish(context)


def _unsaid(context: dg.AssetExecutionContext) -> list[str]:
    """Return the assets above that failed, with the days, but for those whose own push says it."""
    kept = _kept(context)
    above = {key.path[-1] for key in _ancestors(context)}
    pushed = {key.path[-1] for key in context.job_def.asset_layer.selected_asset_keys}
    return [
        f"{name} {days}"
        for name, days in sorted(kept.items())
        if days and name in above and f"{name}_online" not in pushed
    ]


def failure(name: str, failed: Failed) -> dg.Failure:
    """Return the failure of a step that names the days and the reason of the first."""
    count = "1 day is" if len(failed) == 1 else f"{len(failed)} days are"
    return dg.Failure(
        f"{name}: {count} not certified ({span(failed)}). {failed[min(failed)]}",
        metadata={NAMES_DAYS: span(failed)},
        allow_retries=False,
    )


def failed_days(context: dg.AssetExecutionContext, name: str) -> set[date]:
    """Return the days of `name` that an earlier step of this run could not certify."""
    text = _kept(context).get(name, "")
    return {day for part in text.split(", ") if part for day in parse_days(part)}


def _keep(context: dg.AssetExecutionContext, name: str, failed: Iterable[date]) -> None:
    """Note the days for the steps below; a run executed again inherits tags, so also none."""
    text = span(failed)
    if _kept(context).get(name, "") != text:
        context.instance.add_run_tags(context.run.run_id, {f"{NOT_CERTIFIED}{name}": text})


def _kept(context: dg.AssetExecutionContext) -> dict[str, str]:
    run = context.instance.get_run_by_id(context.run.run_id)
    tags = run.tags if run else {}
    return {
        tag.removeprefix(NOT_CERTIFIED): text
        for tag, text in tags.items()
        if tag.startswith(NOT_CERTIFIED)
    }


def _node(context: dg.AssetExecutionContext) -> Any:
    return context.job_def.asset_layer.asset_graph.get(context.asset_key)


def _selected(context: dg.AssetExecutionContext, keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
    selected = context.job_def.asset_layer.selected_asset_keys
    return [key for key in keys if key in selected]


def _ancestors(context: dg.AssetExecutionContext) -> set[dg.AssetKey]:
    """Return the running asset and everything that it is made of in this run."""
    graph = context.job_def.asset_layer.asset_graph
    found: set[dg.AssetKey] = set()
    open_keys = [context.asset_key]
    while open_keys:
        key = open_keys.pop()
        if key not in found:
            found.add(key)
            open_keys += _selected(context, graph.get(key).parent_keys)
    return found
