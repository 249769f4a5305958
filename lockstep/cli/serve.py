"""`serve` and `token create`: the feature service, and who may ask it."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from lockstep.project import Project
    from lockstep.serving.settings import ServingSettings

app = typer.Typer(no_args_is_help=True, help="Create bearer tokens for the feature service.")


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 is any free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.")] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(help="What a request may wait for the online store.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Requests that are answered at the same time.")
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Requests that may wait; beyond it they are shed.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen for other machines without tokens, or with an unprotected Redis.",
        ),
    ] = False,
    worker: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve feature vectors over HTTP until SIGTERM; needs neither Dagster nor the lake.

    Options win over [tool.lockstep.serving].
    """
    from lockstep.project import find_project

    project = find_project()
    settings = _settings(project).overridden(
        host=host,
        port=port,
        workers=workers,
        deadline_ms=deadline_ms,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
    )
    if settings.workers > 1 and worker is None:
        from lockstep.serving.process import configure_logging
        from lockstep.serving.workers import supervise

        configure_logging()
        raise typer.Exit(supervise(settings, sys.argv[2:]))
    from lockstep.serving.process import run

    raise typer.Exit(run(project, settings, insecure=insecure, worker=worker))


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who will use it, e.g. churn_model.")],
    *,
    view: Annotated[
        list[str] | None,
        typer.Option(metavar="VIEW", help="A view it may read; * is every view. Repeat it."),
    ] = None,
    pii: Annotated[
        bool, typer.Option("--pii", help="It may read columns that identify people.")
    ] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="It may read /metrics.")] = False,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="From when it is refused, e.g. 2027-01-01 (UTC)."),
    ] = None,
) -> None:
    """Create a token, keep its hash, and print the token: it is never shown again."""
    from pathlib import Path

    from lockstep.cli.console import note, say
    from lockstep.project import find_project
    from lockstep.serving.auth import METRICS, PII, create_token

    project = find_project()
    path = _settings(project).tokens
    if path is None:
        raise ConfigError(
            "The project has no file for tokens.",
            fix='Set tokens = "tokens.toml" in [tool.lockstep.serving], or LOCKSTEP_TOKENS.',
            effect="Nothing was written.",
        )
    scopes = [f"view:{each}" for each in view or []]
    scopes += [PII] * pii + [METRICS] * metrics
    token = create_token(Path(path), name, scopes, _instant(expires))
    note(f"The hash of the token of {name} is in {path}. The token is shown this once:")
    say(token)


def _settings(project: "Project") -> "ServingSettings":
    import os

    from lockstep.serving.settings import ServingSettings

    tokens = os.environ.get("LOCKSTEP_TOKENS")
    return ServingSettings.parse(project.serving, tokens, project.folder)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--expires is {text!r}.",
            expected="a date or an ISO 8601 timestamp",
            effect="Nothing was written.",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
