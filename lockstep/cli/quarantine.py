"""`quarantine list | show | release`: what failed, why, and a person's decision about it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lockstep.cli.console import cell, emit_json, out, say, table, text
from lockstep.cli.opened import opened, require_names

if TYPE_CHECKING:
    import polars as pl

    from lockstep.failing_rows import FailingRows
    from lockstep.quarantine import Quarantine, Quarantined
    from lockstep.store import Store
    from lockstep.view import FeatureView

app = typer.Typer(no_args_is_help=True, help="Look at what failed an audit or broke a schema.")

_NAME = typer.Argument(metavar="NAME", help="The view, source or snapshot.")
_NOT_FACTS: Final = frozenset({"verdicts", "profile", "entities"})
_ITEM = typer.Argument(metavar="ITEM", help="The item, or how it begins, e.g. 2026-11-03.")


@app.command("list")
def list_items(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One view, source or snapshot.")
    ] = None,
    *,
    closed: Annotated[
        bool, typer.Option("--all", help="Also what was released or closed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """List what waits for a fix or a person."""
    store = opened()
    if name is not None:
        require_names(store, [name])
    items = [item for item in _quarantine(store).items(name) if closed or item.open]
    if as_json:
        emit_json([{**vars(item), "open": item.open} for item in items])
        return
    if not items:
        say("Nothing is in quarantine." if closed else "Nothing in quarantine waits.")
        return
    rows = [(item.name, item.item, item.kind, _state(item), item.reason) for item in items]
    out().print(table(("name", "item", "kind", "state", "reason"), rows))


def _state(item: "Quarantined") -> Any:
    if item.open:
        return text("open", "bold red")
    return text("released", "yellow") if item.released is not None else text("closed", "dim")


def _quarantine(store: "Store") -> "Quarantine":
    from lockstep.quarantine import Quarantine

    return Quarantine(store.lake.quarantine)


def _found(store: "Store", name: str, item: str) -> "Quarantined":
    """Return the item; of a name that is no longer declared there may still be one.

    Raises:
        UnknownNameError: There is no such name, or not one item that begins like that.
    """
    quarantine = _quarantine(store)
    if not quarantine.items(name):
        require_names(store, [name])
    return quarantine.find(name, item)


@app.command("show")
def show_item(
    name: Annotated[str, _NAME],
    item: Annotated[str, _ITEM],
    *,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 10,
    show_pii: Annotated[
        bool, typer.Option("--show-pii", help="Do not mask columns that identify people.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show one item: why it failed, and of a frame its profile beside what was certified.

    Each feature of a frame stands beside the last certified day and the reference that drift is
    measured against; the one that differs most comes first. Then come the first rows that fail each
    check; the first of all if it is no single row that fails.
    """
    store = opened()
    found = _found(store, name, item)
    if as_json:
        emit_json(_as_data(store, found, rows, show_pii=show_pii))
        return
    facts: list[tuple[str, object]] = [
        ("state", _state(found)),
        ("reason", found.reason),
        ("days", ", ".join(found.days) if found.days is not None else "can't be told"),
        ("found at", found.found_at),
    ]
    releasing = found.releasing if found.open else None
    marks = {"releasing": releasing, "released": found.released, "closed": found.closed}
    for mark, said in marks.items():
        facts += [(f"{mark} {key}", value) for key, value in (said or {}).items()]
    facts += [
        (key, value if isinstance(value, (str, int)) else text(value))
        for key, value in found.details.items()
        if key not in _NOT_FACTS
    ]
    out().print(table(("", ""), facts, f"{found.name} {found.item}"))
    if found.kind == "frame":
        _show_frame(store, found, rows, show_pii=show_pii)
    for sentence in _next(found):
        say(sentence)


def _next(item: "Quarantined") -> Iterator[str]:
    """Yield what a person may do about an open item."""
    if not item.open:
        return
    if item.releasing is not None:
        yield "Its release was begun and not completed: release it again, or compute its day."
    to_what = "certify it" if item.kind == "frame" else "go on without it (its rows stay out)"
    yield f"To {to_what}: lockstep quarantine release {item.name} {item.item} --reason '…'"


