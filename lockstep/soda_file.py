"""Hand-written Soda YAML beside a view file: read, and held to what an audit may ask of a frame.

`txn_7d.soda.yml` beside `txn_7d.py` holds `columns:`, `checks:` and, if need be, `filter:` of
Soda's contract language. Its checks see the rows of one day and nothing else. Soda itself is not
imported here: a command that runs no check starts without it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

from lockstep.schema import Contract

SUFFIX: Final = ".soda.yml"

_LARGEST: Final = 100_000  # characters: a file of checks is a page
_PARTS: Final = ("filter", "columns", "checks")
_CHECKS: Final = (
    *("aggregate", "duplicate", "failed_rows", "invalid"),
    *("metric", "missing", "row_count"),
)
_ELSEWHERE: Final[Mapping[str, str]] = {
    "freshness": "Say freshness=… in the contract: a frame of one day does not know how old it is.",
    "schema": "Remove it: columns and types are held against the contract already.",
}
_VALIDITY: Final = (
    *("missing_values", "missing_format", "valid_values", "valid_format", "valid_min"),
    *("valid_max", "valid_length", "valid_min_length", "valid_max_length"),
    *("invalid_values", "invalid_format"),
)
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "column": ("name", "checks", "column_expression", *_VALIDITY),
    "check": (
        *("name", "qualifier", "threshold", "filter", "attributes", "column_expression"),
        *("columns", "function", "expression", "query", "rows_tested_query", *_VALIDITY),
    ),
}
"""Soda ignores what it does not know; a slip of the pen would turn a check off."""
_QUERIES: Final = ("query", "rows_tested_query")
_ONE_SELECT: Final = re.compile(r"\s*(?:select|with)\b[^;]*;?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class SodaFile:
    """Hand-written checks on the frames of one view.

    Attributes:
        path: The file.
        text: What stands in it.
        parts: Its `filter`, `columns` and `checks` as JSON, which is YAML.
        checks: Each check in words, e.g. `amount: invalid`, in the order in which Soda tells them.
    """

    path: Path
    text: str
    parts: str
    checks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name, e.g. `txn_7d.soda.yml`."""
        return self.path.name


@dataclass(frozen=True)
class _Check:
    """One check as it stands in the file: its column, if it has one, its kind and what it says."""

    column: str | None
    kind: str
    body: Mapping[str, Any]

    @property
    def words(self) -> str:
        threshold = self.body.get("threshold")
        percent = isinstance(threshold, dict) and threshold.get("metric") == "percent"
        named, qualifier = self.body.get("name"), self.body.get("qualifier")
        parts = [
            str(self.body.get("function", self.kind)),
            "percent" if percent else "",
            str(qualifier or ""),
            f"({named})" if named else "",
        ]
        column = "" if self.column is None else f"{self.column}: "
        return f"{column}{' '.join(part for part in parts if part)}"


def find_soda_file(view_file: Path, contract: Contract) -> tuple[SodaFile | None, list[str]]:
    """Return the Soda file beside a view file, or None, and what is wrong with it.

    Every problem names the file and its fix; a file with a problem is not returned.
    """
    path = view_file.with_name(view_file.stem + SUFFIX) if view_file.name else view_file
    if not path.is_file():
        return None, []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{path} can't be read: {error}. Write it as UTF-8 text, or remove it."]
    if len(text) > _LARGEST:
        return None, [f"{path} has {len(text)} characters, more than {_LARGEST}. Shorten it."]
    body, why = _parsed(text)
    if why:
        return None, [f"{path} is no YAML: {why}. Correct it, or remove the file."]
    if not isinstance(body, dict):
        got = "nothing" if body is None else type(body).__name__
        return None, [f"{path} holds {got}. Begin with checks: or columns:, or remove the file."]
    checks = list(_checks(body))
    if problems := [*_problems(body, contract), *_check_problems(checks)]:
        return None, [f"{path} {problem}" for problem in problems]
    # Soda tells the checks in the order of the parts.
    parts = {part: body[part] for part in _PARTS if part in body}
    return SodaFile(path, text, json.dumps(parts), tuple(check.words for check in checks)), []


