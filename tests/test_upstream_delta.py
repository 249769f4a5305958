"""What this project leans on in deltalake and Polars: an upgrade that changes it turns red here."""

import json
import os
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from polars.testing import assert_frame_equal

from lockstep.hashing import content_hash

FIRST, SECOND, THIRD = (date(2026, 11, day) for day in (1, 2, 3))
INSTANT = pl.Datetime("us", "UTC")
ONE_FILE = 1 << 40


def rows(*days: date, value: float = 1.0, count: int = 2) -> pl.DataFrame:
    return pl.concat(
        [
            pl.DataFrame(
                {"key": range(count), "value": [value] * count, "day": [day] * count},
                schema={"key": pl.Int64, "value": pl.Float64, "day": pl.Date},
            )
            for day in days
        ]
    )


def create(path: Path, schema: pl.Schema | None = None, **configuration: str) -> str:
    DeltaTable.create(
        str(path),
        Schema.from_arrow(schema or rows(FIRST).schema),
        partition_by=["day"],
        configuration={"delta.enableExpiredLogCleanup": "false", **configuration},
        raise_if_key_not_exists=False,
    )
    return str(path)


def overwrite(
    table: str | DeltaTable,
    frame: pl.DataFrame,
    days: Sequence[date],
    transactions: dict[str, int] | None = None,
    **metadata: Any,
) -> None:
    listed = ", ".join(f"'{day}'" for day in days)
    write_deltalake(
        table,
        frame,
        mode="overwrite",
        predicate=f"day IN ({listed})",
        target_file_size=ONE_FILE,
        commit_properties=CommitProperties(
            custom_metadata=metadata,
            max_commit_retries=100,
            app_transactions=[Transaction(key, n) for key, n in (transactions or {}).items()],
        ),
    )


def days_of(uri: str) -> list[date]:
    return pl.read_delta(uri)["day"].unique().sort().to_list()


def log_lines(uri: str, version: int) -> list[dict[str, Any]]:
    text = Path(uri, "_delta_log", f"{version:020d}.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


NESTED = pl.Struct({"a": pl.Float64(), "b": pl.List(pl.String())})
SURVIVING: list[tuple[pl.DataType, list[Any]]] = [
    (pl.Int8(), [-128, 127, None]),
    (pl.Int16(), [-(2**15), 2**15 - 1, None]),
    (pl.Int32(), [-(2**31), 2**31 - 1, None]),
    (pl.Int64(), [-(2**63), 2**63 - 1, 2**53 + 1, None]),
    (pl.Float32(), [0.1, float("nan"), float("inf"), -float("inf"), 1e-45, None]),
    (pl.Float64(), [0.1, float("nan"), float("inf"), -float("inf"), 5e-324, -0.0, 0.0, None]),
    (pl.Boolean(), [True, False, None]),
    (pl.String(), ["", "é", "e\u0301", "a\x00b\r\n", "'; --", "__HIVE_DEFAULT_PARTITION__", None]),
    (pl.Binary(), [b"", b"\x00\xff", None]),
    (pl.Date(), [date(1, 1, 1), date(1970, 1, 1), date(9999, 12, 31), None]),
    (
        INSTANT,
        [
            datetime(1900, 1, 1, 0, 0, 0, 1, UTC),
            datetime(2026, 11, 1, 5, 59, 59, 999_999, UTC),
            datetime(2262, 12, 31, tzinfo=UTC),
            None,
        ],
    ),
    (pl.Decimal(5, 2), [Decimal("999.99"), Decimal("-0.01"), None]),
    (pl.Decimal(18, 4), [Decimal("12345678901234.5678"), None]),
    (pl.Decimal(38, 10), [Decimal("1234567890123456789012345678.0123456789"), None]),
    (pl.List(pl.Int64()), [[1, None], [], None]),
    (pl.List(pl.List(pl.String())), [[["a"], []], [None], None]),
    (pl.List(INSTANT), [[datetime(2026, 1, 1, tzinfo=UTC), None], None]),
    (NESTED, [{"a": 1.0, "b": ["x", None]}, {"a": None, "b": None}, None]),
    (pl.List(pl.Struct({"x": pl.Decimal(9, 2)})), [[{"x": Decimal("1.50")}, None], [], None]),
]


@pytest.mark.parametrize(("dtype", "cells"), SURVIVING, ids=[str(dtype) for dtype, _ in SURVIVING])
def test_a_type_of_the_closed_list_comes_back_bit_for_bit(
    tmp_path: Path, dtype: pl.DataType, cells: list[Any]
) -> None:
    frame = pl.DataFrame({"x": pl.Series(cells, dtype=dtype, strict=True)})
    stored = frame.with_columns(day=pl.lit(FIRST))
    uri = create(tmp_path / "t", stored.schema)

    overwrite(uri, stored, [FIRST])

    found = pl.scan_delta(uri).collect().drop("day")
    assert found.schema == frame.schema
    assert content_hash(found) == content_hash(frame)


def test_a_nan_of_any_bits_keeps_them_so_that_we_must_make_them_one(tmp_path: Path) -> None:
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))[0]
    frame = pl.DataFrame({"x": [odd], "day": [FIRST]})
    uri = create(tmp_path / "t", frame.schema)

    overwrite(uri, frame, [FIRST])

    assert struct.pack("<d", pl.read_delta(uri)["x"][0]) == struct.pack("<d", odd)


