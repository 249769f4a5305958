"""How far a push is: a line per view on a terminal with rows and rows per second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return what was pushed, and how fast in the last seconds."""
        rate = f"{task.speed:,.0f} rows/s" if task.speed else ""
        return Text(f"{task.completed:,.0f} rows {rate}")


@contextmanager
def row_bars(console: Console) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """Yield a function: the name of a view → what to call with numbers of pushed rows."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Rate())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def of(view: str) -> Callable[[int], None]:
        task = progress.add_task(view, total=None)
        return lambda rows: progress.advance(task, rows)

    with progress:
        yield of
