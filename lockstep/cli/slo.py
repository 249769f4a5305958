"""`slo export`: objectives of the contracts as Prometheus rules, dashboard and runbook index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.cli.console import BROKEN, say
from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from lockstep.catalog import Catalog

app = typer.Typer(no_args_is_help=True, help="Objectives as Prometheus rules and a dashboard.")


@app.command("export")
def export(
    *,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Where to; deploy/slo in the project's folder if not."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit 1 if the files are not what they were."),
    ] = False,
) -> None:
    """Write Prometheus rules, a Grafana dashboard and a runbook index from the contracts.

    Equal contracts give equal files, so they can be kept in git and held there with --check.
    """
    from lockstep.alerts.settings import parse_alerts
    from lockstep.catalog import discover
    from lockstep.project import find_project
    from lockstep.slo.export import FOLDER, differing, exported, way_up, write

    project = find_project()
    catalog = discover(project)
    _require_whole(catalog)
    place = folder.absolute() if folder else project.folder / FOLDER
    files = exported(
        catalog.views.values(), parse_alerts(project.alerts), way_up(place, project.folder)
    )
    wrong = differing(place, files)
    if check and wrong:
        for name, how in wrong.items():
            say(f"{place / name} {'is missing' if how == 'missing' else how}.", "red")
        say("Write what the contracts say now: lockstep slo export")
        raise typer.Exit(BROKEN)
    if check:
        say(f"{len(files)} files in {place} are what the contracts say.", "green")
        return
    write(place, {name: files[name] for name in wrong})
    for name in files:
        say(f"{'Wrote' if name in wrong else 'Unchanged:'} {place / name}")


def _require_whole(catalog: "Catalog") -> None:
    """Raise ConfigError if a view file is broken: its view would lose its alerts."""
    for path, why in catalog.broken.items():
        raise ConfigError(
            f"{path} is broken, and without it its views would have no alerts: {why}",
            fix="Mend the file.",
            effect="Nothing was written.",
        )
