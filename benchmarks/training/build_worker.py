"""Builds a workload's folder, alone in a process: `build_worker FOLDER SHAPE.json`.

project/           the project, its rows committed to Delta day by day, ledger included
peers/VIEW.parquet the same rows for peers, superseded ones too, with `created`
spine.parquet      the spine
"""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.training import data, project_files
from benchmarks.training.shapes import Shape, ViewShape, shape_of
from lockstep.hashing import content_hash
from lockstep.lake import LedgerEntry
from lockstep.project import find_project
from lockstep.store import Store
from lockstep.stores.proposal import Proposal

ROW_GROUP = 1_000_000


def build(folder: Path, shape: Shape) -> None:
    """Write everything."""
    project_files.write_project(folder / "project", shape)
    store = Store(find_project(folder / "project"))
    for view in shape.views:
        numbers = shape.restated if view is shape.first else ()
        commit_all(store, view, numbers)
        if shape.peers:
            write_for_peers(folder / "peers" / f"{view.name}.parquet", view)
    data.spine(shape).write_parquet(folder / "spine.parquet")


def commit_all(store: Store, view: ViewShape, restated: Sequence[int]) -> None:
    """Commit every day in the order in which a platform would have: an hour after its end.

    Late corrections are in the first revision, but for the days that are restated.
    """
    commits: list[tuple[datetime, int, bool]] = []
    for number in range(view.days):
        end = data.end_of(number)
        commits.append((end + data.CERTIFIED, number, number not in restated))
        if number in restated:
            commits.append((end + data.CORRECTED, number, True))
    for at, number, late in sorted(commits):
        rows, corrections = data.day_rows(view, number)
        commit(store, view, number, data.corrected(rows, corrections) if late else rows, at)


def commit(store: Store, view: ViewShape, number: int, rows: pl.DataFrame, at: datetime) -> None:
    """Commit one day's rows as they are, and tell the ledger."""
    of = store.catalog.view(view.name)
    table = store.lake.table(of)
    table.create()
    end = data.end_of(number)
    frame = rows.with_columns(event_timestamp=pl.lit(end, data.INSTANT)).select(list(of.columns))
    digest = content_hash(frame)
    note = {
        "run_id": "benchmark",
        "code_version": of.code_version,
        "inputs": {},
        "data_through": end.isoformat(),
        "closed": 0,
        "verdicts": [],
    }
    proposal = Proposal(data.day_of(number), frame, digest, note)
    (done,) = table.commit([proposal], now=lambda: at)
    entry = LedgerEntry(
        view=view.name,
        day=proposal.day,
        revision=done.revision,
        outcome="committed",
        recorded_at=at,
        run_id="benchmark",
        code_version=of.code_version,
        content_hash=digest,
        inputs={},
        verdicts=[],
    )
    store.lake.record([entry])


def write_for_peers(path: Path, view: ViewShape) -> None:
    """One file in the order of days; of rows with the same instant the last created one counts."""
    path.parent.mkdir(exist_ok=True)
    pl.concat(_for_peers(view)).write_parquet(path, row_group_size=ROW_GROUP)


def _for_peers(view: ViewShape) -> Iterator[pl.DataFrame]:
    for number in range(view.days):
        end = data.end_of(number)
        rows, late = (
            frame.with_columns(
                event_timestamp=pl.lit(end, data.INSTANT),
                created=pl.lit(end + after, data.INSTANT),
            )
            for frame, after in zip(
                data.day_rows(view, number), (data.CERTIFIED, data.CORRECTED), strict=True
            )
        )
        # The order in the file must not decide which of two rows counts.
        yield pl.concat([late, rows] if number % 2 else [rows, late])


def work(folder: str, said: str) -> dict[str, Any]:
    """Build the workload; what was built."""
    shape = shape_of(json.loads(said))
    build(Path(folder), shape)
    return {"rows": shape.rows, "spine": shape.spine}


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
