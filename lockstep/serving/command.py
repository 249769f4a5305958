"""`lockstep serve`: its options, declared once, and what it does with them.

The command line makes its command and help text out of the options here. A start that asks for no
help reads them here too, without the command line: Typer and the modules of all other commands take
as long to import as what serves.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lockstep.project import Project
    from lockstep.serving.settings import ServingSettings

HELP = """Serve feature vectors over HTTP until SIGTERM; needs neither Dagster nor the lake.

Options win over [tool.lockstep.serving].
"""


def _option(kind: type, said: str = "") -> Any:
    """Return an option; one of which nothing is said is for `lockstep` itself."""
    return field(default=False if kind is bool else None, metadata={"kind": kind, "help": said})


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `lockstep serve`; None leaves it to `[tool.lockstep.serving]`."""

    host: str | None = _option(str, "Address to listen on.")
    port: int | None = _option(int, "TCP port; 0 is any free one.")
    workers: int | None = _option(int, "Processes that share the port.")
    deadline_ms: int | None = _option(int, "What a request may wait for the online store.")
    max_in_flight: int | None = _option(int, "Requests that are answered at the same time.")
    max_queue: int | None = _option(int, "Requests that may wait; beyond it they are shed.")
    insecure: bool = _option(
        bool, "Listen for other machines without tokens, or with an unprotected Redis."
    )
    worker: int | None = _option(int)

    @classmethod
    def read(cls, words: Sequence[str]) -> "ServeOptions | None":
        """Return the options in the words of a command line; None if they need the full one.

        That is so if help is asked for or a word is wrong: the command line then says what.
        """
        import argparse

        class Parser(argparse.ArgumentParser):
            def error(self, message: str) -> NoReturn:
                raise argparse.ArgumentError(None, message)

        parser = Parser(add_help=False, allow_abbrev=False)
        for option in fields(cls):
            kind: Any = option.metadata["kind"]
            takes: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
            parser.add_argument(flag_of(option.name), default=option.default, **takes)
        try:
            return cls(**vars(parser.parse_args(words)))
        except argparse.ArgumentError:
            return None

    def words(self) -> list[str]:
        """Return the words of a command line that these are the options of."""
        words: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value is True:
                words.append(flag_of(option.name))
            elif value is not option.default:
                words.append(f"{flag_of(option.name)}={value}")
        return words

    def over(self, settings: "ServingSettings") -> "ServingSettings":
        """Return the settings with these options in their place.

        Raises:
            ConfigError: One has an unusable value.
        """
        own = {option.name for option in fields(settings)}
        given = {option.name: getattr(self, option.name) for option in fields(self)}
        return settings.overridden(**{name: given[name] for name in given.keys() & own})


def flag_of(name: str) -> str:
    """Return an option as it is written."""
    return "--" + name.replace("_", "-")


def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Raises:
        LockstepError: The project, a setting or an option is wrong, or the address can't be used.
    """
    from lockstep.project import find_project

    project = find_project()
    settings = options.over(settings_of(project))
    if settings.workers > 1 and options.worker is None:
        from lockstep.serving.workers import supervise

        return supervise(settings, options.words())
    from lockstep.serving.process import run

    return run(project, settings, insecure=options.insecure, worker=options.worker)


def settings_of(project: "Project") -> "ServingSettings":
    """Return the settings of a project; `LOCKSTEP_TOKENS` wins.

    Raises:
        ConfigError: A setting is unknown or has an unusable value.
    """
    from lockstep.serving.settings import ServingSettings

    tokens = os.environ.get("LOCKSTEP_TOKENS")
    return ServingSettings.parse(project.serving, tokens, project.folder)
