"""`materialize VIEW --rebuild`: the part that happens before Dagster records the rebuilt days."""

from collections.abc import Sequence
from datetime import date

from rich.progress import Progress

from lockstep.cli.console import err, note
from lockstep.errors import InputError
from lockstep.rebuild import rebuild
from lockstep.store import Store


def rebuild_views(store: Store, names: Sequence[str], days: str | None) -> list[date]:
    """Rebuild the named views, those that others read first; return their committed days.

    Raises:
        InputError: No view is named, or days are.
        UnknownNameError: There is no such view.
        NotCertifiedError: A day fails its audit; that view is as it was, those before it are new.
    """
    if not names or days is not None:
        raise InputError(
            "--rebuild builds every committed day of the views that are named.",
            expected="names of views, and no --days",
            effect="Nothing was started.",
        )
    wanted = {store.catalog.view(name).name for name in names}
    done: set[date] = set()
    console = err()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for view in (view for view in store.views.values() if view.name in wanted):
            total = len(store.committed(view))
            task = progress.add_task(f"rebuilding {view.name}", total=total)
            for outcome in rebuild(store.lake, view, store.reader(), now=store.now):
                progress.advance(task)
                done.add(outcome.day)
            note(f"{view.name}: {total} days are rebuilt by the declared contract.")
    return sorted(done)
