"""`doctor`: what stands in the way of the promises, and what to do about it."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lockstep.cli.console import BROKEN, emit_json, out, printable, text
from lockstep.cli.opened import opened

if TYPE_CHECKING:
    from lockstep.advice import Level
    from lockstep.store import Store
    from lockstep.stores.redis import OnlineStore

_STYLE: "Final[dict[Level, str]]" = {
    "broken": "bold red",
    "advice": "yellow",
    "unknown": "magenta",
    "ok": "green",
}


def doctor(
    *,
    hours: Annotated[
        float, typer.Option(help="Temporary files older than this belong to nobody.")
    ] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Check the online store, the lake and this machine; say what to do, one line each.

    Exit 1 if something must be put right. "unknown": the store's user may not ask.
    """
    from lockstep.doctor import examine

    store = opened()
    found = examine(
        store.lake,
        lambda: _online(store),
        list(store.views.values()),
        now=store.now,
        left_behind=timedelta(hours=hours),
    )
    if as_json:
        emit_json(found)
    else:
        for each in found:
            line = text(f"{each.level:<8}", _STYLE[each.level])
            line.append(f"{each.code:<24}", "dim")
            line.append(printable(f"{each.sentence} {each.fix}".rstrip()))
            out().print(line, soft_wrap=True)
    if any(each.level == "broken" for each in found):
        raise typer.Exit(BROKEN)


def _online(store: "Store") -> "tuple[OnlineStore, str]":
    from lockstep.stores.server import EmbeddedServer

    project = store.project
    return store.online_store, project.redis_url or EmbeddedServer(project.state / "redis").url