def _parsed(text: str) -> tuple[Any, str]:
    """Return what stands in the YAML and nothing, or nothing and why it can't be read."""
    from ruamel.yaml import YAML  # Soda's own: the same words mean the same
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(StringIO(text))
        return json.loads(json.dumps(loaded, default=str, allow_nan=False)), ""
    except MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return None, f"{str(error.problem).splitlines()[0]}{line}"
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        return None, (str(error).splitlines() or [type(error).__name__])[0]


def _problems(body: Mapping[str, Any], contract: Contract) -> Iterator[str]:
    """Yield what is wrong with all but the checks, without the name of the file."""
    if foreign := [part for part in body if part not in _PARTS]:
        yield (
            f"holds {', '.join(foreign)}. Only {', '.join(_PARTS)} belong there: the checks see "
            "the day's frame and nothing else. Remove the rest."
        )
    if "filter" in body and not isinstance(body["filter"], str):
        yield "has a filter that is no text. Write one SQL condition on the view's columns."
    for column in [body, *_listed(body, "columns")]:
        if isinstance(column, dict):
            yield from _list_problems(column, "" if column is body else f" of {column.get('name')}")
    for column in _listed(body, "columns"):
        name = column.get("name") if isinstance(column, dict) else column
        if name not in contract.columns:
            yield (
                f"names the column {name!r}, which {contract.name} does not have. Its columns are "
                f"{', '.join(contract.columns)}: correct the name, or remove the column."
            )
        yield from _key_problems("column", str(name), column if isinstance(column, dict) else {})
    for key, value in _walk(body):
        if isinstance(value, str) and "${" in value:
            yield (
                f"has ${{…}} in {key!r}. A check means the same in every run, so variables and the "
                "environment are not read: write the value."
            )


def _list_problems(holder: Mapping[str, Any], where: str) -> Iterator[str]:
    for part in ("columns", "checks"):
        if part in holder and not _listed(holder, part):
            yield f"has {part}{where} that are no list. Write a dash before each, or remove it."


def _check_problems(checks: list[_Check]) -> Iterator[str]:
    """Yield what is wrong with the checks, without the name of the file."""
    if not checks:
        yield "has no check. Add one, e.g. checks: [{row_count: {threshold: …}}], or remove it."
    for check in checks:
        if check.kind not in _CHECKS:
            one_of = f"Write one of {', '.join(_CHECKS)}, and a colon."
            yield f"has the check {check.words!r}. {_ELSEWHERE.get(check.kind, one_of)}"
            continue
        yield from _key_problems("check", check.words, check.body)
        for key in _QUERIES:
            if key in check.body and not _ONE_SELECT.fullmatch(str(check.body[key])):
                yield (
                    f"has a {key} in {check.words!r} that is no single SELECT. A check reads "
                    "the table frame, which holds the day's rows, and changes nothing."
                )


def _key_problems(what: str, words: str, body: Mapping[str, Any]) -> Iterator[str]:
    for key in body:
        if key == "valid_reference_data":
            yield (
                f"has {key} in the {what} {words!r}, which reads another table. Join it in the "
                "view, or list the values: valid_values: […]."
            )
        elif key not in _KEYS[what]:
            yield (
                f"has {key!r} in the {what} {words!r}, which Soda would ignore. Correct the name, "
                f"one of {', '.join(_KEYS[what])}; or remove it."
            )


def _checks(body: Mapping[str, Any]) -> Iterator[_Check]:
    """Yield every check, those of columns first; what is none has an unknown kind."""
    columns = [column for column in _listed(body, "columns") if isinstance(column, dict)]
    for holder in (*columns, body):
        column = None if holder is body else str(holder.get("name"))
        for check in _listed(holder, "checks"):
            if isinstance(check, dict) and len(check) == 1:
                ((kind, said),) = check.items()
                yield _Check(column, kind, said if isinstance(said, dict) else {})
            else:
                yield _Check(column, f"{check} without a colon", {})


def _listed(holder: Mapping[str, Any], part: str) -> list[Any]:
    value = holder.get(part)
    return value if isinstance(value, list) else []


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with the key that it stands under."""
    yield key, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key)
