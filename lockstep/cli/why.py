"""`why`: one feature of one entity, offline and online, with the cause first and the fix."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.asked import given_keys
from lockstep.cli.console import emit_json, out, say, table, text
from lockstep.cli.opened import opened
from lockstep.errors import InputError

if TYPE_CHECKING:
    from lockstep.store import Store
    from lockstep.why.answer import Explanation
    from lockstep.why.facts import Cell, Facts, Made

_LOGS = 2


def why(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE... VIEW:FEATURE",
            help="The entity and one feature, e.g. household_id=900 txn_7d:sum_amt_7d.",
        ),
    ],
    *,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="What could have been answered then, e.g. 2026-11-21T02:00-05:00; a date is the "
            "start of that day. Now if not given.",
        ),
    ] = None,
    show_pii: Annotated[
        bool, typer.Option("--show-pii", help="Do not mask columns that identify people.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say why a feature of an entity has its value: both sides, where it came from, one cause.

    The cause is one of zone shift, late data, partial push, evicted, expired, correction not
    pushed, quarantined, schema change, code changed, never computed, Redis behind, Redis down,
    overwritten, or that it is as it should be. It ends with the command that puts it right.
    """
    from lockstep.why.answer import explain

    store = opened()
    keys, feature = _asked(words)
    found = explain(store, keys, feature, _instant(store, at))
    hidden = found.facts.pii and not show_pii
    if as_json:
        emit_json(_data(found, hidden=hidden))
    else:
        show(found, hidden=hidden)


def _asked(words: list[str]) -> tuple[dict[str, str], str]:
    """Return the keys and the feature, in whatever order they came."""
    features = [word for word in words if "=" not in word]
    if len(features) != 1:
        raise InputError(
            f"{len(features)} features are asked for: {features}.",
            expected="one, e.g. lockstep why household_id=900 txn_7d:sum_amt_7d",
        )
    return given_keys([word for word in words if "=" in word]), features[0]


def _instant(store: "Store", given: str | None) -> datetime | None:
    from datetime import date

    from lockstep.time import day_start

    if given is None:
        return None
    try:
        if len(given) == len("2026-11-21"):
            return day_start(date.fromisoformat(given), store.project.zone)
        return datetime.fromisoformat(given)
    except ValueError:
        raise InputError(
            f"--at {given!r} is no instant.",
            expected="a date, or ISO 8601 with its zone, e.g. 2026-11-21T02:00-05:00",
        ) from None


def _data(found: "Explanation", *, hidden: bool) -> dict[str, Any]:
    facts = found.facts
    online = None if facts.online is None else vars(facts.online)
    return {
        "entity": facts.entity,
        "feature": facts.name,
        "at": facts.at,
        "cause": found.cause,
        "sentence": found.sentence,
        "evidence": found.evidence,
        "fix": found.fix,
        "first": found.first,
        "also": [{"cause": each.cause, "sentence": each.sentence} for each in found.also],
        "offline": _cell_data(facts.offline, facts, hidden=hidden),
        "online": "not known for the past"
        if online is None
        else {**online, "cell": _cell_data(online["cell"], facts, hidden=hidden)},
        "today": None
        if facts.since is None
        else _cell_data(facts.since.cell, facts, hidden=hidden),
        "provenance": [vars(made) for made in facts.made],
        "run_url": facts.run_url,
        "logs": facts.logs,
        "upstream": facts.upstream,
        "quarantined": facts.quarantined,
        "days": {
            "committed": facts.days,
            "newest": facts.newest,
            "expected": facts.expected,
            "missing": facts.missing,
        },
    }


def _cell_data(cell: "Cell", facts: "Facts", *, hidden: bool) -> dict[str, Any]:
    return {**vars(cell), "value": _value(cell, hidden=hidden), "age": cell.age(facts.at)}


def _value(cell: "Cell", *, hidden: bool) -> Any:
    from lockstep.cli.masking import MASK

    return MASK if hidden and cell.value is not None else cell.value


