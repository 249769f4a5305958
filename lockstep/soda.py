"""The only place that knows Soda: a contract becomes its YAML, its results become numbers.

Soda judges fill rate and row count, and what stands in a Soda file beside a view file. It runs in
this process on DuckDB over the frame in memory: no files, no network, no cloud, telemetry off.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Final

import duckdb
import polars as pl

from lockstep.errors import DeclarationError
from lockstep.schema import Contract
from lockstep.soda_file import SodaFile

_DATA_SOURCE: Final = "lockstep"
_DATASET: Final = "frame"
_ALONE: Final[dict[str, str | bool | int | float | list[str]]] = {
    "threads": 1,
    # SQL in a Soda file reads the frame: no path, no address, no variable of ours, no extension.
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "lock_configuration": True,
}
_LIMITS: Final = {
    "must_be_greater_than": "more than",
    "must_be_greater_than_or_equal": "at least",
    "must_be_less_than": "less than",
    "must_be_less_than_or_equal": "at most",
    "must_be": "exactly",
    "must_not_be": "anything but",
}
_WRITTEN_OUT: Final = "_build_definition"
"""Soda's method that dumps a check as YAML, with every result."""
_SHOWN: Final = 400  # characters of what Soda says


@dataclass(frozen=True)
class _Soda:
    """The names of Soda that are used."""

    source: Any
    yaml: Any
    contract: Any
    logs: Any
    records: Any
    duckdb: Any
    failure: type[Exception]


@cache
def _soda() -> _Soda:
    """Import Soda once, when first used: it takes a second, and has side effects to switch off."""
    # Read at import: Soda would otherwise phone home, load .env and install a global tracer.
    os.environ["SODA_CORE_TELEMETRY_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, about its own classes
        from soda_core.common.exceptions import SodaCoreException
        from soda_core.common.logs import Logs
        from soda_core.common.logs_collector import LogsCollector
        from soda_core.common.yaml import ContractYamlSource
        from soda_core.contracts.impl.contract_verification_impl import ContractImpl
        from soda_core.contracts.impl.contract_yaml import ContractYaml
        from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    return _Soda(
        ContractYamlSource,
        ContractYaml,
        ContractImpl,
        Logs,
        LogsCollector,
        DuckDBDataSourceImpl,
        SodaCoreException,
    )


@dataclass(frozen=True)
class SodaResult:
    """One evaluated check: `column` is None for the row count; NOT_EVALUATED is a failure.

    Attributes:
        words: The column, the kind and, of a hand-written check, its name.
        limit: What was asked of the value, in words.
        warns: It failed at the level `warn`.
        evaluated: False if there was nothing to compare with the limit.
    """

    column: str | None
    kind: str
    passed: bool
    value: float | None
    words: str = ""
    limit: str = ""
    warns: bool = False
    evaluated: bool = True

    @property
    def sentence(self) -> str:
        """What failed, with the value."""
        if not self.evaluated:
            return f"{self.words} could not be evaluated"
        value = "a value that identifies people" if self.value is None else f"{self.value:,.10g}"
        return f"{self.words} is {value}, but must be {self.limit}"


def soda_contract(contract: Contract) -> str:
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
            "dataset": f"{_DATA_SOURCE}/main/{_DATASET}",
            "columns": [*keys, *filled],
            "checks": [rows],
        }
    )


def _at_most(share: float) -> dict[str, Any]:
    return {"metric": "percent", "must_be_less_than_or_equal": round(100 * share, 9)}


@dataclass(frozen=True)
class _Prepared:
    """What Soda made of a contract in its language, could not read of it, and leaves out."""

    contract: Any
    misread: list[str]
    ignored: list[str]


