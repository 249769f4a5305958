"""What a person sees: tables, errors, machine output. Nothing from data is ever read as markup."""

import base64
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lockstep.errors import LockstepError

if TYPE_CHECKING:
    from lockstep.catalog import Catalog

FILE_WIDTH: Final = 160
"""Columns of a table that goes to a file or a pipe, whose width nobody knows."""

BROKEN: Final = 1
"""Exit status: a promise does not hold, or a day failed."""
USAGE: Final = 2
"""Exit status: the request, a declaration or a setting is wrong."""


def out() -> Console:
    """Return the console for results (stdout)."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for everything that is no result: progress, warnings, errors (stderr)."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if known else FILE_WIDTH, highlight=False)


def text(value: object, style: str = "") -> Text:
    """Return the value as one line of text; control characters become visible escapes."""
    return Text(printable(str(value)), style)


def printable(value: str, *, keep: str = "") -> str:
    """Escape what would move the cursor, ring the bell or colour the terminal."""
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in value
    )


def cell(value: object) -> Text:
    """Return a value of data for a table: exact numbers, null told apart from text."""
    if value is None:
        return Text("null", "dim")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return text(value.isoformat() if isinstance(value, datetime) else value)
    return Text(str(value), "cyan")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """Return a table, without a header if the columns have no names; Text keeps its style."""
    named = any(columns)
    made = Table(
        title=text(title, "bold") if title else None,
        title_justify="left",
        show_header=named,
        box=SIMPLE_HEAD if named else None,
        pad_edge=False,
    )
    for at, column in enumerate(columns):
        made.add_column(text(column), overflow="fold", no_wrap=at == 0)
    for row in rows:
        made.add_row(*(item if isinstance(item, Text) else cell(item) for item in row))
    return made


def say(message: str, style: str = "") -> None:
    """Print a sentence to stdout, wrapped only by the terminal."""
    out().print(Text(printable(message, keep="\n"), style), soft_wrap=True)


def note(message: str, style: str = "dim") -> None:
    """Print a sentence to stderr: it is no result."""
    err().print(Text(printable(message, keep="\n"), style), soft_wrap=True)


def emit_json(data: object) -> None:
    """Print strict JSON to stdout, for scripts."""
    out().out(json.dumps(jsonable(data), indent=2, allow_nan=False), highlight=False)


def jsonable(value: object) -> Any:
    """Return the value in JSON's own types.

    Dataclasses become objects, instants and days ISO 8601, durations seconds, decimals and
    non-finite floats ("NaN", "Infinity", "-Infinity") strings, bytes base64.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [jsonable(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _non_finite(value)
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def _non_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def show_error(error: LockstepError) -> None:
    """Print the error to stderr: a red block on a terminal, one paragraph elsewhere."""
    console = err()
    if not console.is_terminal:
        console.print(Text(printable(f"Error: {error}", keep="\n")), soft_wrap=True)
        return
    body = Text(printable(error.culprit, keep="\n"), "bold")
    for label, part in (("Expected", error.expected), ("Got", error.got)):
        if part is not None:
            body.append(printable(f"\n{label}: {part}", keep="\n"), "not bold")
    for part in filter(None, (error.fix, error.effect)):
        body.append(printable(f"\n{part}", keep="\n"), "not bold")
    console.print(Panel(body, title=type(error).__name__, title_align="left", border_style="red"))


def warn_broken(catalog: "Catalog") -> None:
    """Name the view files that could not be imported; the others work."""
    for path, why in catalog.broken.items():
        note(f"Warning: {path} is broken and its views are left out. {why}", "yellow")
