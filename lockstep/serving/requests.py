"""What callers may ask: bodies and queries decoded into typed requests, within their limits.

Decoding is by type, so nesting deeper than the types is refused where it begins.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl

import msgspec
import polars as pl

from lockstep.errors import InputError
from lockstep.serving.plan import Plan
from lockstep.serving.settings import MAX_ENTITIES, MAX_FEATURES, NonFinite

Policy: TypeAlias = Literal["null", "default", "fail"]
Key: TypeAlias = int | str
Columns: TypeAlias = dict[str, list[Key]]

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
MSGPACK_NAMES: Final = frozenset({MSGPACK, "application/x-msgpack", "application/vnd.msgpack"})
ARROW: Final = "application/vnd.apache.arrow.stream"
_DECIMAL: Final = re.compile(r"-?(0|[1-9]\d{0,18})")
_MAX_PARAMETERS: Final = 2 * MAX_ENTITIES


class FeatureRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/features`.

    Attributes:
        entities: Key columns, a list each, or one object per entity.
        features: `view:feature`, in the order of the answer; or
        feature_set: the name of a feature set.
        on_missing: What a cell without a value becomes: for all features, or by `view:feature`.
            Without it the contract decides.
        int64: Whether 64-bit integers are JSON numbers or strings of digits.
        non_finite: What NaN and infinities become in JSON; without it the service's setting.
    """

    entities: dict[str, list[Key]] | list[dict[str, Key]]
    features: list[str] | None = None
    feature_set: str | None = None
    on_missing: Policy | dict[str, Policy] | None = None
    int64: Literal["number", "string"] = "number"
    non_finite: NonFinite | None = None


class FeastRequest(msgspec.Struct, frozen=True):
    """The body of `POST /get-online-features`, as Feast's clients send it."""

    entities: dict[str, list[Key]]
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class SetQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The options in the query of `GET /v1/feature-sets/{name}`; what else it has are keys."""

    on_missing: Policy | None = None
    int64: Literal["number", "string"] = "number"
    non_finite: NonFinite | None = None


class UnsupportedTypeError(InputError):
    """The body's Content-Type is none that is read."""


_JSON_DECODER: Final = msgspec.json.Decoder(FeatureRequest)
_MSGPACK_DECODER: Final = msgspec.msgpack.Decoder(FeatureRequest)
_FEAST_DECODER: Final = msgspec.json.Decoder(FeastRequest)
_BAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def feature_request(body: bytes, content_type: str) -> FeatureRequest:
    """Return the decoded body of `POST /v1/features`.

    Raises:
        UnsupportedTypeError: Neither JSON nor msgpack.
        InputError: The body is not a request, or asks for too much.
    """
    decoder: Any = _JSON_DECODER
    if content_type not in {JSON, ""}:
        kind = content_type.partition(";")[0].strip().lower()
        if kind in MSGPACK_NAMES:
            decoder = _MSGPACK_DECODER
        elif kind != JSON:
            raise UnsupportedTypeError(
                "The body's Content-Type cannot be read.", expected=f"{JSON} or {MSGPACK}"
            )
    try:
        request: FeatureRequest = decoder.decode(body)
    except _BAD as error:
        raise _unreadable(error) from None
    if (request.features is None) == (request.feature_set is None):
        raise InputError("The request must name either features or a feature_set.")
    _require_few(request.features or ())
    return request


def feast_request(body: bytes, content_type: str) -> FeastRequest:
    """Return the decoded body of `POST /get-online-features`.

    Raises:
        UnsupportedTypeError: It is not JSON.
        InputError: The body is not a request, or asks for too much.
    """
    if content_type not in {JSON, ""} and content_type.partition(";")[0].strip().lower() != JSON:
        raise UnsupportedTypeError("The body's Content-Type cannot be read.", expected=JSON)
    try:
        request = _FEAST_DECODER.decode(body)
    except _BAD as error:
        raise _unreadable(error) from None
    if bool(request.features) == (request.feature_service is not None):
        raise InputError("The request must name either features or a feature_service.")
    _require_few(request.features)
    return request


