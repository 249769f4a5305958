"""The point-in-time join against DuckDB's, on more rows than a naive look can take."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lockstep.time import micros
from lockstep.training.pit import ask, find
from lockstep.training.pit_gather import gather
from lockstep.training.timeline import Rows, Slice, event_slices, known_slices
from tests.pit_oracle import HOUR, Revision, end_of

ZONE = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 3, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(50)]
ENTITIES = 20_000
SPINE = 200_000
TYPES: dict[str, pl.DataType] = {"amount": pl.Float64(), "visits": pl.Int32(), "city": pl.String()}

ROWS = """
    CREATE TABLE rows AS
    SELECT f.*, s.event_us, s.since, s.until
    FROM read_parquet($files, filename = true) f JOIN slices s ON s.filename = f.filename
"""
ASOF = """
    SELECT s.row, f.amount, f.visits, f.city
    FROM spine s ASOF LEFT JOIN rows f ON s.k = f.k AND s.t >= f.event_us
    ORDER BY s.row
"""
ASOF_WITHIN = """
    SELECT row, CASE WHEN ok THEN amount END amount, CASE WHEN ok THEN visits END visits,
        CASE WHEN ok THEN city END city
    FROM (
        SELECT s.row, s.t - f.event_us <= $ttl ok, f.amount, f.visits, f.city
        FROM spine s ASOF LEFT JOIN rows f ON s.k = f.k AND s.t >= f.event_us
    )
    ORDER BY row
"""
KNOWN = """
    SELECT s.row, f.amount, f.visits, f.city
    FROM spine s LEFT JOIN (
        SELECT s.row, arg_max(
            {'amount': f.amount, 'visits': f.visits, 'city': f.city, 'at': f.event_us},
            f.event_us
        ) AS f, max(f.event_us) AS event_us
        FROM spine s JOIN rows f ON s.k = f.k AND s.t >= f.since AND s.t < f.until
        GROUP BY s.row
    ) best ON s.row = best.row AND s.t - best.event_us <= $ttl
    ORDER BY s.row
"""


class Files(Rows):
    """Slices as the lake stores them: a compressed Parquet file each, sorted by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, day: date, revision: int) -> Path:
        return self.folder / f"{day}-{revision}.parquet"

    def read(self, piece: Slice, columns: Sequence[str]) -> pl.DataFrame:
        return pl.read_parquet(self.path(piece.day, piece.revision), columns=list(columns))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("slices"))


def rows_of(chance: np.random.Generator, share: float) -> pl.DataFrame:
    keys = np.flatnonzero(chance.random(ENTITIES) < share).astype(np.int64) * 7 - 50_000
    count = len(keys)
    frame = pl.DataFrame(
        {
            "k": keys,
            "amount": chance.normal(size=count),
            "visits": chance.integers(-5, 5, count).astype(np.int32),
            "city": chance.choice(["Ulm", "Köln", "", "Bonn"], count),
        }
    )
    lost = pl.Series(chance.random(count) < 0.02)
    return frame.with_columns(
        pl.when(~lost).then(pl.col(name)).otherwise(None).alias(name) for name in TYPES
    )


