"""What is leaned on of Polars, pandera and Soda: an upgrade that changes it turns red here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from polars.io.plugins import register_io_source

from lockstep import Entity, Feature, Features
from lockstep.schema import Contract
from lockstep.soda import SodaSession, soda_contract

NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)


class TestPolars:
    def test_join_asof_on_unsorted_rows_is_silently_wrong(self) -> None:
        left = pl.DataFrame({"k": [1], "t": [10]})
        rows = pl.DataFrame({"k": [1] * 4, "t": [9, 5, 11, 12], "v": ["9", "5", "11", "12"]})

        unsorted = left.join_asof(rows, on="t", by="k", check_sortedness=False)
        right = left.join_asof(rows.sort("t"), on="t", by="k", check_sortedness=False)

        assert ["9"] == right["v"].to_list()
        assert ["5"] == unsorted["v"].to_list()

    def test_join_asof_never_matches_a_null_key(self) -> None:
        left = pl.DataFrame({"k": [None], "t": [10]}, schema={"k": pl.Int64, "t": pl.Int64})
        rows = pl.DataFrame({"k": [None], "t": [9], "v": [1]}, schema_overrides={"k": pl.Int64})

        found = left.join_asof(rows, on="t", by="k", check_sortedness=False)

        assert [None] == found["v"].to_list()

    def test_the_sum_of_nothing_is_zero_and_its_mean_is_null(self) -> None:
        frame = pl.DataFrame({"v": [None, None]}, schema={"v": pl.Float64})

        assert (0.0, None) == frame.select(pl.col("v").sum(), m=pl.col("v").mean()).row(0)

    def test_in_memory_group_sums_of_one_order_have_the_same_bits(self) -> None:
        frame = pl.DataFrame({"k": [n % 97 for n in range(50_000)]}).with_columns(
            v=(pl.int_range(pl.len()) * 0.1).sin()
        )
        query = frame.lazy().group_by("k").agg(pl.col("v").sum()).sort("k")

        first = query.collect(engine="in-memory")["v"].to_numpy().tobytes()

        assert all(
            first == query.collect(engine="in-memory")["v"].to_numpy().tobytes() for _ in range(5)
        )

    def test_integer_sums_wrap_silently(self) -> None:
        assert pl.Series([2**62] * 3).sum() == 3 * 2**62 - 2**64

    def test_a_wall_clock_time_that_does_not_exist_becomes_null_and_an_ambiguous_one_the_first(
        self,
    ) -> None:
        naive = pl.Series([datetime(2026, 3, 8, 2, 30), datetime(2026, 11, 1, 1, 30)])

        found = naive.dt.replace_time_zone(
            "America/New_York", ambiguous="earliest", non_existent="null"
        ).dt.convert_time_zone("UTC")

        assert [None, datetime(2026, 11, 1, 5, 30, tzinfo=UTC)] == found.to_list()

    def test_files_are_read_in_the_given_order_and_undeclared_columns_ignored(
        self, tmp_path: Path
    ) -> None:
        pl.DataFrame({"a": [2], "more": ["x"]}).write_parquet(tmp_path / "b c.parquet")
        pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
        files = [tmp_path / "b c.parquet", tmp_path / "a.parquet"]

        found = pl.scan_parquet(
            files, schema={"a": pl.Int64}, extra_columns="ignore", glob=False
        ).collect()

        assert [2, 1] == found["a"].to_list()

    def test_a_scan_is_told_which_columns_the_query_needs(self) -> None:
        asked: list[list[str] | None] = []
        empty = pl.DataFrame(schema={"k": pl.Int64, "v": pl.Float64, "unused": pl.String})

        def rows(columns: list[str] | None, *_: Any) -> Iterator[pl.DataFrame]:
            asked.append(columns)
            yield empty if columns is None else empty.select(columns)

        scan = register_io_source(rows, schema=empty.schema)
        scan.group_by("k").agg(pl.col("v").sum()).collect(engine="in-memory")

        assert [["k", "v"]] == [sorted(columns or []) for columns in asked]

    def test_unique_keeps_the_last_row_in_order(self) -> None:
        frame = pl.DataFrame({"k": [1, 2, 1], "v": ["old", "only", "new"]})

        kept = frame.unique("k", keep="last", maintain_order=True)

        assert [(2, "only"), (1, "new")] == kept.rows()


class TestPandera:
    schema = pa.DataFrameSchema(
        {"v": pa.Column(pl.Float64, nullable=False, checks=[pa.Check.ge(0)])}, strict=True
    )

    def test_a_lazy_frame_is_not_checked_for_its_data(self) -> None:
        self.schema.validate(pl.LazyFrame({"v": [-1.0]})).collect()

        with pytest.raises(pa.errors.SchemaErrors):
            self.schema.validate(pl.DataFrame({"v": [-1.0]}), lazy=True)

    def test_nan_is_refused_where_null_is(self) -> None:
        with pytest.raises(pa.errors.SchemaErrors):
            self.schema.validate(pl.DataFrame({"v": [float("nan")]}), lazy=True)

    def test_an_empty_frame_passes(self) -> None:
        self.schema.validate(pl.DataFrame(schema={"v": pl.Float64}), lazy=True)

    def test_failures_name_column_and_rule(self) -> None:
        with pytest.raises(pa.errors.SchemaErrors) as raised:
            self.schema.validate(pl.DataFrame({"v": [-1.0, 2.0]}), lazy=True)

        found = raised.value.failure_cases.select("column", "check").rows()

        assert [("v", "greater_than_or_equal_to(0)")] == found


def contract() -> Contract:
    class Did(
        Features,
        entity=Entity("user", {"user_id": pl.Int64}),
        owner="team:tests",
        ttl=timedelta(days=2),
        min_rows=1,
    ):
        """What somebody did."""

        v = Feature(pl.Float64, "A number.", fill_rate=0.9)

    return Did.contract


class TestSoda:
    @pytest.fixture
    def soda(self) -> Iterator[SodaSession]:
        session = SodaSession()
        yield session
        session.close()

    def test_every_check_of_the_generated_contract_is_evaluated(self, soda: SodaSession) -> None:
        frame = pl.DataFrame({"user_id": [1, 2], "v": [1.0, None]})

        found = {(r.column, r.kind): (r.passed, r.value) for r in soda.verify(frame, contract())}

        assert {("v", "missing"): (False, 50.0), (None, "row_count"): (True, 2.0)} == found

    def test_nan_counts_as_missing_because_we_make_it_null(self, soda: SodaSession) -> None:
        frame = pl.DataFrame({"user_id": [1], "v": [float("nan")]})

        found = {result.column: result.passed for result in soda.verify(frame, contract())}

        assert {"v": False, None: True} == found

    def test_an_empty_frame_passes_its_fill_rate_and_fails_only_the_row_count(
        self, soda: SodaSession
    ) -> None:
        frame = pl.DataFrame(schema={"user_id": pl.Int64, "v": pl.Float64})

        found = {result.column: result.passed for result in soda.verify(frame, contract())}

        assert found[None] is False

    def test_a_contract_needs_columns_even_if_nothing_is_limited(self) -> None:
        assert '"columns": [{"name": "user_id"}' in soda_contract(contract())

    def test_no_tracer_is_installed_and_no_telemetry_sent(self) -> None:
        code = (
            "from lockstep.soda import _soda; _soda();"
            "from opentelemetry import trace; print(type(trace.get_tracer_provider()).__name__)"
        )

        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "OTEL_SDK_DISABLED": "false"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert "ProxyTracerProvider" == done.stdout.strip()
