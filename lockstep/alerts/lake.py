"""Problems that the lake shows: quarantine, drift, age, contracts, late files, shifted hours."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from lockstep.alerts.overdue import command_for
from lockstep.alerts.problem import Drifting, Look, Problem, problem
from lockstep.alerts.unexpected import UNEXPECTED, unexpected
from lockstep.catalog import Catalog
from lockstep.episodes import Streak, drift_numbers, fold
from lockstep.errors import ContractChangedError, LockstepError
from lockstep.freshness import Freshness, data_through
from lockstep.lake import Lake
from lockstep.landing import breaks_schema
from lockstep.landing import look as look_at_landing
from lockstep.late import late_and_duplicate
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.sources import Readable, Source
from lockstep.status import code_versions
from lockstep.stores.day_index import Head
from lockstep.time import as_of, last_full_day, span
from lockstep.view import FeatureView
from lockstep.zone_shift import zone_shift

LATE: Final = timedelta(hours=1)
"""How long late files may wait: the sensor of landed files needs a minute and a run."""

RECENT: Final = 28
"""So many of the newest days of a view without ttl are compared with its code."""

WARNED: Final = timedelta(days=1)
"""How long after it was certified a day that is not the newest is told to break what only warns."""

_BROKEN: Final = "run_failed:broken"
_EACH: Final = "quarantined", "held_file"
_OF_VIEWS: Final = "stale", "drift", "contract_changed", "code_changed", "cardinality", "soda"
_OF_SOURCES: Final = "late_data", "zone_shift"


@dataclass(frozen=True)
class _Asked:
    lake: Lake
    catalog: Catalog
    now: datetime
    drifting: list[Drifting] = field(default_factory=list)
    _heads: dict[str, Head | None] = field(default_factory=dict)

    def head(self, of: Readable) -> Head | None:
        """What is committed of a view, source or snapshot, read once."""
        if of.name not in self._heads:
            self._heads[of.name] = self.lake.table(of).head_or_none()
        return self._heads[of.name]

    @cached_property
    def waiting(self) -> list[Quarantined]:
        return Quarantine(self.lake.quarantine).open_items()


def look_at_lake(lake: Lake, catalog: Catalog, now: datetime, owner: str) -> Look:
    """Return the problems that the lake shows at an instant.

    What cannot be looked at is said to be unknown and hides nothing else.

    Args:
        owner: Who answers for a file that is broken, so that nobody knows whose it is.
    """
    asked = _Asked(lake, catalog, now)
    found: list[Problem] = []
    unknown: dict[str, str] = {}

    def ask(beginning: str, finder: Callable[[], Iterator[Problem]]) -> None:
        try:
            found.extend(finder())
        except LockstepError as error:
            unknown[beginning] = str(error)
        except UNEXPECTED as error:
            unknown[beginning] = unexpected(f"{beginning} could not be looked at", error)

    for path, why in catalog.broken.items():
        # Of what it declared nothing is known, so nothing of it is over.
        unknown |= {f"{kind}:{path.stem}": why for kind in (*_EACH, *_OF_VIEWS, *_OF_SOURCES)}
        found.append(_broken(path.stem, owner, now))
    ask("quarantined", lambda: _quarantined(asked))
    ask("held_file", lambda: _held_files(asked))
    for view in catalog.views.values():
        for kind, finder in _VIEW_FINDERS.items():
            ask(f"{kind}:{view.name}", lambda view=view, finder=finder: finder(asked, view))  # type: ignore[misc]
    for source in catalog.sources.values():
        ask(f"late_data:{source.name}", lambda source=source: _late(asked, source))  # type: ignore[misc]
        ask(f"late_data:{source.name}:unusual", lambda source=source: _unusual(asked, source))  # type: ignore[misc]
        ask(f"zone_shift:{source.name}", lambda source=source: _shifted(asked, source))  # type: ignore[misc]
    sees = frozenset({_BROKEN, *_EACH, *_OF_VIEWS, *_OF_SOURCES})
    return Look(found, sees, unknown, asked.drifting)


def owners_of(catalog: Catalog) -> dict[str, str]:
    """Return name → owner of every view, source and snapshot."""
    return {
        **{name: source.owner for name, source in catalog.sources.items()},
        **{name: snapshot.owner for name, snapshot in catalog.snapshots.items()},
        **{name: view.contract.owner for name, view in catalog.views.items()},
    }


def _broken(name: str, owner: str, now: datetime) -> Problem:
    return problem(
        f"{_BROKEN}:{name}",
        name,
        f"The view file {name}.py cannot be imported, so nothing of it is computed; what was "
        "committed is served. Other views go on.",
        owner=owner,
        since=now,
        fix="lockstep views",
    )


def _quarantined(asked: _Asked) -> Iterator[Problem]:
    owners = owners_of(asked.catalog)
    for item in asked.waiting:
        if item.kind != "frame" or item.name not in owners:
            continue
        days = span(item.touches)
        checks = [v for v in item.details.get("verdicts", ()) if not v["passed"]]
        yield problem(
            f"quarantined:{item.name}:{days}",
            f"{item.name} {days}",
            f"{item.name} of {days} did not pass its audit: {item.reason} Nothing of it is served; "
            "what was certified before stays online and grows older.",
            owner=owners[item.name],
            since=datetime.fromisoformat(item.found_at),
            fix=f"lockstep quarantine show {item.name} {item.item}",
            details={
                "item": item.item,
                "days": days,
                "checks": ", ".join(v["check"] for v in checks if v.get("severity") == "block"),
                "run_id": str(item.details.get("run_id", "")),
            },
        )


def _held_files(asked: _Asked) -> Iterator[Problem]:
    owners = owners_of(asked.catalog)
    for item in asked.waiting:
        if item.kind != "file" or item.name not in owners:
            continue
        held = f"{span(item.touches)} waits" if item.touches else "Days that it may touch wait"
        wrong = "breaks its schema" if breaks_schema(item.reason) else "is not usable"
        yield problem(
            f"held_file:{item.name}:{item.item}",
            f"{item.name} {item.item}",
            f"A landed file of {item.name} {wrong}: {item.reason} {held} for it; what was "
            "certified before stays.",
            owner=owners[item.name],
            since=datetime.fromisoformat(item.found_at),
            fix=f"lockstep quarantine show {item.name} {item.item}",
            details={"item": item.item, "days": span(item.touches)},
        )


def _stale(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    head = asked.head(view)
    through = None if head is None else data_through(head)
    if through is None:  # never built, so nothing grows old
        return
    limit = view.contract.freshness
    found = Freshness(view.name, through, asked.now - through, limit)
    if not found.holds:
        yield problem(
            f"stale:{view.name}",
            view.name,
            f"{found.sentence} Its data ends at {through:%Y-%m-%d %H:%M} UTC; rows are served "
            "until their ttl, each with its age.",
            owner=view.contract.owner,
            since=through + limit,
            fix=command_for(view, last_full_day(asked.now, asked.lake.project.zone), asked.head),
            details={
                "data_through": through.isoformat(),
                "limit_hours": f"{limit / timedelta(hours=1):.1f}",
            },
        )


def _drifts(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    head = asked.head(view)
    records = head.days if head else {}
    numbers = {day: drift_numbers(record.note) for day, record in records.items()}
    for streak in fold(view, numbers).values():
        if not streak.alerting or not streak.days:
            continue
        days = [str(day) for day in streak.days]
        over = " and ".join(str(each) for each in streak.exceeded[-1])
        key = f"drift:{streak.feature}"
        asked.drifting.append(Drifting(key, streak.feature, tuple(days)))
        yield problem(
            key,
            streak.feature,
            f"{streak.feature} has drifted for {len(days)} days in a row ({span(streak.days)}): "
            f"{over} on the last one. The rows keep their other promises and are served.",
            owner=view.contract.owner,
            since=as_of(streak.days[0], asked.lake.project.zone),
            fix="lockstep training-sets list",
            details=_drift_details(streak),
        )


def _drift_details(streak: Streak) -> dict[str, str]:
    return {
        "days": str(len(streak.days)),
        "first_day": str(streak.days[0]),
        "last_day": str(streak.days[-1]),
        **{each.word.lower(): f"{each.value:.4f}" for each in streak.exceeded[-1]},
        **{f"limit_{each.word.lower()}": f"{each.limit:g}" for each in streak.exceeded[-1]},
    }


def _contract(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    table = asked.lake.table(view)
    if not table.exists():
        return
    try:
        table.open_for_writing()
    except ContractChangedError as error:
        yield problem(
            f"contract_changed:{view.name}",
            view.name,
            f"{error.culprit} Nothing new of it is committed; what was committed is served.",
            owner=view.contract.owner,
            since=asked.now,
            fix=f"lockstep materialize {view.name} --rebuild",
        )


def _recoded(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    """Days that still count, computed by other code than is declared: a release changed it."""
    head, lake, ttl = asked.head(view), asked.lake, view.contract.ttl
    days = sorted(head.days) if head else []
    valid = [day for day in days if ttl and as_of(day, lake.project.zone) + ttl >= asked.now]
    counting = {day: head.days[day] for day in (valid if ttl else days[-RECENT:])} if head else {}
    # What the commits note is enough to say that all is well; the ledger is only read if it isn't.
    if all(each.note.get("code_version") == view.code_version for each in counting.values()):
        return
    versions = code_versions(counting, lake.latest_entries(view.name))
    old = {day for code, made in versions.items() if code != view.code_version for day in made}
    if old:
        yield problem(
            f"code_changed:{view.name}",
            view.name,
            f"{view.name} was changed to code {view.code_version}, and {len(old)} of the "
            f"{len(counting)} days that count now ({span(old)}) were computed by other code. They "
            "are served as they are, and training sets mix both.",
            owner=view.contract.owner,
            since=asked.now,
            fix=f"lockstep materialize {view.name} --days {_range(old)}",
            details={"code_version": view.code_version, "days": span(old)},
        )


def _crowded(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    """What only warns, few rows or new entities: a day with too many rows is in quarantine."""
    return _warned(asked, view, "cardinality")


def _hand_written(asked: _Asked, view: FeatureView) -> Iterator[Problem]:
    """Hand-written checks of level `warn`: a day on which another one failed is in quarantine."""
    return _warned(asked, view, "soda")


def _warned(asked: _Asked, view: FeatureView, check: str) -> Iterator[Problem]:
    """What a check warns of on the newest day, or on a day that was certified a moment ago."""
    head = asked.head(view)
    records = head.days if head else {}
    new = {day for day, record in records.items() if asked.now - record.known_at <= WARNED}
    judged = {day: _warning(records[day].note, check) for day in {*new, *sorted(records)[-1:]}}
    warned = {day: verdict for day, verdict in judged.items() if verdict is not None}
    if not warned:
        return
    last = max(warned)
    others = f" So it is on {len(warned)} days: {span(warned)}." if len(warned) > 1 else ""
    yield problem(
        f"{check}:{view.name}",
        view.name,
        f"{view.name} of {last}: {warned[last]['message']}{others} What it warns of is committed "
        "and served.",
        owner=view.contract.owner,
        since=min(records[day].known_at for day in warned),
        fix=f"lockstep preview {view.name} --day {last}",
        details={"day": str(last), "days": span(warned), **_numbers(warned[last])},
    )


def _warning(note: Mapping[str, Any], check: str) -> Mapping[str, Any] | None:
    """Return the verdict of a check that failed on a committed day: nobody released the day."""
    for verdict in note.get("verdicts", ()):
        if verdict["check"] == check and not (verdict["passed"] or verdict.get("released")):
            found: Mapping[str, Any] = verdict
            return found
    return None


def _numbers(verdict: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{value:g}" for name, value in verdict.get("numbers", {}).items()}


def _late(asked: _Asked, source: Source) -> Iterator[Problem]:
    """Closed days for which files landed that nobody ingests; what is held has its own problem."""
    lake = asked.lake
    landed = look_at_landing(lake.landing, lake.landing_cache, source, lake.project.zone)
    read = lake.latest_entries(source.name)
    late = {
        day
        for day, files in landed.fingerprints().items()
        if day in read and read[day].inputs["files"] != files
    } - _held_days(asked, source)
    waiting = [file.modified_ns for file in landed.good if file.touches & late]
    if not waiting:
        return
    landed_at = datetime.fromtimestamp(min(waiting) / 1e9, UTC)
    since = max(landed_at, *(read[day].recorded_at for day in late))
    if asked.now - since >= LATE:
        yield problem(
            f"late_data:{source.name}",
            source.name,
            f"{len(late)} committed days of {source.name} ({span(late)}) have files that landed "
            "later and were not ingested. What is served was computed without them.",
            owner=source.owner,
            since=since,
            fix=f"lockstep materialize {source.name} --days {_range(late)}",
            details={"days": span(late)},
        )


def _unusual(asked: _Asked, source: Source) -> Iterator[Problem]:
    """More rows than usual that came after their day was certified, or came twice."""
    found = late_and_duplicate(asked.lake, source, asked.now)
    if found is None or found.holds:
        return
    yield problem(
        f"late_data:{source.name}:unusual",
        source.name,
        f"{found.sentence} Days that late rows fall on are computed again as they come.",
        owner=source.owner,
        since=asked.now,
        fix="lockstep status",
        details={"late_rows": str(found.late), "duplicates": str(found.duplicates)},
    )


def _held_days(asked: _Asked, source: Source) -> set[date]:
    items = (item for item in asked.waiting if item.kind == "file" and item.name == source.name)
    return {day for item in items for day in item.touches}


def _range(days: set[date]) -> str:
    return f"{min(days)}..{max(days)}"


def _shifted(asked: _Asked, source: Source) -> Iterator[Problem]:
    found = zone_shift(asked.lake, source, asked.now)
    if found is None:
        return
    yield problem(
        f"zone_shift:{source.name}",
        source.name,
        f"{found.sentence} Features of hours and of days count those events at the wrong time.",
        owner=source.owner,
        since=as_of(found.first, asked.lake.project.zone),
        fix=f"lockstep materialize {source.name} --days {found.first}..{found.last}",
        details={
            "offset_minutes": str(found.offset_minutes),
            "first_day": str(found.first),
            "last_day": str(found.last),
            "zones": ", ".join(found.names),
        },
    )


_VIEW_FINDERS: Final[Mapping[str, Callable[[_Asked, FeatureView], Iterator[Problem]]]] = {
    "stale": _stale,
    "drift": _drifts,
    "contract_changed": _contract,
    "code_changed": _recoded,
    "cardinality": _crowded,
    "soda": _hand_written,
}