def _show_frame(store: "Store", item: "Quarantined", rows: int, *, show_pii: bool) -> None:
    from lockstep.beside import beside, entities_of
    from lockstep.cli.beside import show_beside
    from lockstep.cli.data import verdict_table
    from lockstep.cli.masking import shown
    from lockstep.quality import Verdict

    view = store.catalog.view(item.name)
    out().print(verdict_table([Verdict.from_json(each) for each in item.details["verdicts"]]))
    if counts := entities_of(item):
        said = f"{counts.seen:,} entities: {counts.new:,} new, {counts.gone:,} gone"
        say(f"{said} since the day before.")
    show_beside(beside(store.lake, view, item))
    frame = _quarantine(store).frame(item)
    whole = f"{frame.height:,} rows"
    failing = _failing(item, frame, view)
    titled = {
        f"{found.rows:,} that fail the check {check}, of {whole}": found.head
        for check, found in failing.items()
    }
    for which, listed in (titled or {whole: frame}).items():
        head = shown(view, listed, rows, show_pii=show_pii)
        if head.height:
            cells = [[cell(value) for value in row] for row in head.rows()]
            out().print(table(head.columns, cells, f"{head.height} of {which}"))


def _failing(
    item: "Quarantined", frame: "pl.DataFrame", view: "FeatureView"
) -> "dict[str, FailingRows]":
    """Return check → the rows that fail it by the contract as it is now, of those that failed."""
    from lockstep.failing_rows import failing_rows

    if dict(frame.schema) != view.contract.columns:
        return {}
    failed = [each["check"] for each in item.details["verdicts"] if not each["passed"]]
    found = {check: failing_rows(check, frame, view.contract) for check in failed}
    return {check: rows for check, rows in found.items() if rows}


def _as_data(store: "Store", item: "Quarantined", rows: int, *, show_pii: bool) -> dict[str, Any]:
    """Return the item for scripts; of a frame profiles side by side, its first and failing rows."""
    from lockstep.beside import beside
    from lockstep.cli.masking import shown

    details = {key: value for key, value in item.details.items() if key != "profile"}
    told = {**vars(item), "details": details, "open": item.open}
    if item.kind == "file":
        return told
    view = store.catalog.view(item.name)
    frame = _quarantine(store).frame(item)
    head = shown(view, frame, rows, show_pii=show_pii)
    failing = {
        check: shown(view, found.head, rows, show_pii=show_pii).to_dicts()
        for check, found in _failing(item, frame, view).items()
    }
    told |= {"head": head.to_dicts(), "failing_rows": failing}
    return {**told, "beside": beside(store.lake, view, item)}


@app.command("release")
def release_item(
    name: Annotated[str, _NAME],
    item: Annotated[str, _ITEM],
    *,
    reason: Annotated[
        str,
        typer.Option(help="Why a frame is right in spite of the failure, or a file is not needed."),
    ],
) -> None:
    """Certify a frame, or go on without a file, by your name and with a reason.

    A frame is committed as it is, while its head revision and inputs are those seen when it
    failed. A file's rows stay out, and the days it held back are free again.
    """
    from lockstep.release import release_file, release_frame

    store = opened()
    found = _found(store, name, item)
    if found.kind == "file":
        release_file(store.lake, found, reason, now=store.now)
        say(
            f"{found.name} goes on without {found.details['path']}; its rows stay out. Next: "
            f"lockstep materialize {found.name}{_days_of(store, found)}"
        )
        return
    view = store.catalog.view(found.name)
    result = release_frame(store.lake, view, found, reason, store.reader(), now=store.now)
    say(
        f"{found.name} of {result.day} is certified as revision {result.revision}. Next: "
        f"lockstep push {found.name}, or lockstep materialize {found.name} --days {result.day}, "
        "which also shows in Dagster who released it and why."
    )


def _days_of(store: "Store", item: "Quarantined") -> str:
    """Return the option that names the days that a file held back, as far as they are due."""
    from lockstep.time import last_full_day

    source = store.catalog.sources.get(item.name)
    if source is None:  # a snapshot has no days
        return ""
    newest = last_full_day(store.now(), store.project.zone)
    days = sorted(day for day in item.touches if source.start <= day <= newest)
    if not days:
        return " --days FROM..TO"
    return f" --days {days[0]}" if len(days) == 1 else f" --days {days[0]}..{days[-1]}"
