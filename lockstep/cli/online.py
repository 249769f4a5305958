"""`up`, `down`, `push`, `get`, `parity`: everything that talks to the online store."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lockstep.cli.asked import describing, given_keys, named_features, typed
from lockstep.cli.console import BROKEN, cell, emit_json, err, note, out, say, table, text
from lockstep.cli.opened import built, opened, views_named
from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lockstep.project import Project
    from lockstep.push import Pushed
    from lockstep.store import Store
    from lockstep.view import FeatureView

_VIEWS = typer.Argument(metavar="[VIEW]...", help="Views; all if none is named.")
_JSON = typer.Option("--json", help="Print JSON for scripts.")
_STATUS_STYLE = {"present": "green", "null": "cyan", "expired": "yellow", "error": "red"}


def up() -> None:
    """Start the project's own online server (Valkey), or find it running; print where it listens.

    It goes on until `lockstep down`. With a redis_url in the settings nothing is started: the
    server there must answer, and gets the functions of this release if it lacks them.
    """
    from lockstep.project import find_project
    from lockstep.stores.redis import OnlineStore

    project = find_project()
    if project.redis_url is None:
        say(f"The online server listens on {_embedded(project).start()}")
        return
    online = OnlineStore(project.redis_url, namespace=project.namespace)
    info = online.ensure_ready()
    say(f"The online store is {info.engine} at {online.address}; nothing had to be started.")


def down() -> None:
    """Stop the project's own online server; what it holds is kept on disk."""
    from lockstep.project import find_project

    project = find_project()
    if project.redis_url is not None:
        raise ConfigError(
            "The project uses an online store that it did not start.",
            fix="Stop it where it was started, or remove redis_url (LOCKSTEP_REDIS_URL).",
            effect="Nothing was stopped.",
        )
    server = _embedded(project)
    stopped = server.stop()
    if not stopped and server.running():
        raise ConfigError(
            f"The online server in {server.folder} does not stop.", fix="Look at its log there."
        )
    say("The online server has stopped." if stopped else "No online server was running.")


def _embedded(project: "Project") -> Any:
    from lockstep.stores.server import EmbeddedServer

    return EmbeddedServer(project.state / "redis")


