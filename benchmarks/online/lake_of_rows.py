"""Rows committed to Delta by Lockstep: through landing, ingestion and audits, or as they are."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.online import data
from benchmarks.online.polars_types import case_frame
from benchmarks.online.project_files import TYPES
from lockstep.errors import LockstepError
from lockstep.hashing import content_hash
from lockstep.ingest import ingest
from lockstep.materialize import materialize
from lockstep.store import Store
from lockstep.stores.proposal import Proposal


def build(store: Store, view: str, rows: pl.DataFrame) -> None:
    """Land rows, ingest them and materialize the view's day, audits included."""
    noon = datetime.combine(data.DAY, datetime.min.time(), UTC) + timedelta(hours=12)
    landed = rows.with_columns(at=pl.lit(noon, pl.Datetime("us", "UTC")))
    path = Path(store.project.landing) / f"{view}_rows" / "rows.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    landed.select(data.key_of(view), "at", *data.FEATURES).write_parquet(path)
    source, of = store.catalog.source(f"{view}_rows"), store.catalog.view(view)
    _require(ingest(store.lake, source, [data.DAY], now=store.now))
    _require(materialize(store.lake, of, [data.DAY], store.reader(), now=store.now))


def commit(store: Store, view: str, rows: pl.DataFrame, day: date = data.DAY) -> None:
    """Commit a frame as it is, past landing and audits: what Delta then holds is exactly this."""
    table = store.lake.table(store.catalog.view(view))
    table.create()
    end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    frame = rows.with_columns(event_timestamp=pl.lit(end, pl.Datetime("us", "UTC")))
    frame = frame.select(list(table.columns))
    note: dict[str, Any] = {
        "run_id": "benchmark",
        "code_version": "",
        "inputs": {},
        "data_through": end.isoformat(),
    }
    note |= {"closed": 0, "verdicts": []}
    table.commit([Proposal(day, frame, content_hash(frame), note)], now=store.now)


def commit_types(store: Store) -> None:
    """Commit the cases of `type_cases`, -0.0 included, which an audit would make 0.0."""
    commit(store, TYPES, case_frame())


def _require(outcomes: Iterable[Any]) -> None:
    for outcome in outcomes:
        if outcome.status != "committed":
            raise LockstepError(f"The benchmark's data was not committed: {outcome.message}")
