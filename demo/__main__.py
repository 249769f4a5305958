"""`make demo`: the main job on real data, from landed files to served vectors, in one go.

`SERVE=0` ends after the checks, with exit status 0 only if all held.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from demo.labels import churn_spine, keep_spine
from demo.landing import land
from lockstep.cli.running import run_assets, serve_ui
from lockstep.errors import LockstepError
from lockstep.online import Vectors
from lockstep.parity import Parity
from lockstep.store import Store, open_store
from lockstep.stores.server import EmbeddedServer
from lockstep.time import days_between, last_full_day

DAYS = 60
LONGEST_WINDOW = 90
SET = "churn_v1"
PORT = 3000


@dataclass
class Story:
    """What the demo did, to be told at its end."""

    steps: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, console: Console, title: str) -> Iterator[Callable[[str], None]]:
        """Time one step; the block says what came of it."""
        began = time.perf_counter()
        told: list[str] = []
        console.print(f"[bold cyan]›[/] {title} …", highlight=False)
        yield told.append
        self.steps.append((title, " ".join(told), time.perf_counter() - began))


def main() -> int:
    """Run the demo and return its exit status."""
    console = Console()
    serve = os.environ.get("SERVE", "1") != "0"
    began = time.perf_counter()
    server = EmbeddedServer(Path(__file__).parents[1] / ".lockstep" / "redis")
    was_running = server.running()
    try:
        held = _main_job(console, server, began)
        if serve and held:
            address = f"http://127.0.0.1:{PORT}"
            console.print(f"\nDagster's UI starts and will answer on [link]{address}[/link]")
            console.print("Ctrl-C stops everything.")
            serve_ui(open_store(Path(__file__).parent).project, PORT)
    except LockstepError as error:
        Console(stderr=True).print(Panel(str(error), title="It did not hold", border_style="red"))
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not was_running:
            server.stop()
    return 0 if held else 1


def _main_job(console: Console, server: EmbeddedServer, began: float) -> bool:
    story = Story()
    with story.step(console, "Start the embedded server") as tell:
        server.start()
        tell(server.url)
    store = open_store(Path(__file__).parent)
    last = last_full_day(store.now(), store.project.zone)
    first = last - timedelta(days=DAYS - 1)
    with story.step(console, "Land the real data") as tell:
        tell(_land(console, store, first - timedelta(days=LONGEST_WINDOW - 1), last))
    with story.step(console, "Materialize, audit, commit and push") as tell:
        told, ended = run_assets(store, ["--days", f"{first}..{last}"], console)
        tell(f"{sum(asset.finished for asset in told.assets.values()):,} days of assets.")
        if ended.status:
            bad = [
                f"{name} {day.day}: {day.message}"
                for name, a in told.assets.items()
                for day in a.bad
            ]
            for message in [*told.errors, *bad]:
                console.print(message, style="red", markup=False)
            console.print(f"The run failed. Its log: {ended.log}", style="bold red", markup=False)
            return False
    with story.step(console, "Build a training set, point in time") as tell:
        cuts = [last - timedelta(days=n) for n in (45, 30, 15)]
        spine, file = churn_spine(store, cuts), store.project.state / "churn.parquet"
        training = store.training_set(spine, SET, to=file).frame
        keep_spine(store, spine)
        tell(f"{training.height:,} rows × {training.width} columns, .lockstep/churn.parquet")
    with story.step(console, "Fetch vectors") as tell:
        vectors = store.online(SET, _households(training))
        tell(f"{len(vectors.entities)} households × {len(vectors.features)} features, one trip.")
    with story.step(console, "Check that online equals offline, every entity") as tell:
        checked = store.parity()
        tell(f"{sum(p.equal for p in checked):,} of {sum(p.entities for p in checked):,} agree.")
    _tell(console, store, story, vectors, checked, time.perf_counter() - began)
    return all(found.holds for found in checked)


def _land(console: Console, store: Store, first: date, last: date) -> str:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("landing", total=len(days_between(first, last)))
        landed = land(store, first, last, lambda _: progress.advance(task))
    return f"{sum(landed.rows.values()):,} rows, {first} to {last}."


def _households(training: pl.DataFrame) -> list[dict[str, int]]:
    newest = training.filter(pl.col("event_timestamp") == pl.col("event_timestamp").max())
    chosen = newest["household_id"].sample(3, seed=7).sort()
    return [{"household_id": household} for household in chosen]


def _tell(
    console: Console,
    store: Store,
    story: Story,
    vectors: Vectors,
    checked: list[Parity],
    seconds: float,
) -> None:
    steps = Table.grid(padding=(0, 2))
    for title, what, took in story.steps:
        steps.add_row(f"[green]✓[/] {title}", what, f"[dim]{took:5.1f} s[/]")
    sample = Table(title="Three households as the model would see them", title_justify="left")
    sample.add_column("feature")
    for entity in vectors.entities:
        sample.add_column(str(entity["household_id"]), justify="right")
    for at, name in enumerate(vectors.features):
        sample.add_row(name, *(_cell(row[at]) for row in vectors.values))
    views, bad = len(store.views), [found for found in checked if not found.holds]
    verdict = (
        "[red]" + "\n".join(found.sentence for found in bad) + "[/]"
        if bad
        else f"[bold green]In lockstep:[/] online equals offline, bit for bit, in {views} views."
    )
    look = (
        "[dim]Where to look next[/]\n"
        "  . .venv/bin/activate\n"
        "  lockstep views             the catalog\n"
        "  lockstep up                the online server, which this demo stops at its end\n"
        f"  lockstep get household_id={vectors.entities[0]['household_id']} "
        "--feature-set churn_v1\n"
        "  lockstep preview txn_7d    compute and audit a day, write nothing\n"
        "  feature_assets/txn_7d.py   a whole view in one file"
    )
    title = f"Lockstep · {views} views, {DAYS} days, {seconds:.0f} s"
    console.print(Panel(Group(steps, "", sample, "", verdict, "", look), title=title))


def _cell(value: object) -> str:
    if value is None:
        return "[dim]–[/]"
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