def show(found: "Explanation", *, hidden: bool) -> None:
    """Print the answer: the cause first, then both sides, then where the value came from."""
    from lockstep.cli.console import printable

    facts = found.facts
    entity = ", ".join(f"{key}={value}" for key, value in facts.entity.items())
    out().print(text(f"{facts.name} of {entity}: {found.cause}", _style(found)), soft_wrap=True)
    say(found.sentence)
    for each in found.evidence:
        say(f"  - {each}", "dim")
    for other in found.also:
        say(f"Also {other.cause}: {other.sentence}", "yellow")
    if found.first:
        say(f"First: {found.first}")
    if found.fix:
        say(f"Fix:   {printable(found.fix)}", "bold")
    sides = _sides(facts)
    cells = list(sides.values())
    silent = facts.online.cell if facts.online and facts.online.problem is not None else None
    rows: list[tuple[object, ...]] = [
        ("value", *(_shown(cell, known=cell is not silent, hidden=hidden) for cell in cells)),
        ("status", *(cell.status for cell in cells)),
        ("age", *(_age(cell, facts) for cell in cells)),
        ("day", *(_or_nothing(cell.day) for cell in cells)),
        ("revision", *(_or_nothing(cell.revision) for cell in cells)),
        ("valid from", *(_or_nothing(cell.event_timestamp) for cell in cells)),
        ("Delta version", *(_or_nothing(cell.version) for cell in cells)),
    ]
    out().print(table(["", *sides], rows))
    out().print(table(("", ""), _provenance(facts)))


def _style(found: "Explanation") -> str:
    return "bold green" if found.right else "bold red"


def _sides(facts: "Facts") -> "dict[str, Cell]":
    if facts.past:
        known = {f"could be answered at {facts.at.isoformat(timespec='minutes')}": facts.offline}
        return known if facts.since is None else {**known, "today's answer": facts.since.cell}
    return {"offline": facts.offline, **({"online": facts.online.cell} if facts.online else {})}


def _shown(cell: "Cell", *, known: bool, hidden: bool) -> Any:
    if not known:
        return text("not known", "dim")
    if not cell.there:
        return text("tombstone" if cell.removed else "no row", "dim")
    return _value(cell, hidden=hidden)


def _age(cell: "Cell", facts: "Facts") -> Any:
    age = cell.age(facts.at)
    return text("") if age is None else text(f"{age.total_seconds() / 3600:.1f} h")


def _or_nothing(value: object) -> object:
    return text("") if value is None else value


def _provenance(facts: "Facts") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        (
            "days",
            f"{facts.days} committed, up to {facts.newest}; due up to {facts.expected}",
        )
    ]
    rows.append(("owner", facts.owner))
    if facts.past:
        rows.append(("online", "not known for the past"))
    for made in facts.made:
        rows += _made(made)
    if facts.made:
        rows.append(("run", facts.run_url or _plain_run(facts)))
    # One screen: the logs that say something of the view, or the first one.
    for log in [log for log in facts.logs if log.lines][:_LOGS] or facts.logs[:1]:
        rows.append(("log", log.path))
        rows += [("", text(line, "dim")) for line in log.lines]
    rows += [("not looked at", problem) for problem in facts.upstream.problems]
    return rows


def _plain_run(facts: "Facts") -> str:
    return f"{facts.run_id}  (lockstep ui, then Runs)" if facts.run_id else "none was recorded"


def _made(made: "Made") -> list[tuple[str, object]]:
    code = made.code_version or "unknown"
    known_at = made.known_at.isoformat(timespec="seconds")
    rows: list[tuple[str, object]] = [
        (f"{made.day}", f"revision {made.revision}, commit {made.version}, certified {known_at}"),
        ("  code", f"{code}; declared {made.declared}" if made.by_other_code else code),
    ]
    rows += [(f"  read {name}", _read(made, name)) for name in made.inputs]
    rows.append(("  verdicts", _verdicts(made.verdicts)))
    return rows


def _read(made: "Made", name: str) -> str:
    """Return the days that were read of an input, in words."""
    from lockstep.time import SNAPSHOT_DAY

    said = []
    for run in filter(None, made.inputs[name].split(",")):
        days, _, revision = run.partition("=")
        snapshot = days == SNAPSHOT_DAY.isoformat()
        said.append(f"revision {revision}" if snapshot else f"{days}, revision {revision}")
    if name in made.closing:
        said.append(f"{made.closing[name]} only to close entities that left the window")
    return "; ".join(said) or "nothing"


def _verdicts(verdicts: "Any") -> Any:
    words = [_verdict(each) for each in verdicts]
    return text(", ".join(words) or "none", "" if all(v["passed"] for v in verdicts) else "yellow")


def _verdict(found: Mapping[str, Any]) -> str:
    if found["passed"]:
        return f"{found['check']} passed"
    return f"{found['check']} {'released' if found.get('released') else 'failed'}"
