"""`materialize` and `ui`: Dagster as a child process, so that lineage and checks are recorded."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import BROKEN, emit_json, note, out, say, table, text
from lockstep.cli.opened import ended_days, opened, readables_named
from lockstep.errors import ConfigError, InputError

if TYPE_CHECKING:
    from datetime import date

    from lockstep.cli.child import Ended
    from lockstep.cli.told import Told
    from lockstep.store import Store


def materialize(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Views, sources, snapshots; all if none is named."
        ),
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
    no_push: Annotated[
        bool, typer.Option("--no-push", help="Commit only; leave the online store as it is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compute, audit, commit and push days, through the same Dagster assets that the UI shows.

    Exit status 1 if a day failed, was refused or had to be skipped; every such day is named.
    """
    store = opened()
    chosen = readables_named(store, names or [])
    if rebuild:
        from lockstep.cli.rebuilding import rebuild_views

        wanted = rebuild_views(store, names or [], days)
    else:
        wanted = ended_days(store, days)
    online = [f"{name}_online" for name in chosen if name in store.views and not no_push]
    told, ended = _run(store, [*chosen, *online], wanted)
    if as_json:
        emit_json({**told.to_json(), "exit_status": ended.status, "log": ended.log})
    else:
        _show(told, ended)
    raise typer.Exit(_status(told, ended))


def _run(store: "Store", assets: list[str], days: "list[date]") -> "tuple[Told, Ended]":
    """Run the assets over the days, a run per unbroken range, and show how far it is."""
    from lockstep.cli.bars import Bars
    from lockstep.cli.child import run_child
    from lockstep.cli.told import Told
    from lockstep.time import contiguous

    folder = store.project.folder
    if not (folder / "schedules" / "run.py").is_file():
        raise ConfigError(
            f"{folder} has no schedules/run.py.",
            expected="the module that runs the project's Dagster assets",
            fix="Take it from the reference project, or call lockstep.materialize from Python.",
            effect="Nothing was started.",
        )
    told = Told()
    command = [sys.executable, "-m", "schedules.run", "--select", ",".join(assets)]
    ended: Ended | None = None
    with Bars(told) as bars:
        for first, last in contiguous(days):
            one = run_child(
                [*command, "--days", f"{first}..{last}"],
                project=store.project,
                on_event=bars.hear,
                now=store.now(),
            )
            if ended is None or one.status or one.signal is not None:
                ended = one
            if one.signal is not None:
                break
    if ended is None:
        raise InputError("No day is to be materialized.")
    return told, ended


def _show(told: "Told", ended: "Ended") -> None:
    columns = ("asset", "days", "committed", "unchanged", "not built", "pushed", "rows pushed")
    rows = [
        (
            name,
            asset.finished,
            _count(asset.counts["committed"]),
            _count(asset.counts["unchanged"]),
            text(len(asset.bad), "bold red") if asset.bad else "",
            _count(asset.counts["pushed"]),
            "" if asset.rows is None else asset.rows,
        )
        for name, asset in told.assets.items()
    ]
    if rows:
        out().print(table(columns, rows))
    for name, asset in told.assets.items():
        for day in asset.bad:
            say(f"{name} {day.day} {day.status}: {day.message}", "red")
    for step, message in told.unexplained.items():
        say(f"{step} failed: {message}", "red")
    if ended.signal is not None:
        note(f"Stopped. What was committed stays; run again to complete it. Log: {ended.log}")
    elif ended.status:
        if not told.bad and not told.failures:
            note(ended.tail)
        note(f"Log of the run: {ended.log}")
    else:
        note(f"In the UI (lockstep ui): {', '.join(told.run_ids)}")


def _count(days: int) -> object:
    return days or ""


def _status(told: "Told", ended: "Ended") -> int:
    if ended.signal is not None:
        return 128 + ended.signal
    return BROKEN if told.bad or told.failures or ended.status else 0


def ui(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 3000,
) -> None:
    """Serve Dagster's UI and daemon on this machine until Ctrl-C."""
    from lockstep.cli.child import serve_child

    project = opened().project
    workspace = project.folder / "workspace.yaml"
    if not workspace.is_file():
        raise ConfigError(
            f"{project.folder} has no workspace.yaml.",
            expected="the file that tells Dagster what to load",
            effect="Nothing was started.",
        )
    say(f"Dagster will answer on http://127.0.0.1:{port} (Ctrl-C stops it)")
    dagster = [sys.executable, "-m", "dagster"]
    ended = serve_child(
        [*dagster, "dev", "-w", workspace.name, "--host", "127.0.0.1", "--port", str(port)],
        # Several of Dagster's processes at once fail to create the schema of a fresh home.
        first=[*dagster, "instance", "info"],
        project=project,
    )
    raise typer.Exit(0 if ended.signal is not None else ended.status)