def set_query(query: bytes) -> tuple[SetQuery, Columns]:
    """Return the options and the key columns (as text) in a query string.

    Raises:
        InputError: It is malformed, or an option has an unknown value.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except (ValueError, UnicodeDecodeError):
        raise InputError(
            "The query string cannot be read.",
            expected=f"at most {_MAX_PARAMETERS} name=value pairs in percent-encoded UTF-8",
        ) from None
    options: dict[str, str] = {}
    keys: Columns = {}
    for name, value in pairs:
        if name in SetQuery.__struct_fields__:
            options[name] = value
        else:
            keys.setdefault(name, []).append(value)
    try:
        return msgspec.convert(options, SetQuery), keys
    except msgspec.ValidationError as error:
        raise _unreadable(error) from None


def key_columns(
    plan: Plan, entities: Mapping[str, Sequence[Key]] | Sequence[Mapping[str, Key]], *, strict: bool
) -> Columns:
    """Return a value per entity for every key column that the plan needs.

    Decimal text counts as an integer where the key is one: not every client has 64-bit integers.

    Args:
        strict: Whether a column that the plan does not need is refused; otherwise it is left out.

    Raises:
        InputError: A column is missing or unknown, columns differ in length, a value has the wrong
            type, or there are too many entities.
    """
    types = _key_types(plan)
    columns = entities if isinstance(entities, Mapping) else _columns_of(entities, types)
    if columns.keys() != types.keys():
        unknown, missing = columns.keys() - types.keys(), types.keys() - columns.keys()
        if missing or (strict and unknown):
            raise InputError(
                "The entities have other key columns than the features need.",
                expected=f"{sorted(types)}",
                got=f"missing {sorted(missing)}, unknown {sorted(unknown)[:5]!r}",
            )
    lengths = {len(columns[name]) for name in types}
    if len(lengths) > 1:
        raise InputError("The key columns differ in length.", got=f"{sorted(lengths)} values")
    if (count := max(lengths, default=0)) > MAX_ENTITIES:
        raise InputError(
            f"The request asks for {count} entities.",
            expected=f"at most {MAX_ENTITIES}",
            fix="Send several requests.",
        )
    return {name: _typed(name, dtype, columns[name]) for name, dtype in types.items()}


@lru_cache(maxsize=1024)
def _key_types(plan: Plan) -> dict[str, pl.DataType]:
    return {name: dtype for entity in plan.entities for name, dtype in entity.key_types.items()}


def _columns_of(
    rows: Sequence[Mapping[str, Key]], types: Mapping[str, pl.DataType]
) -> Mapping[str, Sequence[Key]]:
    names = rows[0].keys() if rows else types.keys()
    if any(row.keys() != names for row in rows):
        raise InputError("The entities do not all have the same key columns.")
    return {name: [row[name] for row in rows] for name in names}


def _typed(name: str, dtype: pl.DataType, values: Sequence[Key]) -> list[Key]:
    wanted = str if dtype == pl.String else int
    if all(type(value) is wanted for value in values):
        return list(values)
    if wanted is str:
        raise InputError(f"The key column {name!r} holds numbers.", expected="text")
    return [_whole(name, value) for value in values]


def _whole(name: str, value: Key) -> int:
    if isinstance(value, int):
        return value
    if _DECIMAL.fullmatch(value):
        return int(value)
    raise InputError(
        f"The key column {name!r} holds text that is no whole number.",
        expected="whole numbers, or the same as decimal text",
    )


def _require_few(features: Sequence[str]) -> None:
    if len(features) > MAX_FEATURES:
        raise InputError(
            f"The request asks for {len(features)} features.",
            expected=f"at most {MAX_FEATURES}",
            fix="Send several requests.",
        )
    if len(set(features)) != len(features):
        raise InputError("The request names a feature more than once.")


def _unreadable(error: Exception) -> InputError:
    # msgspec says where and which type; it quotes no value, but it does quote unknown names.
    said = "its nesting is too deep" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        said = "text that is not UTF-8"
    elif "surrogate" in said:
        at = said[said.rfind("(") :]
        said = f"half of a surrogate pair, which is no character {at}"
    return InputError("The request cannot be read.", got=said[:200])
