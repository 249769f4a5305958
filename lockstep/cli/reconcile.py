"""`reconcile`: what is online held against what is committed, once or as long as it runs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.console import BROKEN, emit_json, jsonable, note, out, say, table, text
from lockstep.cli.opened import opened, views_named
from lockstep.errors import OnlineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockstep.last_look import Memory
    from lockstep.reconcile import Look, Repaired
    from lockstep.store import Store
    from lockstep.view import FeatureView


def reconcile(
    views: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VIEW]...", help="Views; all if none is named."),
    ] = None,
    *,
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Look again so often, until interrupted."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look only: mark nothing, repair nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Find what Redis has lost or changed, tell readers, and rebuild it from Delta.

    A view that differs is marked as not ready until every entity is equal again, byte for byte.
    Exit 1 if something is left that is not: after --dry-run, whatever was found.
    With --watch and --json: a line of JSON per look.
    """
    import time

    from lockstep.last_look import Memory

    store = opened()
    chosen = views_named(store, views or [])
    memory = Memory.of_store(store.project.state, store.online_store)
    if watch is None:
        seen, repaired = _once(store, chosen, memory, dry_run=dry_run, patient=False)
        if as_json:
            emit_json(_data(seen, repaired))
        else:
            _show(seen, repaired)
        if seen.findings and not (repaired and all(each.holds for each in repaired)):
            raise typer.Exit(BROKEN)
        return
    while True:
        try:
            seen, repaired = _once(store, chosen, memory, dry_run=dry_run, patient=True)
        except OnlineError as error:  # it may come back, and empty
            note(str(error), "red")
        else:
            if as_json:
                out().out(json.dumps(jsonable(_data(seen, repaired))), highlight=False)
            elif seen.findings or seen.notes:
                _show(seen, repaired)
        time.sleep(watch)


def _once(
    store: "Store",
    views: "Sequence[FeatureView]",
    memory: "Memory",
    *,
    dry_run: bool,
    patient: bool,
) -> "tuple[Look, list[Repaired]]":
    from lockstep.reconcile import look
    from lockstep.reconcile import reconcile as look_and_repair
    from lockstep.throttle import paced

    where = (store.lake, store.online_store, views)
    if dry_run:
        return look(*where, now=store.now, memory=memory, patient=patient), []
    return look_and_repair(*where, now=store.now, memory=memory, patient=patient, throttle=paced)


def _data(seen: "Look", repaired: "Sequence[Repaired]") -> dict[str, Any]:
    return {
        "at": seen.at,
        "views": seen.views,
        "findings": [{**vars(found), "repair": found.repair} for found in seen.findings],
        "notes": seen.notes,
        "repaired": [
            {
                "view": each.finding.view,
                "holds": each.holds,
                "message": each.sentence,
                "pushed": each.pushed,
                "parity": each.parity,
            }
            for each in repaired
        ],
    }


def _show(seen: "Look", repaired: "Sequence[Repaired]") -> None:
    for sentence in seen.notes:
        note(sentence, "yellow")
    if not seen.findings:
        say(f"{len(seen.views)} views are online as they are committed.", "green")
        return
    results = {each.finding.view: each for each in repaired}
    rows = [
        (
            found.view,
            text(found.code, "red"),
            found.sentence,
            _result(found.repair, results.get(found.view)),
        )
        for found in seen.findings
    ]
    out().print(table(("view", "found", "what", "repair"), rows, f"{seen.at:%Y-%m-%d %H:%M:%S %Z}"))
    for each in repaired:
        if not each.holds:
            say(f"{each.finding.view}: {each.sentence}", "red")


def _result(kind: str, repaired: "Repaired | None") -> Any:
    if repaired is None:
        return text(f"due: {kind}", "dim")
    if not repaired.holds:
        return text("failed", "bold red")
    rows = repaired.pushed.receipt.written if repaired.pushed else 0
    return text(f"equal again, {rows} rows written", "green")
