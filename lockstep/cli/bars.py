"""How far a run is: a bar per asset on a terminal, nothing elsewhere."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from lockstep.cli.told import Told


class Bars:
    """Bars that follow what a run tells; used as a context, they are gone at its end."""

    def __init__(self, told: Told, console: Console) -> None:
        self._told = told
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._waiting: TaskID | None = None

    def __enter__(self) -> Self:
        """Show that something has begun: loading Dagster takes seconds."""
        self._progress.start()
        self._waiting = self._progress.add_task("loading Dagster", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars."""
        self._progress.stop()

    def hear(self, event: Any) -> None:
        """Take in an event and move its bar."""
        name = self._told.hear(event)
        if name is None:
            return
        if self._waiting is not None:
            self._progress.remove_task(self._waiting)
            self._waiting = None
        asset = self._told.assets[name]
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None)
        self._progress.update(
            self._tasks[name], total=asset.planned or None, completed=asset.finished
        )
