"""Why one feature of one entity has the value that it has: the facts gathered, the cause named."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import polars as pl

from lockstep.errors import InputError, OnlineError
from lockstep.reader import Reader
from lockstep.serving.client import url_of
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from lockstep.time import as_of, days_between, is_valid, last_full_day
from lockstep.view import FeatureView, split_feature
from lockstep.why.causes import Cause, Found, named
from lockstep.why.facts import Cell, Facts, Made, Online, Since
from lockstep.why.made import made_now, made_then
from lockstep.why.offline import (
    Answer,
    Asked,
    ended_days,
    known_answer,
    known_days,
    present_answer,
    refused_contract,
)
from lockstep.why.online import online_facts
from lockstep.why.run_logs import logs_of
from lockstep.why.upstream import Windows, quarantined_frames, upstream_facts

if TYPE_CHECKING:
    from lockstep.store import Store

PATIENCE: Final = 2.0
"""Seconds that Redis has for an answer; Delta explains the value without it."""


@dataclass(frozen=True)
class Explanation:
    """The answer.

    Attributes:
        cause: Exactly one.
        sentence: What happened.
        evidence: What the cause is concluded from, a sentence each.
        fix: The command that puts it right; empty if there is nothing to put right.
        first: What somebody has to do before the command.
        also: What else applies, in order of precedence.
        facts: Everything that was looked at.
    """

    cause: Cause
    sentence: str
    evidence: Sequence[str]
    fix: str
    first: str
    facts: Facts
    also: Sequence[Found] = field(default=())

    @property
    def right(self) -> bool:
        """Whether the value is as it should be."""
        return self.cause == "as it should be"


def explain(
    store: "Store", entity: Mapping[str, int | str], feature: str, at: datetime | None = None
) -> Explanation:
    """Return why a feature of an entity has the value that it has, with one named cause.

    Nothing is written but what was learnt of landed files.

    Args:
        entity: Key column → value; text is read as the type that the entity declares.
        feature: `view:feature`.
        at: An instant in the past: what could have been answered then, and what was learnt since.
            None is now, where Redis is looked at too.

    Raises:
        UnknownNameError: There is no such view or feature.
        InputError: A key is missing, is none of the entity's or has another type; the instant is
            naive or lies in the future.
        StoreError: The lake does not answer, or is damaged.
    """
    view_name, feature_name = split_feature(feature)
    store.catalog.features([feature])
    view = store.catalog.view(view_name)
    now = store.now()
    instant = _instant(at, now)
    asked = Asked(store.lake, view, feature_name, typed_keys(view, entity), instant)
    facts = _gathered(store, asked, past=instant < now)
    online = facts.online
    differs = online is not None and online.problem is None and not online.equal
    # A commit and push that ended while we looked is no cause.
    if differs and facts.committed != _revisions(asked.table.head_or_none()):
        facts = _gathered(store, asked, past=False)
    cause, also = named(facts)
    return Explanation(
        cause.cause, cause.sentence, cause.evidence, cause.fix, cause.first, facts, also
    )


def typed_keys(view: FeatureView, given: Mapping[str, int | str]) -> dict[str, int | str]:
    """Return the entity's key columns in their declared order and types.

    Raises:
        InputError: One is missing, is none of the entity's, or is no number where one is needed.
    """
    types = view.contract.entity.key_types
    for name in given:
        if name not in types:
            near = get_close_matches(name, types, n=1)
            raise InputError(
                f"{view.name} describes {view.contract.entity.name}, which has no key {name!r}.",
                expected=" ".join(f"{key}=…" for key in types),
                fix=f"Did you mean {near[0]!r}?" if near else None,
            )
    if missing := [name for name in types if name not in given]:
        raise InputError(
            f"The entity has no value for {missing}.",
            expected=" ".join(f"{key}=…" for key in types),
        )
    return {name: _typed(name, given[name], dtype) for name, dtype in types.items()}


def _typed(name: str, value: int | str, dtype: pl.DataType) -> int | str:
    if dtype == pl.String:
        return str(value)
    try:
        return int(value)
    except ValueError:
        raise InputError(
            f"{name}={value} is not usable.", expected=str(dtype), got=repr(value)
        ) from None


def _instant(at: datetime | None, now: datetime) -> datetime:
    if at is None:
        return now
    if at.tzinfo is None:
        raise InputError(
            f"The instant {at} has no time zone.",
            expected="an instant with its zone, e.g. 2026-11-21T02:00-05:00",
        )
    if at > now:
        raise InputError(
            f"{at.isoformat()} lies in the future.",
            expected=f"an instant up to now, {now.isoformat(timespec='seconds')}",
        )
    return at


@dataclass(frozen=True)
class _Delta:
    """What Delta says, as far as it does not depend on what is missing.

    Attributes:
        days: The committed days that count at the instant, oldest first.
        counting: Those that the value could come from, newest first.
    """

    head: Head | None
    answer: Answer
    days: Sequence[date]
    counting: Sequence[date]
    made: Sequence[Made]
    refused: str | None = None
    since: Since | None = None


def _gathered(store: "Store", asked: Asked, *, past: bool) -> Facts:
    view, contract = asked.view, asked.view.contract
    reader = store.reader()
    delta = _delta_then(asked) if past else _delta_now(asked, reader)
    cell, newest = delta.answer.cell, max(delta.days, default=None)
    due = _expected_day(asked)
    missing = _missing(asked, cell, newest, due, delta.days)
    windows = Windows.reaching(view, delta.counting, missing, reader)
    committed = _revisions(delta.head)
    day = next((made for made in delta.made if made.day == cell.day), next(iter(delta.made), None))
    run_id = day.run_id if day else ""
    return Facts(
        entity=asked.entity,
        view=view.name,
        feature=asked.feature,
        pii=contract.features[asked.feature].pii,
        owner=contract.owner,
        at=asked.at,
        past=past,
        ttl=contract.ttl,
        when_absent=contract.when_absent,
        offline=cell,
        online=None if past else _online(store, asked, delta.head, delta.answer),
        made=delta.made,
        days=len(delta.days),
        newest=newest,
        expected=due,
        missing=missing,
        contract_changed=delta.refused,
        quarantined=quarantined_frames(asked, windows, _oldest(cell), committed),
        upstream=upstream_facts(asked, windows, reader, past=past),
        since=delta.since,
        committed=committed,
        run_id=run_id,
        run_url=_run_url(store.project.dagster_url, run_id),
        logs=logs_of(store.project, run_id, view.name),
    )


def _delta_now(asked: Asked, reader: Reader) -> _Delta:
    head = asked.table.head_or_none()
    if head is None:
        return _Delta(None, Answer(Cell("missing")), [], [], [])
    refused = refused_contract(asked.table)
    answer, days = present_answer(asked, head), ended_days(asked, head)
    counting = _counting_days(answer.cell, days)
    made = list(made_now(asked, head, counting, reader, refused=refused is not None))
    return _Delta(head, answer, days, counting, made, refused)


def _delta_then(asked: Asked) -> _Delta:
    """Return what could be answered at a past instant, and what was learnt since."""
    head = asked.table.head_or_none()
    if head is None:
        return _Delta(None, Answer(Cell("missing")), [], [], [])
    history = asked.table.history(head.version)
    answer, days = known_answer(asked, head, history), sorted(known_days(asked, history))
    made, since = made_then(asked, history, answer.cell, present_answer(asked, head).cell, days)
    return _Delta(head, answer, days, _counting_days(answer.cell, days), made, since=since)


def _online(store: "Store", asked: Asked, head: Head | None, expected: Answer) -> Online:
    try:
        online = OnlineStore(
            url_of(store.project), namespace=store.project.namespace, socket_timeout=PATIENCE
        )
    except OnlineError as error:  # the embedded server was never started
        return Online(problem=str(error), cell=Cell("error"), stopped=True)
    try:
        found = online_facts(asked, online, head, expected)
    finally:
        online.close()
    return found if found.problem is None else replace(found, stopped=_stopped(store))


def _stopped(store: "Store") -> bool:
    """Whether the store is the project's own server, and it does not run."""
    if store.project.redis_url is not None:
        return False
    with suppress(OnlineError):  # its folder is another user's
        return not EmbeddedServer(store.project.state / "redis").running()
    return False


