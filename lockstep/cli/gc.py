"""`gc` and `compact`: the lake's files that nobody needs, and those that are too many."""

from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import BROKEN, emit_json, err, note, out, say, table
from lockstep.cli.opened import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockstep.garbage import Collected

_KEEP_DAYS = 7
_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000


def gc(
    *,
    keep_days: Annotated[
        int,
        typer.Option("--keep-days", min=0, help="How long a replaced version stays readable."),
    ] = _KEEP_DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, and delete nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Delete the files of the lake that nobody can ask for any more; never the log or pinned ones.

    Superseded rows are copied beside their view's table before their files go, and versions that a
    training set's manifest pins stay. Exit status 1 if a table was left alone.
    """
    from datetime import timedelta

    from lockstep.garbage import collect_garbage

    store = opened()
    with err().status("looking") as status:
        found = collect_garbage(
            store.lake.place,
            now=store.now(),
            keep=timedelta(days=keep_days),
            dry_run=dry_run,
            on_table=lambda folder: status.update(f"looking at {folder}"),
        )
    if as_json:
        emit_json({"dry_run": dry_run, "collected": found})
    else:
        _show(found, dry_run=dry_run)
    if any(item.refused for item in found):
        raise typer.Exit(BROKEN)


def _show(found: "Sequence[Collected]", *, dry_run: bool) -> None:
    if dry_run:
        rows = [(item.place, file) for item in found for file in item.files]
        if rows:
            out().print(table(("in", "file"), rows))
    going = [item for item in found if item.files or item.copied]
    if going:
        rows_of = [
            (item.place, len(item.files), size(item.bytes), len(item.copied)) for item in going
        ]
        out().print(table(("in", "files", "size", "revisions copied"), rows_of))
    for item in found:
        if item.lost:
            note(f"{item.place}: the rows of {', '.join(item.lost)} were lost before.", "yellow")
        if item.refused:
            note(f"{item.place} was left alone. {item.refused}", "red")
    files = sum(len(item.files) for item in found)
    total = size(sum(item.bytes for item in found))
    if not files:
        say("Nothing to delete.")
    else:
        say(f"{files} files, {total}, {'would be' if dry_run else 'were'} deleted.")


def compact(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Put the many small files of ledger, profiles and superseded rows together; rows stay.

    The old files go with the next `lockstep gc` that finds them old enough.
    """
    from lockstep.compacting import compact as compact_lake

    store = opened()
    with err().status("looking") as status:
        found = compact_lake(
            store.lake.place,
            now=store.now,
            dry_run=dry_run,
            on_table=lambda folder: status.update(f"looking at {folder}"),
        )
    if as_json:
        emit_json({"dry_run": dry_run, "compacted": found})
    elif not found:
        say("Nothing to put together.")
    else:
        rows = [(item.place, item.before, item.after) for item in found]
        out().print(table(("in", "small files", "become"), rows))


def size(amount: int) -> str:
    """Return bytes for people: `12 kB`."""
    value, unit = float(amount), _UNITS[0]
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{value:.0f} {unit}"
