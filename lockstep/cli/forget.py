"""`forget`: one entity removed online and from the lake, old versions included."""

from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.asked import given_keys
from lockstep.cli.console import emit_json, note, out, say, table
from lockstep.cli.opened import opened
from lockstep.errors import OnlineError, UnknownNameError

_NEVER_REACHED = (
    "Not reached: backups and other copies, other environments, and the previews in Dagster's "
    "event log, whose keys are masked (docs/how-to-forget.md)."
)

_REMOVE = "Remove all of this for ever?"
_HOLD_BACK = "Hold back rows of it from now on?"

if TYPE_CHECKING:
    from lockstep.erasure.erase import Forgotten, Places
    from lockstep.erasure.forgetting import Forgetting
    from lockstep.store import Store


def forget(
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="The kind, e.g. household.")],
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Which one: household_id=900.")
    ],
    *,
    landing: Annotated[
        bool, typer.Option("--landing", help="Rewrite what was delivered in the landing zone, too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Erase one entity: online, in every revision of every table, in quarantine, in training sets.

    Let no run or push be under way. Training sets that held it cannot be rebuilt bit for bit any
    more and are voided. What is not reached is named: the landing zone without --landing, backups,
    logs. From then on ingestion holds back rows of this key.
    """
    from lockstep.erasure.erase import find
    from lockstep.erasure.erase import forget as erase

    store = opened()
    whom = _whom(store, entity, keys)
    places = _places(store, landing=landing)
    if not dry_run and not yes:
        there = find(places, whom)
        _show(there, before=True)
        typer.confirm(_REMOVE if there.removed else _HOLD_BACK, abort=True, err=True)
    found = find(places, whom) if dry_run else erase(places, whom)
    if as_json:
        emit_json({**vars(found), "rows": found.rows, "dry_run": dry_run})
    else:
        _show(found, before=dry_run)


def _whom(store: "Store", name: str, keys: list[str]) -> "Forgetting":
    from lockstep.erasure.forgetting import forgetting

    entities = store.catalog.entities
    if name not in entities:
        raise UnknownNameError(
            f"There is no entity named {name!r}.", expected=f"one of {sorted(entities)}"
        )
    return forgetting(entities[name], given_keys(keys), entities)


def _places(store: "Store", *, landing: bool) -> "Places":
    from lockstep.erasure.erase import Places
    from lockstep.serving.client import url_of
    from lockstep.throttle import paced

    try:
        url_of(store.project)
    except OnlineError:  # the project's own server was never started, so nothing is online
        online = None
    else:
        online = store.online_store
    return Places(store.lake, store.catalog, online, store.now, paced, landing)


def _show(found: "Forgotten", *, before: bool) -> None:
    if not found.removed:
        say("Nothing of it is there.")
    else:
        rows = [(each.place, each.rows) for each in found.removed]
        out().print(table(("place", "rows"), rows, "Would be removed" if before else "Removed"))
    for name, days in found.days.items():
        note(f"{name}: {len(days)} days have a revision without it.")
    for name in found.voided:
        note(f"The training set {name} is voided: it cannot be rebuilt bit for bit any more.")
    for sentence in found.left:
        note(sentence, "yellow")
    note(_NEVER_REACHED)