def _counting_days(cell: Cell, days: Sequence[date]) -> list[date]:
    """Return the committed days that the value could come from, newest first."""
    wanted = {_oldest(cell), max(days, default=None)}
    return sorted((day for day in wanted if day is not None), reverse=True)


def _expected_day(asked: Asked) -> date | None:
    """Return the newest day that should be committed at the instant, its landing delay over."""
    delay = asked.view.contract.landing_delay
    due = last_full_day(asked.at - delay, asked.lake.project.zone)
    return due if due >= asked.view.start else None


def _missing(
    asked: Asked, cell: Cell, newest: date | None, due: date | None, days: Sequence[date]
) -> list[date]:
    """Return the days that could hold a newer row, are due, and are not committed."""
    if due is None:
        return []
    after = cell.day or newest
    wanted = [due] if after is None else days_between(after, due)[1:]
    zone, ttl, there = asked.lake.project.zone, asked.view.contract.ttl, set(days)
    return [
        day
        for day in wanted
        if day not in there
        and day >= asked.view.start
        and is_valid(as_of(day, zone), ttl, asked.at)
    ]


def _oldest(cell: Cell) -> date | None:
    """Return the day before which nothing that failed changes the value."""
    return cell.day if cell.status in {"present", "null"} else None


def _revisions(head: Head | None) -> dict[date, int]:
    return {} if head is None else {day: record.revision for day, record in head.days.items()}


def _run_url(base: str | None, run_id: str) -> str | None:
    return f"{base.rstrip('/')}/runs/{run_id}" if base and run_id else None
