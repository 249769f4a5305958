"""One small view's table, its rows, and others who write at the wrong moment."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lockstep.hashing import canonical, content_hash
from lockstep.stores import delta
from lockstep.stores.delta import DayTable, Proposal
from tests.s3_server import BUCKET, S3

INSTANT = pl.Datetime("us", "UTC")
COLUMNS = {
    "household_id": pl.Int64(),
    "event_timestamp": INSTANT,
    "sum_amt_7d": pl.Float64(),
    "labels": pl.List(pl.String()),
}
DAY = date(2026, 11, 1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def days_from(first: date, count: int) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]


def table_at(uri: Path | str, **changes: Any) -> DayTable:
    settings: dict[str, Any] = {
        "columns": COLUMNS,
        "name": "txn_7d",
        "zone": "America/New_York",
        "contract": '{"count": "Int64"}',
    }
    settings |= changes
    return DayTable(str(uri), settings.pop("columns"), **settings)


def rows(day: date, amount: float = 1.0, count: int = 3) -> pl.DataFrame:
    end = datetime(day.year, day.month, day.day, 5, tzinfo=UTC) + timedelta(days=1)
    return pl.DataFrame(
        {
            "household_id": range(count),
            "event_timestamp": [end] * count,
            "sum_amt_7d": [amount] * count,
            "labels": [["a", None], None, []][:count] + [["b"]] * (count - 3),
        },
        schema=COLUMNS,
    )


def proposal(day: date, frame: pl.DataFrame | None = None, **note: Any) -> Proposal:
    frame = canonical(rows(day) if frame is None else frame)
    return Proposal(day, frame, content_hash(frame), note)


def clock(start: datetime = NOON) -> Callable[[], datetime]:
    """Return a clock that is one second later each time it is read."""
    ticks = iter(range(10**6))
    return lambda: start + timedelta(seconds=next(ticks))


def created(uri: Path | str, **changes: Any) -> DayTable:
    table = table_at(uri, **changes)
    table.create()
    return table


@pytest.fixture
def table(tmp_path: Path) -> DayTable:
    return created(tmp_path / "my lake" / "offline" / "txn_7d")


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, s3_store: S3) -> DayTable:
    if request.param == "local":
        return created(tmp_path / "my lake" / "offline" / "txn_7d")
    return created(f"s3://{BUCKET}/{tmp_path.name}/offline/txn_7d", options=s3_store.options)


NEW = {
    "columns": {**COLUMNS, "count": pl.Int64()},
    "contract": '{"count": "Int64", "more": true}',
}


def new_rows(day: date, amount: float = 5.0) -> pl.DataFrame:
    return rows(day, amount).with_columns(count=pl.lit(1, pl.Int64))


def at(table: DayTable, **changes: Any) -> DayTable:
    return table_at(table.uri, options=table.place.options, **changes)


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Start all at once and return their results."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> Any:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def interfere(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object]) -> None:
    """Let somebody else act between the decision and the write of the nth commit."""
    real, count = delta.write_deltalake, iter(range(1000))

    def write(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(delta, "write_deltalake", real)
        before(next(count))
        monkeypatch.setattr(delta, "write_deltalake", write)
        real(*args, **kwargs)

    monkeypatch.setattr(delta, "write_deltalake", write)
