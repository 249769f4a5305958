"""`training-sets`: the sets that the lake keeps, and what they pin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import emit_json, note, out, say, table, text
from lockstep.cli.opened import opened
from lockstep.errors import InputError

if TYPE_CHECKING:
    from lockstep.training.kept_sets import KeptSets
    from lockstep.training.manifest import Manifest

app = typer.Typer(
    help="Training sets that the lake keeps: list, show, remove.", no_args_is_help=True
)


@app.command("list")
def list_sets(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False
) -> None:
    """List the kept sets: rows, features, mode, and the versions that they pin."""
    from lockstep.training.kept_sets import KeptSets

    sets = KeptSets(opened().lake)
    found, unreadable = _read(sets)
    if as_json:
        damaged = [{"name": name, "unreadable": why} for name, why in unreadable.items()]
        emit_json([*(manifest.to_json() for manifest in found), *damaged])
    elif not found and not unreadable:
        say("The lake keeps no training set. Make one: lockstep training-set --name NAME …")
    else:
        columns = ("name", "made at", "rows", "features", "mode", "pins")
        damaged_rows = [(name, text("unreadable", "red"), "", "", "", "") for name in unreadable]
        out().print(table(columns, [*map(_line, found), *damaged_rows]))
        for why in unreadable.values():
            note(why, "yellow")


def _read(sets: "KeptSets") -> "tuple[list[Manifest], dict[str, str]]":
    """Return the manifests, newest first, and name → what is wrong with those that are damaged."""
    found, unreadable = [], {}
    for name in sets.names():
        try:
            found.append(sets.manifest(name))
        except InputError as error:
            unreadable[name] = str(error)
    return sorted(found, key=lambda item: item.created_at, reverse=True), unreadable


def _line(manifest: "Manifest") -> tuple[object, ...]:
    asked = manifest.feature_set["name"] if manifest.feature_set else f"{len(manifest.features)}"
    return (
        manifest.name,
        text(f"{manifest.created_at:%Y-%m-%d %H:%M} UTC"),
        manifest.rows,
        text(asked),
        manifest.mode,
        text(_pins(manifest)),
    )


def _pins(manifest: "Manifest") -> str:
    return ", ".join(
        f"{view} v{pin.version}" for view, pin in manifest.views.items() if pin.version is not None
    )


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The set.")],
    *,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a report with histograms.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Show what a kept set was made of and what its features look like."""
    from lockstep.cli.set_summary import show_profile
    from lockstep.cli.training import identifying, require_place, write_report
    from lockstep.training.kept_sets import KeptSets
    from lockstep.training.training_set import profile_from

    if report is not None:
        require_place(report)
    store = opened()
    sets = KeptSets(store.lake)
    manifest = sets.manifest(name)
    profile = profile_from(sets.profile(manifest))
    if report is not None:
        write_report(store, manifest, profile, report)
    if as_json:
        emit_json(manifest.to_json())
        return
    out().print(table(("", ""), _facts(manifest)))
    hidden = identifying(store, manifest.features)
    show_profile(profile, hidden=hidden)


def _facts(manifest: "Manifest") -> list[tuple[object, object]]:
    asked = manifest.feature_set
    return [
        ("name", manifest.name),
        ("made at", text(f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC")),
        ("rows", manifest.rows),
        ("feature set", f"{asked['name']} ({asked['version']})" if asked else "none"),
        ("mode", manifest.mode),
        ("pins", text(_pins(manifest))),
        ("files", text(", ".join(manifest.files.values()))),
        ("spine's hash", manifest.spine.hash),
        ("set's hash", manifest.output.hash),
        *((text("warning", "yellow"), text(sentence)) for sentence in manifest.warnings),
    ]


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="The set.")]) -> None:
    """Remove a kept set; what it pinned may then be collected by the next clean-up."""
    from lockstep.training.kept_sets import KeptSets

    manifest = KeptSets(opened().lake).remove(name)
    if manifest is None:
        say(f"{name} is removed; its manifest was damaged, so what it pinned is not known.")
        return
    say(f"{name} is removed; it pinned {_pins(manifest) or 'nothing'}.")
    if "to" in manifest.files:
        say(f"What was written to {manifest.files['to']} stays, and can no longer be rebuilt.")