class SodaSession:
    """Verifies frames against contracts on one in-memory DuckDB.

    What Soda makes of a contract is kept: reading its YAML takes longer than its queries.
    """

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config=_ALONE)
        self._prepared: dict[str, _Prepared] = {}

    def verify(self, frame: pl.DataFrame, contract: Contract) -> list[SodaResult]:
        """Return every check's result; NaN counts as missing."""
        limited = [name for name, f in contract.features.items() if f.fill_rate is not None]
        judged = frame.select(*contract.keys, *limited)
        verified, _ = self._verified(judged, soda_contract(contract))
        return list(_results(verified))

    def verify_file(
        self, frame: pl.DataFrame, contract: Contract, file: SodaFile
    ) -> list[SodaResult]:
        """Return the result of every check of a Soda file; NaN counts as missing."""
        judged = frame.select(contract.columns.keys())
        verified, _ = self._verified(judged, _dataset(file, contract))
        told = list(_results(verified))
        # A file that can't be evaluated at all tells nothing; then there is nothing to name.
        return [replace(one, words=words) for one, words in zip(told, file.checks, strict=False)]

    def require(self, contract: Contract, file: SodaFile) -> None:
        """Return if Soda can evaluate a file's checks on the contract's columns.

        Raises:
            DeclarationError: It can't; names the file, and what Soda says of it.
        """
        empty, text = pl.DataFrame(schema=contract.columns), _dataset(file, contract)
        try:
            verified, said = self._verified(empty, text)
            said += self._prepared[text].ignored
        except _soda().failure as error:
            raise DeclarationError([_no_contract(file, str(error))]) from error
        vague = [r.check.name for r in verified.check_results if r.check.threshold is None]
        said += [f"the check {name!r} has no threshold of one comparison." for name in vague]
        if said:
            raise DeclarationError([_no_contract(file, words) for words in said])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _verified(self, judged: pl.DataFrame, text: str) -> tuple[Any, list[str]]:
        """Return what Soda finds in a frame by a contract in its language, and its complaints."""
        if text not in self._prepared:
            self._prepared[text] = self._read(text)
        contract, misread = self._prepared[text].contract, self._prepared[text].misread
        if not misread:
            contract.logs.gatherer = _soda().records()  # it evaluates nothing after an error
        self._connection.register(_DATASET, judged.fill_nan(None).to_arrow())
        try:
            with contract.logs.activate():
                return contract.verify(), contract.logs.get_errors()
        finally:
            self._connection.unregister(_DATASET)

    def _read(self, text: str) -> _Prepared:
        soda = _soda()
        logs = soda.logs()  # what Soda says from here to `close` is kept there
        try:
            yaml = soda.yaml.parse(
                yaml_source=soda.source.from_str(text), provided_variable_values={}
            )
            contract = soda.contract(
                yaml=yaml,
                data_source_impl=self._source,
                logs=logs,
                execution_timestamp=yaml.execution_timestamp,
                data_timestamp=yaml.data_timestamp,
            )
            _remember_prose(contract)
            told = [(record.levelno, record.getMessage()) for record in logs.get_log_records()]
            return _Prepared(
                contract,
                misread=[words for level, words in told if level >= logging.ERROR],
                ignored=[words for level, words in told if level == logging.WARNING],
            )
        finally:
            logs.close()

    @cached_property
    def _source(self) -> Any:
        return _soda().duckdb.from_existing_cursor(self._connection, _DATA_SOURCE)


def _remember_prose(contract: Any) -> None:
    """Let Soda write each check out once, and no table for consoles: that is most of its time."""
    for check in contract.all_check_impls:
        vars(check)[_WRITTEN_OUT] = cache(getattr(check, _WRITTEN_OUT))
    contract.build_log_summary = _no_table


def _no_table(**_: Any) -> list[str]:
    return []


def _dataset(file: SodaFile, contract: Contract) -> str:
    """Return a file's checks as a Soda contract, which always names a dataset and columns."""
    columns = [{"name": name} for name in contract.keys]
    parts = json.loads(file.parts)
    return json.dumps({"dataset": f"{_DATA_SOURCE}/main/{_DATASET}", "columns": columns, **parts})


def _no_contract(file: SodaFile, said: str) -> str:
    words = " ".join(said.split()).removesuffix(".")
    shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"
    return f"Soda can't use {file.path}: {shown}. Correct the file; nothing was computed."


def _results(verified: Any) -> Iterator[SodaResult]:
    for result in verified.check_results:
        value, check = result.threshold_value, result.check
        yield SodaResult(
            column=check.column_name,
            kind=check.type,
            passed=result.outcome.name == "PASSED",
            value=None if value is None else float(value),
            words=f"{check.column_name}: {check.type}" if check.column_name else check.type,
            limit=_limit(check.threshold),
            warns=result.outcome.name == "WARN",
            evaluated=result.outcome.name != "NOT_EVALUATED",
        )


def _limit(threshold: Any) -> str:
    """Return what a threshold asks of a value."""
    said = [
        (limit, f"{words} {limit:,.10g}")
        for name, words in _LIMITS.items()
        if (limit := getattr(threshold, name, None)) is not None
    ]
    # Both bounds: a range, or, with the upper one first, all but a range.
    outside = len(said) > 1 and said[0][0] >= said[1][0]
    return (" or " if outside else " and ").join(words for _, words in said)
