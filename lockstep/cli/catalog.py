"""`views`, `status`, `metrics`: what is declared, committed and served, and what needs a look."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep.cli.console import emit_json, out, say, table, text
from lockstep.cli.opened import opened, views_named
from lockstep.errors import LockstepError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from lockstep.status import DayFacts, OnlineFacts, SealFacts, SourceFacts, ViewFacts
    from lockstep.store import Store

_JSON = typer.Option("--json", help="Print JSON for scripts.")


def views(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VIEW]...", help="Views, in full; a summary of all if none."),
    ] = None,
    *,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the views: owner, features, freshness, last verdicts, and days that need a look."""
    from lockstep.status import view_facts

    store = opened()
    reader, now = store.reader(), store.now()
    facts = [view_facts(store.lake, view, reader, now) for view in views_named(store, names or [])]
    if as_json:
        emit_json([_view_data(each) for each in facts])
    elif names:
        for each in facts:
            _show_view(each)
    else:
        rows = [
            (
                each.name,
                each.entity,
                each.owner,
                len(each.features),
                _days(each),
                _fresh(each),
                _verdict(each.last, each.days),
                _attention(each),
            )
            for each in facts
        ]
        columns = ("view", "entity", "owner", "features", "days", "lag", "last audit", "look at")
        out().print(table(columns, rows))


def _view_data(facts: "ViewFacts") -> dict[str, Any]:
    return {
        **vars(facts),
        "freshness": {**vars(facts.freshness), "holds": facts.freshness.holds},
        "last": {**vars(facts.last), "failed": facts.last.failed} if facts.last else None,
    }


def _days(facts: "ViewFacts | SourceFacts") -> Any:
    if not facts.days:
        return text("none", "dim")
    gaps = f", {len(facts.gaps)} missing" if facts.gaps else ""
    return text(f"{len(facts.days)} to {facts.days[-1]}{gaps}", "yellow" if gaps else "")


def _fresh(facts: "ViewFacts") -> Any:
    lag = facts.freshness.lag
    if lag is None:
        return text("never", "yellow")
    return text(f"{lag.total_seconds() / 3600:.1f} h", "green" if facts.freshness.holds else "red")


def _verdict(last: "DayFacts | None", days: "Sequence[date]" = ()) -> Any:
    """Return what came of the newest attempt; its day only where it is not the newest of `days`."""
    if last is None:
        return text("none", "dim")
    day = "" if days and last.day == days[-1] else f"{last.day} "
    if last.outcome == "quarantined":
        return text(f"{day}quarantined: {', '.join(last.failed)}", "bold red")
    if last.failed:
        return text(f"{day}warned: {', '.join(last.failed)}", "yellow")
    return text(f"{day}{'released' if last.outcome == 'released' else 'passed'}", "green")


def _attention(facts: "ViewFacts") -> Any:
    """Return in a few words what a person should look at."""
    words = [
        f"{len(days)} {what}"
        for days, what in (
            (facts.stale, "stale"),
            (facts.outdated, "by older code"),
            (facts.quarantined, "in quarantine"),
        )
        if days
    ]
    if facts.contract_changed:
        words.insert(0, "contract changed")
    return text(", ".join(words), "yellow")


def _show_view(facts: "ViewFacts") -> None:
    from lockstep.time import span

    say(f"{facts.name}  ({facts.entity}, {facts.owner})", "bold")
    say(facts.description)
    rows = [
        (f.name, f.type, f.unit or "", text("yes", "yellow") if f.pii else "", f.description)
        for f in facts.features
    ]
    out().print(table(("feature", "type", "unit", "pii", "what it is"), rows))
    versions = {version: span(days) for version, days in facts.code_versions.items()}
    known: list[tuple[str, object]] = [
        ("file", facts.file),
        ("days", span(facts.days) or "none"),
        ("missing days", span(facts.gaps)),
        ("freshness", facts.freshness.sentence),
        ("hand-written checks", facts.soda),
        ("last audit", _verdict(facts.last)),
        ("code version", facts.code_version),
        *((f"days by code {version}", days) for version, days in versions.items()),
        ("stale days", span(facts.stale)),
        ("quarantine", ", ".join(facts.quarantined)),
        ("contract", facts.contract_changed or ""),
    ]
    out().print(table(("", ""), [(text(k), v) for k, v in known if v != ""]))
    for verdict in facts.last.verdicts if facts.last else ():
        if not verdict["passed"]:
            say(
                f"{facts.last.day if facts.last else ''} {verdict['check']}: {verdict['message']}",
                "yellow",
            )


