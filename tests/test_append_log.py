"""The append-only tables: rows are there once, whoever else appends."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError

from lockstep.errors import ConfigError, ContractChangedError, InputError, StoreError
from lockstep.stores import tables
from lockstep.stores.append_log import AppendLog
from tests.day_tables import DAY, in_threads
from tests.s3_server import BUCKET, S3, Faults, faulty

LOG = {"view": pl.String(), "day": pl.Date(), "revision": pl.Int64(), "verdicts": pl.String()}


def entries(view: str, count: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {"view": [view] * count, "day": [DAY] * count, "revision": range(count), "verdicts": "[]"},
        schema=LOG,
    )


@pytest.fixture(params=["local", "s3"])
def log(request: pytest.FixtureRequest, tmp_path: Path, s3_store: S3) -> AppendLog:
    if request.param == "local":
        return AppendLog(str(tmp_path / "my lake" / "ledger"), LOG)
    return AppendLog(f"s3://{BUCKET}/{tmp_path.name}/ledger", LOG, options=s3_store.options)


def test_a_log_that_does_not_exist_is_empty(log: AppendLog) -> None:
    assert log.scan().collect().schema == pl.Schema(LOG)
    assert log.scan().collect().is_empty()


def test_appended_rows_stay(log: AppendLog) -> None:
    log.append(entries("txn_7d", 2))
    log.append(entries("other"))
    log.append(entries("txn_7d").clear())

    found = log.scan().collect()
    assert found.schema == pl.Schema(LOG)
    assert found.sort("view", "revision")["view"].to_list() == ["other", "txn_7d", "txn_7d"]
    assert log.scan().filter(pl.col("view") == "txn_7d").collect().height == 2


def test_a_view_of_any_name_comes_back(log: AppendLog) -> None:
    names = ["a b", "a/b=c", "txn_7d", "é%20%"]
    for name in names:
        log.append(entries(name))

    assert log.scan().collect()["view"].sort().to_list() == names


def test_concurrent_first_appends_are_all_kept(log: AppendLog) -> None:
    def append(view: str) -> None:
        AppendLog(log.uri, LOG, options=log.place.options).append(entries(view))

    in_threads([lambda view=f"v{number}": append(view) for number in range(4)])

    assert log.scan().collect()["view"].sort().to_list() == ["v0", "v1", "v2", "v3"]


def test_rows_without_a_view_or_of_other_columns_are_refused(log: AppendLog) -> None:
    for nothing in (None, "", "__HIVE_DEFAULT_PARTITION__"):
        with pytest.raises(InputError, match="no view"):
            log.append(entries("x").with_columns(pl.lit(nothing, pl.String).alias("view")))
    with pytest.raises(InputError, match="declared columns"):
        log.append(entries("x").with_columns(revision=1.5))

    assert log.scan().collect().is_empty()


def test_another_shape_is_refused_by_name(log: AppendLog) -> None:
    log.append(entries("x"))
    wider = AppendLog(log.uri, {**LOG, "run_id": pl.String()}, options=log.place.options)

    with pytest.raises(ContractChangedError, match="run_id added"):
        wider.append(entries("x").with_columns(run_id=pl.lit("r")))


@pytest.mark.parametrize("lost", [1, 3])
def test_an_append_whose_reply_was_lost_is_there_once(s3_store: S3, lost: int) -> None:
    uri = f"s3://{BUCKET}/append-lost-{lost}/ledger"
    AppendLog(uri, LOG, options=s3_store.options).append(entries("first"))

    with faulty(s3_store, Faults(lose_replies=lost)) as proxied:
        AppendLog(uri, LOG, options=proxied.options).append(entries("second"))

    found = AppendLog(uri, LOG, options=s3_store.options).scan().collect()
    assert found["view"].sort().to_list() == ["first", "second"]


@pytest.mark.parametrize("error", [OSError("connection reset"), CommitFailedError("conflict")])
def test_an_append_that_arrived_but_was_reported_as_failed_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    log = AppendLog(str(tmp_path / "ledger"), LOG)
    real = tables.write_deltalake

    def arrives_but_fails(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(tables, "write_deltalake", real)
        real(*args, **kwargs)
        log.append(entries("somebody else"))
        raise error

    monkeypatch.setattr(tables, "write_deltalake", arrives_but_fails)

    log.append(entries("mine"))

    assert log.scan().collect()["view"].sort().to_list() == ["mine", "somebody else"]


def test_an_append_that_did_not_arrive_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(str(tmp_path / "ledger"), LOG)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_deltalake", fails)

    with pytest.raises(StoreError, match="No space left"):
        log.append(entries("mine"))
    assert log.scan().collect().is_empty()


def test_a_log_needs_a_view(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`view`"):
        AppendLog(str(tmp_path), {"day": pl.Date()})
