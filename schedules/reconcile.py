"""The sensor that watches Redis, and the job that rebuilds from Delta what was lost there."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import dagster as dg

from feature_assets._build import online_key
from lockstep.errors import OnlineError
from lockstep.last_look import Memory
from lockstep.reconcile import Finding, Look, Repaired, look, mark, reconcile
from lockstep.store import Store
from lockstep.throttle import paced
from lockstep.time import micros
from lockstep.view import FeatureView
from resources.store import StoreResource

EVERY: Final = 15
"""Seconds between two looks; with the look itself well within the 30 that are promised."""

INCIDENT: Final = "lockstep/incident"
FOUND: Final = "lockstep/found"
_ASKED: Final = "lockstep/asked"
_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_OP: Final = "rebuild_online"
_LOOKING: Final = 30.0  # seconds of a tick; Dagster ends one after 60
_FIRST_RETRY: Final = 60
_LAST_RETRY: Final = 1800


class RebuildOnline(dg.Config):
    """What a repair is asked for."""

    views: list[str] | None = None
    """Names of views; all if none is named."""


def reconcile_job(views: Sequence[FeatureView]) -> dg.JobDefinition:
    """Return the job that looks at views online once more and repairs what it finds."""
    by_name = {view.name: view for view in views}

    @dg.op(
        name=_OP,
        description="Compares views online with Delta, and rebuilds those that differ.",
    )
    def rebuild_online(
        context: dg.OpExecutionContext, config: RebuildOnline, lockstep: StoreResource
    ) -> None:
        store = lockstep.open()
        chosen = [by_name[name] for name in config.views or ()] or list(by_name.values())
        memory = Memory.of_store(store.project.state, store.online_store)
        seen, repaired = reconcile(
            store.lake,
            store.online_store,
            chosen,
            now=store.now,
            memory=memory,
            patient=False,
            throttle=paced,
        )
        for sentence in seen.notes:
            context.log.warning(sentence)
        for each in repaired:
            context.log.info("%s: %s %s", each.finding.view, each.finding.sentence, each.sentence)
            context.log_event(
                dg.AssetObservation(online_key(by_name[each.finding.view]), metadata=shown(each))
            )
        context.add_output_metadata(
            {"views": len(seen.views), "repaired": dg.MetadataValue.md(as_table(repaired))}
        )
        if broken := [each for each in repaired if not each.holds]:
            raise dg.Failure(
                " ".join(f"{each.finding.view}: {each.sentence}" for each in broken),
                metadata={each.finding.view: each.finding.sentence for each in broken},
                allow_retries=False,
            )

    @dg.job(
        name="reconcile",
        description="Brings Redis back to what is committed in Delta, where it is not.",
    )
    def job() -> None:
        rebuild_online()

    return job


def shown(repaired: Repaired) -> dict[str, str | int | bool]:
    """Return what the UI shows of one repair: the finding, what was pushed, and parity."""
    pushed, parity = repaired.pushed, repaired.parity
    found: dict[str, str | int | bool] = {
        "finding": repaired.finding.code,
        "what": repaired.finding.sentence,
        "since": repaired.finding.since.isoformat(),
        "holds": repaired.holds,
        "parity": repaired.sentence,
    }
    if pushed:
        found |= {
            "rows_written": pushed.receipt.written,
            "rows_wiped": pushed.wiped,
            "delta_version": pushed.version,
        }
    if parity:
        found |= {
            "entities": parity.entities,
            "equal": parity.equal,
            "mismatch": parity.mismatch,
            "missing": parity.missing,
            "extra": parity.extra,
        }
    return found


def as_table(repaired: Sequence[Repaired]) -> str:
    """Return a Markdown table of repairs."""
    rows = [
        f"| {each.finding.view} | {each.finding.code} | {each.finding.sentence} | {each.sentence} |"
        for each in repaired
    ]
    return "\n".join(
        ["| view | finding | what was wrong | after the repair |", "|---|---|---|---|", *rows]
    )


def reconcile_sensor(job: dg.JobDefinition, views: Sequence[FeatureView]) -> dg.SensorDefinition:
    """Return the sensor that looks at the views online and requests what repairs them.

    A view that has lost something is marked as not ready in the same tick. The cursor only says
    with which view to go on, where there are too many for one tick: every tick judges what is
    there, so losing the cursor loses nothing.
    """
    by_name = {view.name: view for view in views}

    @dg.sensor(
        name="reconcile",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices within 30 seconds what Redis has lost, and has it rebuilt from Delta.",
    )
    def sensor(context: dg.SensorEvaluationContext, lockstep: StoreResource) -> dg.SensorResult:
        store = lockstep.open()
        try:
            online = store.online_store
        except OnlineError as error:  # the project's own server was never started
            return dg.SensorResult(skip_reason=str(error))
        until = time.monotonic() + _LOOKING
        order = _from(list(by_name), context.cursor)
        seen = look(
            store.lake,
            online,
            [by_name[name] for name in order],
            now=store.now,
            memory=_memory_of(store),
            enough=lambda: time.monotonic() > until,
        )
        seen = mark(online, seen)
        for sentence in seen.notes:
            context.log.warning(sentence)
        requests = list(run_requests(seen, _at_work(context.instance, seen.at)))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else _why_none(seen),
            cursor=seen.views[-1] if seen.views else None,
        )

    return sensor


def run_requests(seen: Look, at_work: set[str]) -> Iterator[dg.RunRequest]:
    """Yield one request per incident: the views whose fault was seen first at the same instant.

    While its run is under way nothing is requested; where one has not helped, the next ones come
    at growing distances.

    Args:
        at_work: Incidents whose run has not ended.
    """
    incidents: dict[str, list[Finding]] = {}
    for finding in seen.findings:
        incidents.setdefault(str(micros(finding.since)), []).append(finding)
    for incident, findings in incidents.items():
        if incident in at_work:
            continue
        waited = (seen.at - findings[0].since).total_seconds()
        yield dg.RunRequest(
            run_key=f"{incident}:{attempt_after(waited)}",
            run_config=dg.RunConfig(
                ops={_OP: RebuildOnline(views=sorted(found.view for found in findings))}
            ),
            tags={INCIDENT: incident, _ASKED: seen.at.isoformat(), FOUND: _said(findings)},
        )


def attempt_after(seconds: float) -> int:
    """Return which attempt is due so long after an incident: 1, 3, 7 … minutes, then every 30."""
    attempt, due, step = 0, _FIRST_RETRY, _FIRST_RETRY
    while seconds >= due:
        attempt += 1
        step = min(2 * step, _LAST_RETRY)
        due += step
    return attempt


def _said(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{found.view}: {found.code}" for found in findings)


def _at_work(instance: dg.DagsterInstance, at: datetime) -> set[str]:
    """Return the incidents whose run has not ended; one that takes too long was perhaps killed."""
    filters = dg.RunsFilter(job_name="reconcile", statuses=_UNFINISHED)
    asked = [run.tags for run in instance.get_runs(filters) if INCIDENT in run.tags]
    newest = at - timedelta(seconds=_LAST_RETRY)
    return {tags[INCIDENT] for tags in asked if datetime.fromisoformat(tags[_ASKED]) > newest}


def _why_none(seen: Look) -> str:
    if seen.findings:
        return "A repair is under way."
    return f"{len(seen.views)} views are online as they are committed."


def _from(names: list[str], last: str | None) -> list[str]:
    """Return the names, beginning behind the last one that was looked at."""
    start = names.index(last) + 1 if last in names else 0
    return names[start:] + names[:start]


@cache
def _memory_of(store: Store) -> Memory:
    """What the looks of this process remember; a tick is one call among many."""
    return Memory.of_store(store.project.state, store.online_store)