def push(
    views: Annotated[list[str] | None, _VIEWS] = None,
    *,
    days: Annotated[
        str | None, typer.Option(metavar="FROM..TO", help="Committed days; all if not given.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Remove the views online first, then push them whole.")
    ] = False,
    throttle: Annotated[
        bool, typer.Option(help="Slow down while readers would notice the push.")
    ] = True,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Bring the online store in step with what is committed in Delta, and seal it.

    Pushing twice is harmless: what is sealed is not sent again, and older never replaces newer.
    --rebuild repairs rows that were lost or changed under an intact seal.
    """
    from lockstep.cli.row_bars import row_bars
    from lockstep.push import require_certified
    from lockstep.time import parse_days

    store = opened()
    wanted = None if days is None else parse_days(days)
    chosen = views_named(store, views or [])
    if not views:
        chosen = _without_unbuilt(store, chosen)
    for view in chosen:
        require_certified(store.lake, view, wanted, store.now())
    done: list[Pushed] = []
    with row_bars(err()) as rows_of:
        for view in chosen:
            advance = rows_of(view.name)
            pushed = store.push(view, wanted, rebuild=rebuild, throttled=throttle, on_rows=advance)
            done.append(pushed)
    _show_pushed(done, as_json=as_json)


def _show_pushed(done: "Sequence[Pushed]", *, as_json: bool) -> None:
    from lockstep.time import span

    if as_json:
        emit_json(done)
        return
    rows = [
        (
            each.view,
            text(span(each.days)) if each.days else text("all were before", "dim"),
            each.receipt.written,
            each.receipt.removed,
            each.receipt.superseded,
            each.receipt.expired,
            each.wiped,
            "" if each.rows_per_second is None else f"{each.rows_per_second:,.0f}",
            each.version,
        )
        for each in done
    ]
    columns = (
        "view",
        "days sealed",
        "written",
        "removed",
        "superseded",
        "expired",
        "wiped",
        "rows/s",
        "version",
    )
    out().print(table(columns, rows))


def sweep(*, as_json: Annotated[bool, _JSON] = False) -> None:
    """Free the memory of what nobody can be served any more: dead rows, removed views.

    Rows go on their own when all views of their entity have expired. This frees those beside living
    ones, and the fields of views whose files are gone. It walks all keys of the server.
    """
    from lockstep.sweep import sweep as sweep_store

    store = opened()
    swept = sweep_store(store.online_store, store.catalog)
    if as_json:
        emit_json(swept)
        return
    say(
        f"Removed {swept.dead:,} expired rows and {swept.undeclared:,} fields of views that are "
        f"not declared; {swept.looked_at:,} entities looked at."
    )


def _without_unbuilt(store: "Store", views: "Sequence[FeatureView]") -> "list[FeatureView]":
    kept = built(store, views)
    if left := [view.name for view in views if view not in kept]:
        note(f"Never materialized, so left out: {', '.join(left)}.")
    return kept


def get(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="The entity, e.g. household_id=900.")
    ],
    *,
    features: Annotated[
        str | None, typer.Option(metavar="VIEW:FEATURE,…", help="Features, separated by commas.")
    ] = None,
    feature_set: Annotated[str | None, typer.Option(metavar="NAME", help="A feature set.")] = None,
    on_missing: Annotated[
        Literal["null", "default", "fail"] | None,
        typer.Option(
            help="What a cell without a value gets: null, the feature's default, or an error; as "
            "the contract says if not given."
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Show what is stored, header first.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Fetch one entity's vector: value, status and age per feature.

    Without --features and --feature-set: every feature of the views that describe the entity.
    In JSON, non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".
    """
    from lockstep.cli.stored import show_stored

    store = opened()
    given = given_keys(keys)
    wanted = named_features(features, feature_set) or describing(store, given)
    entity = typed(store, wanted, given)
    if raw:
        show_stored(store, wanted, entity, as_json=as_json)
        return
    vectors = store.online(wanted, [entity], on_missing=on_missing)
    cells = [
        {
            "feature": name,
            "value": value,
            "status": status,
            "age_seconds": vectors.age_seconds(name.partition(":")[0])[0],
        }
        for name, value, status in zip(
            vectors.features, vectors.values[0], vectors.statuses[0], strict=True
        )
    ]
    if as_json:
        not_ready = dict(vectors.not_ready)
        emit_json({"entity": entity, "at": vectors.at, "cells": cells, "not_ready": not_ready})
        return
    rows = [(each["feature"], each["value"], _status(each), _age(each)) for each in cells]
    title = ", ".join(f"{name}={value}" for name, value in entity.items())
    out().print(table(("feature", "value", "status", "age"), rows, title))
    for view, why in vectors.not_ready.items():
        note(f"{view} is not ready: {why}")


def _status(found: "Mapping[str, Any]") -> Any:
    return text(found["status"], _STATUS_STYLE.get(found["status"], "dim"))


def _age(found: "Mapping[str, Any]") -> Any:
    seconds = found["age_seconds"]
    return text("") if seconds is None else text(f"{seconds / 3600:.1f} h")


def parity(
    views: Annotated[list[str] | None, _VIEWS] = None, *, as_json: Annotated[bool, _JSON] = False
) -> None:
    """Compare online with offline, byte for byte, and say why they differ; exit 1 where they do.

    Every entity, or a sample of a view with more than its contract's `parity`.
    """
    store = opened()
    chosen = views_named(store, views or [])
    if not views:
        chosen = _without_unbuilt(store, chosen)
    found = store.parity(*(view.name for view in chosen)) if chosen else []
    if as_json:
        emit_json([{**vars(each), "holds": each.holds} for each in found])
    else:
        rows = [
            (
                each.view,
                text("holds", "green") if each.holds else text("broken", "bold red"),
                each.entities,
                each.mismatch,
                each.stale,
                each.missing,
                each.extra,
                cell(len(each.unsealed)),
            )
            for each in found
        ]
        columns = (
            *("view", "parity", "entities", "differ", "stale", "missing", "extra"),
            "days not sealed",
        )
        out().print(table(columns, rows))
        for each in found:
            if not each.holds:
                say(each.sentence, "red")
    if not all(each.holds for each in found):
        raise typer.Exit(BROKEN)
