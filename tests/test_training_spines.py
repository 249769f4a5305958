"""Spines of every kind, and what passes through: sentences of docs/training-sets.md."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lockstep.errors import InputError, LockstepError
from lockstep.time import INSTANT, as_of
from tests.scenario import ZONE, World
from tests.training_world import (
    DAYS,
    FUTURE,
    VALUES,
    full_spine,
    spine_of,
    training_world,
)

pytestmark = [pytest.mark.filterwarnings(FUTURE), pytest.mark.usefixtures("in_parts")]

AT = as_of(DAYS[3], ZONE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return training_world(tmp_path_factory.mktemp("spines"))


def joined(made: World, spine: Any, **more: Any) -> pl.DataFrame:
    return made.store.training_set(spine, VALUES, timestamp="at", **more).frame


def parquet(frame: pl.DataFrame, folder: Path) -> Path:
    frame.write_parquet(folder / "spine.parquet")
    return folder / "spine.parquet"


def csv(frame: pl.DataFrame, folder: Path) -> str:
    frame.write_csv(folder / "spine.csv")
    return str(folder / "spine.csv")


def delta(frame: pl.DataFrame, folder: Path) -> Path:
    # Delta has no unsigned integers.
    target = folder / "a spine"
    frame.cast({"label": pl.Int64}).write_delta(str(target))
    return target


def partitioned_delta(frame: pl.DataFrame, folder: Path) -> Path:
    target = folder / "by shop"
    frame.cast({"label": pl.Int64}).sort("shop", maintain_order=True).write_delta(
        str(target), delta_write_options={"partition_by": ["shop"]}
    )
    return target


KINDS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "frame": lambda frame, _: frame,
    "LazyFrame": lambda frame, _: frame.lazy(),
    "pandas": lambda frame, _: frame.to_pandas(),
    "Arrow": lambda frame, _: frame.to_arrow(),
    "record batch": lambda frame, _: frame.to_arrow().combine_chunks().to_batches()[0],
    "parquet": parquet,
    "csv": csv,
    "Delta": delta,
    "partitioned Delta": partitioned_delta,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in parts"])
def test_a_spine_is_a_frame_of_polars_or_pandas_an_arrow_table_or_a_file(
    made: World, kind: str, memory: int | None, tmp_path: Path
) -> None:
    frame = full_spine().drop_nulls().sort("shop", "label").head(300)

    found = joined(made, KINDS[kind](frame, tmp_path), memory=memory)

    assert joined(made, frame).select(VALUES).equals(found.select(VALUES))
    assert frame["label"].to_list() == found["label"].to_list()
    assert frame["at"].to_list() == found["at"].to_list()


def test_every_row_of_the_spine_comes_back_once_in_its_order_duplicates_too(made: World) -> None:
    spine = full_spine()
    spine = pl.concat([spine.reverse(), spine, spine.head(7)])

    for memory in (None, 1):
        found = joined(made, spine, memory=memory)

        assert found.select(spine.columns).equals(spine)
        assert [*spine.columns, *VALUES] == found.columns


def test_columns_that_are_no_keys_pass_through_untouched(made: World) -> None:
    odd = pl.DataFrame(
        {
            "user_id": [1, 2, 1],
            "shop": ["a", "b", "a"],
            "at": [AT] * 3,
            "nan": [float("nan"), -0.0, None],
            "category": ["x", None, "y"],
            "enum": ["p", "q", None],
            "took": [1, None, 3],
            "clock": [1, 2, None],
            "unsigned": [2**64 - 1, None, 0],
            "ns": [1, None, 1_700_000_000_123_456_789],
            "array": [[1, 2], None, [3, None]],
            "list": [["é"], [], None],
            "struct": [{"a": 1, "b": None}, None, {"a": None, "b": "x"}],
            "null": [None, None, None],
            "decimal": ["1.50", None, "-2.25"],
            "bytes": [b"\x00", b"", None],
            "flag": [True, None, False],
        },
        schema_overrides={
            "at": INSTANT,
            "category": pl.Categorical,
            "enum": pl.Enum(["p", "q"]),
            "took": pl.Duration("ns"),
            "clock": pl.Time,
            "unsigned": pl.UInt64,
            "ns": pl.Datetime("ns", "Asia/Tokyo"),
            "array": pl.Array(pl.Int16, 2),
            "null": pl.Null,
        },
    ).with_columns(pl.col("decimal").cast(pl.Decimal(10, 2)))

    in_memory = made.store.training_set(odd, VALUES, timestamp="at")
    in_parts = made.store.training_set(odd, VALUES, timestamp="at", memory=1)

    for found in (in_memory.frame, in_parts.frame):
        assert odd.schema == found.select(odd.columns).schema
        assert found.select(odd.columns).equals(odd)
        assert str(found["nan"].to_list()) == "[nan, -0.0, None]"
    assert in_memory.manifest.output.hash == in_parts.manifest.output.hash


def test_pandas_keeps_a_label_that_is_not_a_number(made: World) -> None:
    frame = spine_of([(1, "a", AT)]).with_columns(label=pl.lit(float("nan")))

    assert "[nan]" == str(joined(made, frame.to_pandas())["label"].to_list())


def test_a_key_or_a_timestamp_that_is_null_gets_nulls(made: World) -> None:
    found = joined(made, spine_of([(None, "a", AT), (1, None, AT), (1, "a", None)]))

    assert [None, None, None] == found["visits:count"].to_list()
    assert [None, None] == [found["usage:amount"][row] for row in (0, 2)]


@pytest.mark.parametrize(
    ("spine", "words"),
    [
        ("absent.parquet", "absent.parquet does not exist"),
        ("absent.csv", "absent.csv does not exist"),
        ("spine.xlsx", "spine.xlsx does not exist"),
        ("no folder/spine.csv", "no folder/spine.csv does not exist"),
        (".", "of no known kind"),
        ([1, 2], r"The spine is a builtins.list. Expected a Polars frame"),
        (None, "The spine is a builtins.NoneType"),
    ],
)
def test_what_is_no_spine_is_refused(
    made: World, spine: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(LockstepError, match=words):
        joined(made, spine)

    assert [] == list(tmp_path.iterdir())


def test_a_damaged_spine_is_named(made: World, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 this is none")

    with pytest.raises(InputError, match=r"The spine .*x.parquet can't be read"):
        joined(made, tmp_path / "x.parquet")


def test_a_delta_table_that_only_its_writer_can_read_is_refused(
    made: World, tmp_path: Path
) -> None:
    log = tmp_path / "d" / "_delta_log"
    log.mkdir(parents=True)
    schema = pl.DataFrame({"user_id": [1]})
    schema.write_delta(str(tmp_path / "plain"))
    text = (tmp_path / "plain/_delta_log/00000000000000000000.json").read_text()
    lines = [line for line in text.splitlines() if '"protocol"' not in line]
    protocol = (
        '{"protocol":{"minReaderVersion":3,"minWriterVersion":7,'
        '"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}'
    )
    (log / "00000000000000000000.json").write_text("\n".join([protocol, *lines]) + "\n")

    with pytest.raises(LockstepError, match=r"deletionVectors|can't be read|could not be read"):
        joined(made, tmp_path / "d")


def test_rows_in_the_future_of_the_store_are_reported(made: World) -> None:
    now = made.clock.now
    after = as_of(DAYS[-1] + timedelta(days=1), ZONE)
    spine = spine_of(
        [
            (1, "a", at)
            for at in (AT, after - timedelta(seconds=1), after, now, now + timedelta(seconds=1))
        ]
    )

    for memory in (None, 1):
        found = made.store.training_set(spine, VALUES, timestamp="at", memory=memory).warnings

        assert [
            sentence
            for sentence in found
            if sentence.startswith("1 of 5 rows of the spine are later than now, 2026-11-11 05:00")
        ]
        assert (
            "The days of usage go up to 2026-11-03; 3 of 5 rows of the spine are at or after the "
            "end of the day after it, and get an older value or null." in found
        )
    known = made.store.training_set(spine_of([(1, "a", AT)]), VALUES, timestamp="at").warnings
    assert not [
        sentence for sentence in known if "later than now" in sentence or "go up" in sentence
    ]


def test_arrow_and_pandas_come_back(made: World) -> None:
    found = made.store.training_set(spine_of([(1, "a", AT)]), VALUES, timestamp="at")

    assert isinstance(found.to_arrow(), pa.Table)
    assert [1] == found.to_pandas()["user_id"].to_list()
    assert found.scan().collect().equals(found.frame)
    assert datetime(2026, 3, 9, 4, tzinfo=UTC) == AT


def test_a_sentinel_in_year_one_meets_no_day_of_a_view_with_a_ttl(made: World) -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    spine = spine_of([(1, "a", AT), (1, "a", first)])

    for memory in (None, 1):
        found = made.store.training_set(spine, VALUES, timestamp="at", memory=memory)
        assert (None,) * 3 == found.frame.select(VALUES).row(1)
        assert found.manifest.rows == 2
