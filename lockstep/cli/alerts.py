"""`alerts`: what is wrong now, and who was told of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.console import BROKEN, emit_json, note, out, say, table, text
from lockstep.cli.opened import opened
from lockstep.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from lockstep.alerts.message import Message
    from lockstep.alerts.problem import Look, Problem
    from lockstep.alerts.settings import AlertSettings
    from lockstep.alerts.state import State
    from lockstep.store import Store


def alerts(
    *,
    send: Annotated[
        bool, typer.Option("--send", help="Tell the receivers what they were not told yet.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what --send would send, and send nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show what is wrong now, whose it is, and who was told.

    The sensor `alerts` tells the receivers of [tool.lockstep.alerts] by itself. Failed runs and
    failed checks are those that it saw last. Exit 1 if a problem is open or a receiver failed.
    """
    from lockstep.alerts.look import look, settings_of, told
    from lockstep.alerts.state import States

    if send and dry_run:
        raise InputError(
            "--send and --dry-run exclude each other.", fix="Give one.", effect="Nothing was sent."
        )
    store = opened()
    now = store.now()
    found = look(store)
    for why in dict.fromkeys(found.unknown.values()):
        names = ", ".join(name for name, said in found.unknown.items() if said == why)
        note(f"{names} could not be looked at: {why}", "yellow")
    settings = settings_of(store)
    if dry_run:
        untold = _untold(_open(found, States(store.lake.place).newest()), settings)
        _print_messages(_messages(store, found, now), untold, as_json=as_json)
        return
    failed: Mapping[str, str] = {}
    if send:
        ticked = told(store, found, now)
        state, failed = ticked.state, ticked.failed
        for receiver, message in ticked.sent:
            note(f"{receiver} was told: {message.title}")
        for receiver, why in failed.items():
            note(f"{receiver}: {why}. The next tick tries again.", "red")
    else:
        state = States(store.lake.place).newest()
    problems = _open(found, state)
    rows = _rows(problems, state)
    if as_json:
        emit_json({"alerts": rows, "troubles": state.troubles, "failed": failed})
    else:
        _show(rows, state)
    _tell(_untold(problems, settings), as_json=as_json)
    if rows or failed:
        raise typer.Exit(BROKEN)


def _messages(store: "Store", found: "Look", now: "datetime") -> "Mapping[str, Message]":
    """Return what a tick would send now, by receiver and group."""
    from lockstep.alerts.fold import advance
    from lockstep.alerts.look import models_of, settings_of
    from lockstep.alerts.message import due
    from lockstep.alerts.state import States

    state = States(store.lake.place).newest()
    after = advance(state, found, now, models_of(store.catalog, store.lake, found.drifting))
    return due(after, settings_of(store), store.project.namespace, now)


def _untold(problems: "Sequence[Problem]", settings: "AlertSettings") -> str:
    """Say which open problems no receiver takes, so that nobody is told; empty if there is none."""
    from lockstep.alerts.settings import TABLE

    takers = settings.receivers
    lost = [each for each in problems if not any(taker.takes(each) for taker in takers)]
    if not lost:
        return ""
    if len(lost) < len(problems):
        count = f"Of {len(problems)} open problems nobody is told of {len(lost)}"
    elif len(lost) == 1:
        count = "1 problem is open, and nobody is told"
    else:
        count = f"{len(lost)} problems are open, and nobody is told"
    if not takers:
        why = f"{TABLE} has no receivers"
    else:
        those = ", ".join(sorted({f"{each.owner} ({each.severity})" for each in lost}))
        why = f"no receiver of {TABLE} takes those of {those}"
    return f"{count}: {why} (docs/how-to-alerts.md)."


def _tell(untold: str, *, as_json: bool) -> None:
    if untold:
        (note if as_json else say)(untold, "yellow")


def _print_messages(messages: "Mapping[str, Message]", untold: str, *, as_json: bool) -> None:
    _tell(untold, as_json=as_json)
    if as_json:
        named = [(claim.partition("|")[0], message) for claim, message in messages.items()]
        emit_json([{"receiver": name, "message": each.to_json()} for name, each in named])
        return
    for claim, message in messages.items():
        say(f"To {claim.partition('|')[0]}:", "bold")
        say(message.text())
    if not messages and not untold:
        say("There is nothing to tell.")


def _open(found: "Look", state: "State") -> "list[Problem]":
    """Return the open problems: what was seen now, and of the others what was seen last."""
    live = {each.key: each for each in found.problems}
    kept = {e.problem.key: e for e in state.episodes.values() if e.healed is None}
    unseen = [e.problem for key, e in kept.items() if key not in live and not found.over(key)]
    return sorted([*live.values(), *unseen], key=lambda each: (each.severity, each.key))


def _rows(problems: "Sequence[Problem]", state: "State") -> list[dict[str, Any]]:
    """Return the problems, each with who was told."""
    kept = {e.problem.key: e for e in state.episodes.values() if e.healed is None}
    return [
        {**vars(each), "told": sorted(kept[each.key].told) if each.key in kept else []}
        for each in problems
    ]


def _show(rows: "Collection[Mapping[str, Any]]", state: "State") -> None:
    for name, trouble in state.troubles.items():
        since = f"{trouble.since:%Y-%m-%d %H:%M} UTC"
        note(
            f"{name} could not be told since {since}, {trouble.times} times: {trouble.why}.", "red"
        )
    if not rows:
        say("Nothing is wrong.", "green")
        return
    styles = {"page": "bold red", "ticket": "yellow"}
    shown = [
        (
            text(row["severity"], styles[row["severity"]]),
            row["kind"],
            row["subject"],
            row["owner"],
            f"{row['since']:%Y-%m-%d %H:%M}",
            f"{row['sentence']} Run: {row['fix']}",
            ", ".join(row["told"]) or "nobody",
        )
        for row in rows
    ]
    columns = ("severity", "kind", "subject", "owner", "since (UTC)", "what", "told")
    out().print(table(columns, shown))
