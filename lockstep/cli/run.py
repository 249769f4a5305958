"""`materialize` and `ui`: the commands that run the project's Dagster assets."""

from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import BROKEN, emit_json, note, out, say, table, text
from lockstep.cli.opened import ended_days, opened, require_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from lockstep.cli.child import Ended
    from lockstep.cli.told import Told
    from lockstep.store import Store


def materialize(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Views, sources, snapshots; all if none named."),
    ] = None,
    *,
    days: Annotated[
        str | None, typer.Option(metavar="FROM..TO", help="Days; the last full day if not given.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Build every committed day of the named views anew, by the declared contract.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compute, audit, commit and push days, through the same Dagster assets that the UI shows.

    Exit status 1 if a day failed, was refused or had to be skipped; every such day is named.
    """
    store = opened()
    require_names(store, names or [])
    if rebuild:
        from lockstep.cli.rebuilding import rebuild_views

        wanted = rebuild_views(store, names or [], days)
    else:
        wanted = ended_days(store, days)
    told, ended = _run(store, names or [], wanted)
    waiting = _not_started(store, names or [], told, ended)
    if as_json:
        found = {**told.to_json(), "not_started": waiting}
        emit_json({**found, "exit_status": ended.status, "log": ended.log})
    else:
        _show(told, ended, {name: len(wanted) for name in waiting})
    raise typer.Exit(_status(told, ended))


def _run(store: "Store", names: "Sequence[str]", days: "Sequence[date]") -> "tuple[Told, Ended]":
    """Run the assets over the days, a run per unbroken range; return how the worst ended."""
    from lockstep.cli.running import run_assets
    from lockstep.cli.told import Told
    from lockstep.time import contiguous

    told, chosen = Told(), ["--select", ",".join(names)] if names else []
    ends: list[Ended] = []
    for first, last in contiguous(days):
        _, ended = run_assets(store, [*chosen, "--days", f"{first}..{last}"], told=told)
        ends.append(ended)
        if ended.signal is not None:
            break
    return told, max(ends, key=lambda ended: (ended.signal or 0, ended.status))


def _not_started(store: "Store", names: "Sequence[str]", told: "Told", ended: "Ended") -> list[str]:
    """Return what was asked for and never began, because of something that it reads."""
    if not ended.status or ended.signal is not None or not told.assets:
        return []
    catalog = store.catalog
    return told.left_out(names or [*catalog.sources, *catalog.snapshots, *catalog.views])


def _show(told: "Told", ended: "Ended", not_started: "Mapping[str, int]") -> None:
    columns = ("asset", "days", "committed", "unchanged", "not built", "pushed", "rows pushed")
    rows = [
        (
            name,
            _count(asset.built),
            _count(asset.counts["committed"]),
            _count(asset.counts["unchanged"]),
            text(len(asset.bad), "bold red") if asset.bad else "",
            _count(asset.counts["pushed"]),
            "" if asset.rows is None else asset.rows,
        )
        for name, asset in told.assets.items()
    ]
    rows += [
        (name, "", "", "", text(days, "bold red"), "", "") for name, days in not_started.items()
    ]
    if rows:
        out().print(table(columns, rows))
    for message in told.messages():
        say(message, "red")
    for name in not_started:
        say(f"{name} was not started: something that it reads was not built.", "red")
    if ended.signal is not None:
        note(f"Stopped. What was committed stays; run again to complete it. Log: {ended.log}")
    elif ended.status:
        if not told.messages():
            note(ended.tail)
        note(f"Log of the run: {ended.log}")
    elif told.run_ids:
        note(f"In the UI (lockstep ui): {', '.join(told.run_ids)}")


def _count(days: int) -> object:
    return days or ""


def _status(told: "Told", ended: "Ended") -> int:
    if ended.signal is not None:
        return 128 + ended.signal
    return BROKEN if told.messages() or ended.status else 0


def ui(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 3000,
) -> None:
    """Serve Dagster's UI and daemon on this machine until Ctrl-C."""
    from lockstep.cli.running import serve_ui

    project = opened().project
    note(f"Dagster will answer on http://127.0.0.1:{port} (Ctrl-C stops it)")
    ended = serve_ui(project, port)
    raise typer.Exit(0 if ended.signal is not None else ended.status)
