"""`land` and `preview`: data on its way in, and a day computed without writing it."""

import sys
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.console import BROKEN, emit_json, err, out, say, table, text
from lockstep.cli.opened import ended_days, opened
from lockstep.errors import ConfigError, IncompleteWindowError, InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from lockstep.materialize import Judged
    from lockstep.project import Project
    from lockstep.quality import Verdict
    from lockstep.store import Store
    from lockstep.view import FeatureView

_FEW = 5


def land(
    *,
    days: Annotated[
        str | None, typer.Option(metavar="FROM..TO", help="Days; the last full day if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Deliver the files of some days into the landing zone, by the project's own function.

    The function is named in the settings, land = "module:function", and is called with the opened
    project, the first and the last day, and what to call after each day. It returns a summary.
    """
    from rich.progress import Progress

    store = opened()
    function = _landing_function(store.project)
    wanted = ended_days(store, days)
    with Progress(console=err(), transient=True, disable=not err().is_terminal) as progress:
        task = progress.add_task("landing", total=len(wanted))

        def on_day(day: "date") -> None:
            progress.update(task, advance=1, description=f"landing {day}")

        summary = function(store, wanted[0], wanted[-1], on_day)
    if as_json:
        emit_json(summary)
    elif is_dataclass(summary) and not isinstance(summary, type):
        out().print(table(("", ""), [(text(k), text(v)) for k, v in _facts(summary)]))
    elif summary is not None:
        say(str(summary))


def _facts(summary: Any) -> "list[tuple[str, str]]":
    """Return the summary's fields; of a long list only how long it is."""
    return [(name.replace("_", " "), _fact(value)) for name, value in asdict(summary).items()]


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) if len(value) <= _FEW else f"{len(value)}"
    return str(value)


def _landing_function(project: "Project") -> "Callable[..., Any]":
    from importlib import import_module

    named = project.land or ""
    module, separator, function = named.partition(":")
    if not (module and separator and function):
        raise ConfigError(
            "The project does not say how data is landed.",
            expected='land = "module:function" in [tool.lockstep] of pyproject.toml',
            got=repr(named) if named else None,
            fix="Real sources need no such function: files are dropped into the landing zone, "
            f"{project.landing}/<source>/.",
            effect="Nothing was landed.",
        )
    if str(project.folder) not in sys.path:
        sys.path.insert(0, str(project.folder))
    try:
        found = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        found = None
    if not callable(found):
        raise ConfigError(
            f"land = {named!r} in [tool.lockstep] names no function.",
            fix="Correct module and function.",
            effect="Nothing was landed.",
        )
    return found  # type: ignore[no-any-return]


def preview(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="The view to compute.")],
    *,
    day: Annotated[
        str | None, typer.Option(metavar="DAY", help="The day; the last full day if not given.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 10,
    show_pii: Annotated[
        bool, typer.Option("--show-pii", help="Do not mask columns that identify people.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compute and audit one day as a run would, and write nothing; exit 1 if it would not pass."""
    from lockstep.materialize import preview as preview_day

    store = opened()
    declared = store.catalog.view(view)
    wanted = ended_days(store, day)
    if len(wanted) > 1:
        raise InputError(f"{day} are {len(wanted)} days.", expected="one day", fix="Preview one.")
    try:
        found = preview_day(declared, wanted[0], store.lake, store.reader())
    except IncompleteWindowError as error:
        raise _incomplete(store, declared, wanted[0], error) from None
    if as_json:
        emit_json(_as_data(store, declared, found, rows, show_pii=show_pii))
    else:
        _show(store, declared, found, rows, show_pii=show_pii)
    if not found.audit.passed:
        raise typer.Exit(BROKEN)


def _incomplete(
    store: "Store", view: "FeatureView", day: "date", error: IncompleteWindowError
) -> IncompleteWindowError:
    """Return why the day cannot be computed: days that never landed, if they are why."""
    from lockstep.time import span
    from lockstep.why.upstream import never_landed

    try:
        absent = never_landed(view, day, store.lake, store.reader()) if day >= view.start else {}
    except StoreError:  # the landing zone does not answer
        absent = {}
    if not absent:
        return error
    said = [f"No row of {name} has landed for {span(days)}." for name, days in absent.items()]
    return IncompleteWindowError(
        " ".join([error.culprit, *said]),
        fix="Deliver them, or ask for another day.",
        effect="Nothing was written.",
    )


def _show(
    store: "Store", view: "FeatureView", found: "Judged", rows: int, *, show_pii: bool
) -> None:
    from lockstep.cli.masking import shown

    frame = found.computed.frame
    if rows and frame.height:
        head = shown(view, frame, rows, show_pii=show_pii)
        title = f"{view.name} of {found.day}: {head.height} of {frame.height} rows"
        out().print(table(head.columns, head.rows(), title))
    out().print(verdict_table(found.audit.verdicts))
    for check, failing in found.audit.failing_rows.items():
        bad = shown(view, failing, rows, show_pii=show_pii)
        out().print(table(bad.columns, bad.rows(), f"Rows that fail the check {check}"))
    closed = f", {found.computed.closed} of them closing rows" if found.computed.closed else ""
    say(f"{frame.height} rows{closed}. {_compared(store, view, found)} Nothing was written.")


def verdict_table(verdicts: "Sequence[Verdict]") -> Any:
    """Return check, result and sentence of each verdict."""
    return table(
        ("check", "result", "finding"), [(v.check, _result(v), v.message) for v in verdicts]
    )


def _result(verdict: "Verdict") -> Any:
    if verdict.passed:
        return text("passed", "green")
    if verdict.released:
        return text("released", "yellow")
    return text("blocks", "bold red") if verdict.blocks else text("warns", "yellow")


def _compared(store: "Store", view: "FeatureView", found: "Judged") -> str:
    record = store.committed(view).get(found.day)
    if not found.audit.passed:
        return "The day would be quarantined."
    if record is None:
        return "The day is not committed yet."
    if record.content_hash == found.content_hash:
        return f"The content is that of revision {record.revision}, which is committed."
    return f"The content differs from revision {record.revision}, which is committed."


def _as_data(
    store: "Store", view: "FeatureView", found: "Judged", rows: int, *, show_pii: bool
) -> dict[str, Any]:
    from lockstep.cli.masking import shown

    record = store.committed(view).get(found.day)
    return {
        "view": view.name,
        "day": found.day,
        "passed": found.audit.passed,
        "rows": found.computed.frame.height,
        "closing_rows": found.computed.closed,
        "content_hash": found.content_hash,
        "committed_hash": record.content_hash if record else None,
        "inputs": found.computed.inputs,
        "data_through": found.computed.data_through,
        "verdicts": [verdict.to_json() for verdict in found.audit.verdicts],
        "head": shown(view, found.computed.frame, rows, show_pii=show_pii).to_dicts(),
    }
