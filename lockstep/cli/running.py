"""Dagster as a child process, followed: the assets over some days, or the UI until Ctrl-C."""

import socket
import sys
from collections.abc import Sequence

from rich.console import Console

from lockstep.cli.bars import Bars
from lockstep.cli.child import Ended, run_child, serve_child
from lockstep.cli.console import err
from lockstep.cli.told import Told
from lockstep.errors import ConfigError
from lockstep.project import Project
from lockstep.store import Store


def run_assets(
    store: Store, arguments: Sequence[str], console: Console | None = None, told: Told | None = None
) -> tuple[Told, Ended]:
    """Run the project's assets in a process of their own; return what it told and how it ended.

    Args:
        store: The opened project.
        arguments: Of `schedules.run`: `--days FROM..TO`, and `--select NAME,…` if not everything.
        console: Where bars are drawn, if it is a terminal; stderr unless given.
        told: What earlier runs told; this one adds to it.

    Raises:
        ConfigError: The project has no schedules/run.py.
    """
    folder = store.project.folder
    if not (folder / "schedules" / "run.py").is_file():
        raise ConfigError(
            f"{folder} has no schedules/run.py.",
            expected="the module that runs the project's Dagster assets",
            fix="Take it from the reference project, or call lockstep.materialize from Python.",
            effect="Nothing was started.",
        )
    heard = told or Told()
    with Bars(heard, console or err()) as bars:
        ended = run_child(
            [sys.executable, "-m", "schedules.run", *arguments],
            project=store.project,
            on_event=bars.hear,
            now=store.now(),
        )
    return heard, ended


def serve_ui(project: Project, port: int) -> Ended:
    """Serve Dagster's UI and daemon on this machine until a signal arrives.

    Raises:
        ConfigError: There is no workspace.yaml, or the port is taken.
    """
    workspace = project.folder / "workspace.yaml"
    if not workspace.is_file():
        raise ConfigError(
            f"{project.folder} has no workspace.yaml.",
            expected="the file that tells Dagster what to load",
            effect="Nothing was started.",
        )
    require_free(port)
    dagster = [sys.executable, "-m", "dagster"]
    return serve_child(
        [*dagster, "dev", "-w", workspace.name, "--host", "127.0.0.1", "--port", str(port)],
        # Several of Dagster's processes at once fail to create the schema of a fresh home.
        first=[*dagster, "instance", "info"],
        project=project,
    )


def require_free(port: int) -> None:
    """Raise ConfigError if somebody listens on the port: Dagster would go on without its UI."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} of this machine can't be used: {error.strerror}.",
                fix="Take another: lockstep ui --port 3001",
                effect="Nothing was started.",
            ) from error