@pytest.fixture(scope="module")
def history(files: Files) -> Mapping[date, Sequence[Revision]]:
    """50 days, a million rows; some days land late, some are restated and drop entities."""
    found: dict[date, list[Revision]] = {}
    for number, day in enumerate(DAYS):
        chance = np.random.default_rng([4, number])
        known = end_of(day, ZONE) + HOUR * int(
            chance.choice([1, 2, 30, 200], p=[0.4, 0.4, 0.1, 0.1])
        )
        revisions = []
        for revision in range(1, 1 + int(chance.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
            # Every second day is nearly empty, so that many rows must be looked for further back.
            frame = rows_of(chance, 0.95 if number % 2 else 0.3)
            frame.write_parquet(files.path(day, revision), compression="zstd")
            cells = dict.fromkeys(range(frame.height), ())
            revisions.append(Revision(day, revision, revision, known, cells))
            known += HOUR * int(chance.integers(1, 100))
        found[day] = revisions
    return found


def spine() -> pl.DataFrame:
    chance = np.random.default_rng(5)
    end = micros(end_of(DAYS[-1], ZONE) + timedelta(days=9))
    at = chance.integers(micros(end_of(DAYS[0], ZONE) - timedelta(days=2)), end, SPINE)
    # A tenth lies exactly at the end of a day.
    ends = np.array([micros(end_of(day, ZONE)) for day in DAYS])
    at[::10] = chance.choice(ends, SPINE // 10)
    keys = chance.integers(-500, ENTITIES + 500, SPINE) * 7 - 50_000
    frame = pl.DataFrame({"k": keys, "t": at}).with_row_index("row")
    lost = pl.Series(chance.random(SPINE) < 0.01)
    return frame.with_columns(k=pl.when(~lost).then("k"), t=pl.when(~lost.reverse()).then("t"))


def asked_of_duckdb(
    files: Files, slices: Sequence[Slice], frame: pl.DataFrame, query: str, ttl: timedelta | None
) -> pl.DataFrame:
    pieces = [
        (
            str(files.path(piece.day, piece.revision)),
            piece.event_us,
            piece.effect_us,
            min((s.effect_us for s in slices if supersedes(s, piece)), default=2**62),
        )
        for piece in slices
    ]
    counting = pl.DataFrame(pieces, schema=["filename", "event_us", "since", "until"], orient="row")
    with duckdb.connect() as connection:
        connection.register("spine", frame.to_arrow())
        connection.register("slices", counting.to_arrow())
        connection.execute(ROWS, {"files": counting["filename"].to_list()})
        values = {} if ttl is None else {"ttl": ttl // timedelta(microseconds=1)}
        found = pl.DataFrame(connection.sql(query, params=values).to_arrow_table())
    return found.drop("row").cast(dict(TYPES))


def supersedes(one: Slice, other: Slice) -> bool:
    return one.day == other.day and one.revision > other.revision


def joined(
    files: Files, slices: Sequence[Slice], frame: pl.DataFrame, ttl: timedelta | None
) -> pl.DataFrame:
    hits = find(ask(frame.select("k"), frame["t"]), slices, files, ttl)
    return gather(hits, slices, files, list(TYPES), TYPES)


@pytest.mark.parametrize("ttl", [None, timedelta(hours=36)])
def test_in_event_time_duckdb_finds_the_same(
    files: Files, history: Mapping[date, Sequence[Revision]], ttl: timedelta | None
) -> None:
    slices = event_slices({day: revisions[-1] for day, revisions in history.items()}, ZONE)
    frame = spine()

    found = joined(files, slices, frame, ttl)

    query = ASOF if ttl is None else ASOF_WITHIN
    assert_frame_equal(asked_of_duckdb(files, slices, frame, query, ttl), found, check_exact=True)
    assert 0.5 < 1 - found["visits"].null_count() / SPINE < 0.95


@pytest.mark.parametrize("ttl", [timedelta(days=2), timedelta(days=3650)])
def test_in_known_time_duckdb_finds_the_same(
    files: Files, history: Mapping[date, Sequence[Revision]], ttl: timedelta
) -> None:
    slices = known_slices(history, ZONE, HOUR, live=datetime(2026, 1, 1, tzinfo=UTC))
    frame = spine()

    found = joined(files, slices, frame, ttl)

    expected = asked_of_duckdb(files, slices, frame, KNOWN, ttl)
    assert_frame_equal(expected, found, check_exact=True)
    assert 0.3 < 1 - found["visits"].null_count() / SPINE < 0.95


def test_the_data_has_what_the_two_modes_differ_by(
    history: Mapping[date, Sequence[Revision]],
) -> None:
    restated = [revisions for revisions in history.values() if len(revisions) > 1]
    late = [r for (r, *_) in history.values() if r.known_at - end_of(r.day, ZONE) > 24 * HOUR]
    rows = sum(revisions[-1].rows for revisions in history.values())

    assert len(restated) >= 8
    assert len(late) >= 4
    assert 500_000 < rows
