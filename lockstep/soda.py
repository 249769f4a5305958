"""The only place that knows Soda: a contract becomes its YAML, its results become numbers.

Soda judges fill rate and row count. It runs in this process on DuckDB over the frame in memory:
no files, no cloud, telemetry off.
"""

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import duckdb
import polars as pl

from lockstep.schema import Contract

_DATA_SOURCE: Final = "lockstep"


@dataclass(frozen=True)
class _Soda:
    """The three names of Soda that are used."""

    source: Any
    session: Any
    duckdb: Any


@cache
def _soda() -> _Soda:
    """Import Soda once, when first used: it takes a second, and has side effects to switch off."""
    # Read at import: Soda would otherwise phone home, load .env and install a global tracer.
    os.environ["SODA_CORE_TELEMETRY_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, about its own classes
        from soda_core.common.yaml import ContractYamlSource
        from soda_core.contracts.contract_verification import ContractVerificationSession
        from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    return _Soda(ContractYamlSource, ContractVerificationSession, DuckDBDataSourceImpl)


@dataclass(frozen=True)
class SodaResult:
    """One evaluated check: `column` is None for the row count; NOT_EVALUATED is a failure."""

    column: str | None
    kind: str
    passed: bool
    value: float | None


def soda_contract(contract: Contract, dataset: str = "frame") -> str:
    """Return the Soda contract (JSON, which is YAML) for fill rates and row count."""
    keys: list[dict[str, Any]] = [{"name": name} for name in contract.keys]
    filled = [
        {"name": name, "checks": [{"missing": {"threshold": _at_most(1 - feature.fill_rate)}}]}
        for name, feature in contract.features.items()
        if feature.fill_rate is not None
    ]
    rows = {"row_count": {"threshold": {"must_be_greater_than_or_equal": contract.min_rows}}}
    return json.dumps(
        {
            "dataset": f"{_DATA_SOURCE}/main/{dataset}",
            "columns": [*keys, *filled],
            "checks": [rows],
        }
    )


def _at_most(share: float) -> dict[str, Any]:
    return {"metric": "percent", "must_be_less_than_or_equal": round(100 * share, 9)}


class SodaSession:
    """Verifies frames against contracts on one in-memory DuckDB."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": 1})

    def verify(self, frame: pl.DataFrame, contract: Contract) -> list[SodaResult]:
        """Return every check's result; NaN counts as missing."""
        soda = _soda()
        limited = [name for name, f in contract.features.items() if f.fill_rate is not None]
        judged = frame.select(*contract.keys, *limited).fill_nan(None)
        self._connection.register("frame", judged.to_arrow())
        try:
            session = soda.session.execute(
                contract_yaml_sources=[soda.source.from_str(soda_contract(contract))],
                data_source_impls=[
                    soda.duckdb.from_existing_cursor(self._connection, _DATA_SOURCE)
                ],
            )
        finally:
            self._connection.unregister("frame")
        return list(_results(session))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _results(session: Any) -> Iterator[SodaResult]:
    for verification in session.contract_verification_results:
        for result in verification.check_results:
            value = result.threshold_value
            yield SodaResult(
                column=result.check.column_name,
                kind=result.check.type,
                passed=result.outcome.name == "PASSED",
                value=None if value is None else float(value),
            )