def status(*, as_json: Annotated[bool, _JSON] = False) -> None:
    """Show the lake, the online store, what has landed, what is sealed, what is in quarantine."""
    from lockstep.quarantine import Quarantine
    from lockstep.status import source_facts

    store = opened()
    catalog = store.catalog
    online, seals = _online(store)
    sources = [source_facts(store.lake, of) for of in catalog.sources.values()]
    sources += [source_facts(store.lake, of) for of in catalog.snapshots.values()]
    waiting = [item for item in Quarantine(store.lake.quarantine).items() if item.open]
    if as_json:
        emit_json(
            {
                "project": store.project.folder,
                "lake": store.project.root,
                "time_zone": store.project.zone.key,
                "online": online,
                "sources": sources,
                "seals": seals,
                "quarantine": [f"{item.name} {item.item}" for item in waiting],
                "broken": {str(path): why for path, why in catalog.broken.items()},
            }
        )
        return
    _show_project(store, online)
    rows = [
        (each.name, each.files, _held(each), _days_of(each), _waiting(each)) for each in sources
    ]
    out().print(table(("source", "files", "held", "committed days", "to ingest"), rows))
    out().print(
        table(
            ("view", "committed days", "sealed online"),
            [(s.view, s.committed, _sealed(s)) for s in seals],
        )
    )
    open_items = f"{len(waiting)} open: lockstep quarantine list" if waiting else "empty"
    say(f"Quarantine: {open_items}", "yellow" if waiting else "")


def _online(store: "Store") -> "tuple[OnlineFacts, list[SealFacts]]":
    """Return what the online store says, and the seals; without an answer that is said instead."""
    from lockstep.status import OnlineFacts, online_facts, seal_facts

    try:
        online = online_facts(store.online_store)
    except LockstepError as error:  # the embedded server was never started
        online = OnlineFacts("embedded", store.project.namespace, None, str(error))
    answering = store.online_store if online.server else None
    return online, [seal_facts(store.lake, answering, view) for view in store.views.values()]


def _show_project(store: "Store", online: "OnlineFacts") -> None:
    project, server = store.project, online.server
    rows: list[tuple[str, object]] = [
        ("project", str(project.folder)),
        ("lake", project.root),
        ("time zone", project.zone.key),
        ("online store", f"{online.address}, keys begin with {online.namespace}"),
        (
            "",
            f"{server.engine}, {server.used_memory / 2**20:.1f} MiB"
            if server
            else text(online.problem or "", "red"),
        ),
    ]
    out().print(table(("", ""), rows))


def _held(facts: "SourceFacts") -> Any:
    reasons = "; ".join(held.reason for held in facts.held)
    return text(f"{len(facts.held)}: {reasons}", "red") if facts.held else text("")


def _days_of(facts: "SourceFacts") -> Any:
    if facts.kind == "snapshot":
        return text("yes" if facts.days else "none", "" if facts.days else "dim")
    return _days(facts)


def _waiting(facts: "SourceFacts") -> Any:
    from lockstep.time import span

    if facts.kind == "snapshot":
        return text("new files" if facts.waits else "")
    return text(span(facts.waiting), "yellow")


def _sealed(seal: "SealFacts") -> Any:
    from lockstep.time import span

    if seal.unsealed is None:
        return text("unknown", "red")
    if not seal.committed:
        return text("")
    return text(f"not {span(seal.unsealed)}", "yellow") if seal.unsealed else text("all", "green")


def metrics() -> None:
    """Print freshness, fill rate and PSI of every feature in Prometheus' text format."""
    from lockstep.metrics import feature_metrics, render

    store = opened()
    found = feature_metrics(store.lake, store.views.values(), store.now())
    out().out(render(found), end="", highlight=False)