@pytest.mark.parametrize(
    ("dtype", "comes_back"),
    [
        (pl.UInt8(), pl.Int8()),
        (pl.UInt32(), pl.Int32()),
        (pl.UInt64(), pl.Int64()),
        (pl.Datetime("ms", "UTC"), INSTANT),
    ],
    ids=str,
)
def test_a_type_outside_the_list_comes_back_as_another(
    tmp_path: Path, dtype: pl.DataType, comes_back: pl.DataType
) -> None:
    frame = pl.DataFrame(schema={"x": dtype, "day": pl.Date})

    uri = create(tmp_path / "t", frame.schema)

    assert pl.scan_delta(uri).collect_schema()["x"] == comes_back


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Duration("us"),
        pl.Time(),
        pl.Int128(),
        pl.Datetime("us", "Europe/Berlin"),
    ],
    ids=str,
)
def test_some_types_are_refused_when_a_table_is_created(tmp_path: Path, dtype: pl.DataType) -> None:
    with pytest.raises(Exception, match=r"Invalid data type for Delta|not supported in Rust"):
        create(tmp_path / "t", pl.Schema({"x": dtype, "day": pl.Date()}))


def test_a_column_of_nanoseconds_makes_a_table_that_polars_refuses(tmp_path: Path) -> None:
    uri = create(tmp_path / "t", pl.Schema({"x": pl.Datetime("ns", "UTC"), "day": pl.Date()}))

    with pytest.raises(DeltaError, match="timestampNanos"):
        pl.read_delta(uri)


def test_the_writer_casts_without_a_word_so_that_we_must_compare_schemas(tmp_path: Path) -> None:
    uri = create(tmp_path / "t", pl.Schema({"x": pl.Int64(), "at": INSTANT, "day": pl.Date()}))
    elsewhere = pl.Series([datetime(2026, 1, 1, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin")
    frame = pl.DataFrame({"x": [1.7], "at": elsewhere.dt.cast_time_unit("ms"), "day": [FIRST]})

    write_deltalake(uri, frame, mode="append")

    found = pl.read_delta(uri).row(0)
    assert found == (1, datetime(2026, 1, 1, tzinfo=UTC), FIRST)


def test_a_list_of_days_replaces_exactly_these_days(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST, SECOND, THIRD), [FIRST, SECOND, THIRD])

    overwrite(uri, rows(FIRST, THIRD, value=2.0), [FIRST, THIRD])

    found = pl.read_delta(uri).group_by("day").agg(pl.col("value").first()).sort("day")
    assert found["value"].to_list() == [2.0, 1.0, 2.0]


def test_a_range_of_days_erases_the_one_in_the_middle(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST, SECOND, THIRD), [FIRST, SECOND, THIRD])

    write_deltalake(
        uri,
        rows(FIRST, THIRD),
        mode="overwrite",
        predicate=f"day >= '{FIRST}' AND day <= '{THIRD}'",
    )

    assert days_of(uri) == [FIRST, THIRD]


def test_no_rows_for_a_listed_day_clear_it_and_still_carry_the_transaction(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST, SECOND), [FIRST, SECOND], {"a": 1})

    overwrite(uri, rows(FIRST).clear(), [FIRST], {"a": 2})

    assert days_of(uri) == [SECOND]
    assert DeltaTable(uri).transaction_version("a") == 2


def test_a_row_of_a_day_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")

    with pytest.raises(DeltaError, match="rows failed validation check"):
        overwrite(uri, rows(FIRST, SECOND), [FIRST])

    assert DeltaTable(uri).version() == 0


def test_one_commit_carries_a_transaction_per_day(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    handle = DeltaTable(uri)
    numbers = {f"lockstep/t/{FIRST + timedelta(days=n)}": n + 1 for n in range(40)}

    overwrite(handle, rows(FIRST), [FIRST], numbers)

    assert handle.version() == 1
    for reader in (handle, DeltaTable(uri)):
        assert {key: reader.transaction_version(key) for key in numbers} == numbers
    assert DeltaTable(uri).transaction_version("never") is None


def test_transactions_survive_a_checkpoint(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST], {"a": 7})

    DeltaTable(uri).create_checkpoint()
    overwrite(uri, rows(SECOND), [SECOND])

    assert DeltaTable(uri).transaction_version("a") == 7


