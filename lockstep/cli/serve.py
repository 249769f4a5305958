"""`serve` and `token create`: the feature service, and who may ask it."""

from dataclasses import fields
from datetime import UTC, datetime
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from lockstep.errors import ConfigError
from lockstep.serving import command

app = typer.Typer(no_args_is_help=True, help="Create bearer tokens for the feature service.")


def serve(**options: Any) -> None:  # noqa: D103 - what its help says is said once, beside its options
    raise typer.Exit(command.serve(command.ServeOptions(**options)))


def _parameters() -> list[Parameter]:
    """Return the options as Typer reads those of a function."""
    return [
        Parameter(
            option.name,
            Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=Annotated[
                option.type,
                typer.Option(
                    command.flag_of(option.name),
                    help=option.metadata["help"],
                    hidden=not option.metadata["help"],
                ),
            ],
        )
        for option in fields(command.ServeOptions)
    ]


serve.__doc__ = command.HELP
serve.__signature__ = Signature(_parameters())  # type: ignore[attr-defined]


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
    path = command.settings_of(project).tokens
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