def test_of_two_writers_of_one_day_the_later_fails(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    early, late = DeltaTable(uri), DeltaTable(uri)
    overwrite(early, rows(FIRST), [FIRST])

    with pytest.raises(CommitFailedError):
        overwrite(late, rows(FIRST, value=2.0), [FIRST])

    assert DeltaTable(uri).version() == 1
    assert pl.read_delta(uri)["value"].to_list() == [1.0, 1.0]


def test_of_two_writers_that_empty_one_day_the_transaction_decides(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    early, late = DeltaTable(uri), DeltaTable(uri)
    overwrite(early, rows(FIRST).clear(), [FIRST], {"a": 1})

    with pytest.raises(CommitFailedError, match="Concurrent transaction"):
        overwrite(late, rows(FIRST).clear(), [FIRST], {"a": 1})


def test_writers_of_different_days_both_commit_and_know_their_versions(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    early, late = DeltaTable(uri), DeltaTable(uri)
    overwrite(early, rows(FIRST), [FIRST], {"a": 1})

    overwrite(late, rows(SECOND), [SECOND], {"b": 1})

    assert (early.version(), late.version()) == (1, 2)
    assert days_of(uri) == [FIRST, SECOND]


def test_one_common_day_fails_the_whole_chunk(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    early, late = DeltaTable(uri), DeltaTable(uri)
    overwrite(early, rows(SECOND), [SECOND])

    with pytest.raises(CommitFailedError):
        overwrite(late, rows(FIRST, SECOND, THIRD), [FIRST, SECOND, THIRD])

    assert days_of(uri) == [SECOND]


def test_a_change_of_the_metadata_fails_every_writer_in_flight(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    early, late = DeltaTable(uri), DeltaTable(uri)
    early.alter.set_table_properties({"delta.checkpointInterval": "50"})

    with pytest.raises(CommitFailedError, match=r"(?i)metadata"):
        overwrite(late, rows(FIRST), [FIRST])


def test_a_lower_transaction_version_is_accepted_so_that_we_must_read_it_first(
    tmp_path: Path,
) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST], {"a": 5})

    overwrite(uri, rows(FIRST, value=2.0), [FIRST], {"a": 4})

    assert DeltaTable(uri).transaction_version("a") == 4


def test_metadata_of_a_commit_stands_in_its_first_line_and_transactions_in_its_last(
    tmp_path: Path,
) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST])
    metadata = {"days": {str(FIRST): {"revision": 2, "note": {"é\n": [1, None, 1.5, True]}}}}

    overwrite(uri, rows(FIRST, value=2.0), [FIRST], {"a": 2, "b": 2}, lockstep=metadata)

    lines = log_lines(uri, 2)
    assert [next(iter(line)) for line in lines] == ["commitInfo", "remove", "add", "txn", "txn"]
    assert lines[0]["commitInfo"]["lockstep"] == metadata
    assert lines[2]["add"]["partitionValues"] == {"day": str(FIRST)}
    assert lines[2]["add"]["dataChange"] is True


def test_compaction_says_that_it_changes_no_data(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    for _ in range(2):
        write_deltalake(uri, rows(FIRST), mode="append")

    DeltaTable(uri).optimize.compact()

    kinds = [
        (kind, body.get("dataChange")) for line in log_lines(uri, 3) for kind, body in line.items()
    ]
    assert ("add", False) in kinds
    assert ("remove", False) in kinds


def test_a_day_is_one_file_in_the_order_of_the_frame(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    keys = pl.Series("key", range(400_000), pl.Int64).shuffle(seed=3)
    for value in (1.0, 2.0):
        chunk = [
            rows(day, value=value, count=len(keys)).with_columns(keys) for day in (FIRST, SECOND)
        ]
        overwrite(uri, pl.concat(chunk), [FIRST, SECOND])

    table = DeltaTable(uri)
    assert len(table.file_uris()) == 2
    for file in table.file_uris():
        assert pl.read_parquet(file)["key"].equals(keys)


def test_files_are_scanned_in_the_order_in_which_they_are_given(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        pl.DataFrame({"x": [int(name)] * 3}).write_parquet(tmp_path / name)

    backwards = [str(tmp_path / name) for name in reversed(names)]

    found = pl.scan_parquet(backwards, glob=False).collect(engine="in-memory")["x"]
    assert found.unique(maintain_order=True).to_list() == list(reversed(range(40)))


def test_delta_gives_files_in_no_order_of_days(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST])
    overwrite(uri, rows(SECOND), [SECOND])

    assert pl.scan_delta(uri).collect()["day"].to_list()[0] == SECOND


def test_scan_delta_fails_on_a_path_with_a_space(tmp_path: Path) -> None:
    uri = create(tmp_path / "my lake")
    overwrite(uri, rows(FIRST), [FIRST])

    with pytest.raises(FileNotFoundError):
        pl.scan_delta(uri).collect()


def test_history_misnumbers_commits_once_one_lost_its_first_line(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    for value in (1.0, 2.0, 3.0):
        overwrite(uri, rows(FIRST, value=value), [FIRST], None, mark=value)
    Path(uri, "_delta_log", f"{3:020d}.json").write_text("")

    found = [(item["version"], item.get("mark")) for item in DeltaTable(uri).history(2)]

    assert found[0] == (3, 2.0)


def test_a_commit_cut_to_nothing_is_a_valid_smaller_table(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST])
    Path(uri, "_delta_log", f"{1:020d}.json").write_text("")

    assert DeltaTable(uri).version() == 1
    assert pl.read_delta(uri).is_empty()


@pytest.mark.parametrize(("cleanup", "kept"), [("false", True), ("true", False)])
def test_old_commits_are_kept_only_with_the_cleanup_off(
    tmp_path: Path, cleanup: str, kept: bool
) -> None:
    uri = create(
        tmp_path / "t",
        **{"delta.enableExpiredLogCleanup": cleanup, "delta.checkpointInterval": "5"},
    )
    long_ago = (datetime(2020, 1, 1, tzinfo=UTC)).timestamp()
    for value in range(12):
        overwrite(uri, rows(FIRST, value=float(value)), [FIRST])
        for file in Path(uri, "_delta_log").iterdir():
            os.utime(file, (long_ago, long_ago))

    assert Path(uri, "_delta_log", f"{0:020d}.json").exists() == kept


def test_the_errors_that_we_tell_apart(tmp_path: Path) -> None:
    assert issubclass(CommitFailedError, DeltaError)
    assert issubclass(TableNotFoundError, DeltaError)
    with pytest.raises(TableNotFoundError):
        DeltaTable(str(tmp_path / "missing"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(TableNotFoundError):
        DeltaTable(str(tmp_path / "folder"))


def test_a_damaged_file_can_end_in_a_panic_that_is_no_exception(tmp_path: Path) -> None:
    frame = rows(FIRST, count=1000)
    frame.write_parquet(tmp_path / "f")
    good = (tmp_path / "f").read_bytes()
    ends = set()

    for position in range(len(good) - 400, len(good) - 8, 3):
        bad = bytearray(good)
        bad[position] ^= 0x40
        (tmp_path / "f").write_bytes(bad)
        try:
            pl.read_parquet(tmp_path / "f")
        except (pl.exceptions.PolarsError, OSError):
            ends.add("error")
        except pl.exceptions.PanicException:
            ends.add("panic")

    assert not issubclass(pl.exceptions.PanicException, Exception)
    assert "error" in ends


def test_a_commit_file_written_by_hand_is_read_by_both_libraries(tmp_path: Path) -> None:
    uri = create(tmp_path / "t")
    overwrite(uri, rows(FIRST), [FIRST], {"a": 1})
    before = DeltaTable(uri)
    (old,) = pl.DataFrame(before.get_add_actions(flatten=True)).to_dicts()
    wider = rows(SECOND).with_columns(extra=pl.lit("x")).select("key", "value", "extra", "day")
    Path(uri, "day=2026-11-02").mkdir()
    wider.drop("day").write_parquet(Path(uri, "day=2026-11-02", "new.parquet"))
    new = {"path": "day=2026-11-02/new.parquet", "partitionValues": {"day": "2026-11-02"}}
    size = Path(uri, new["path"]).stat().st_size  # type: ignore[arg-type]
    gone = {"path": old["path"], "partitionValues": {"day": str(FIRST)}, "dataChange": True}
    metadata = {
        "id": "11111111-2222-4333-8444-555555555555",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": Schema.from_arrow(wider.schema).to_json(),
        "partitionColumns": ["day"],
        "configuration": {"lockstep.zone": "UTC"},
    }
    lines = [
        {"commitInfo": {"timestamp": 0, "operation": "CREATE OR REPLACE TABLE"}},
        {"metaData": metadata},
        {"remove": gone},
        {"add": {**new, "size": size, "modificationTime": 0, "dataChange": True}},
        {"txn": {"appId": "a", "version": 2}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path(uri, "_delta_log", f"{2:020d}.json").write_text(text)

    after = DeltaTable(uri)
    assert str(after.metadata().id) == metadata["id"] != str(before.metadata().id)
    assert after.metadata().configuration == {"lockstep.zone": "UTC"}
    assert after.transaction_version("a") == 2
    assert_frame_equal(pl.read_delta(uri), wider)
    assert_frame_equal(pl.read_delta(uri, version=1), rows(FIRST))
