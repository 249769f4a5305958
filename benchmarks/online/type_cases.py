"""Values that online stores are known to change, by type. Standard library only.

The first 32 are those that were put to Feast; a case counts as exact when every value comes back
equal, of the same Python type, with the sign of zero, NaN as NaN and null as null.
"""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

NAN, INF = math.nan, math.inf
INSTANT = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WHOLE = INSTANT.replace(microsecond=0)
ROWS = 4
"""No case has more values."""

SAME_AS_FEASTS: dict[str, tuple[str, list[Any]]] = {
    "int64": ("int64", [1, -(2**63), 2**63 - 1, 2**53 + 1]),
    "int64_null": ("int64", [1, None, 2**53 + 1, 2**63 - 1]),
    "int64_null_2p53": ("int64", [1, None, 2**53 + 1]),
    "int32": ("int32", [1, -(2**31), 2**31 - 1]),
    "int32_null": ("int32", [1, None, 7]),
    "uint64": ("uint64", [1, 2**64 - 1]),
    "int16_as_int32": ("int16", [1, -5]),
    "float64": ("float64", [0.1, -0.0, 5e-324, 1.7976931348623157e308]),
    "float64_nan_inf": ("float64", [NAN, INF, -INF, 1.0]),
    "float64_null_vs_nan": ("float64", [None, NAN, 1.5]),
    "float32": ("float32", [0.5, 3.25, None]),
    "bool": ("bool", [True, False]),
    "bool_null": ("bool", [True, None, False]),
    "string": ("string", ["abc", "", "żółć 漢字 🙂", "a\0b"]),
    "string_null": ("string", ["x", None, ""]),
    "bytes": ("bytes", [b"\x00\xff", b""]),
    "bytes_null": ("bytes", [b"\x00\xff", None]),
    "ts_us": ("timestamp", [INSTANT, WHOLE]),
    "ts_null": ("timestamp", [WHOLE, None]),
    "ts_epoch0": (
        "timestamp",
        [datetime(1970, 1, 1, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)],
    ),
    "date32": ("date", [date(2025, 1, 2)]),
    "decimal": ("decimal(20,4)", [Decimal("1.2345"), Decimal("9999999999999.9999")]),
    "list_int": ("list<int64>", [[1, 2], [2**53 + 1]]),
    "list_empty": ("list<int64>", [[1], []]),
    "list_null": ("list<int64>", [[1], None]),
    "list_null_elem": ("list<int64>", [[1, None, 3]]),
    "list_str": ("list<string>", [["a", ""], ["ż"]]),
    "list_str_null_elem": ("list<string>", [["a", None]]),
    "list_f64": ("list<float64>", [[0.1, NAN], [INF]]),
    "list_f32": ("list<float32>", [[0.5, 0.25]]),
    "list_ts": ("list<timestamp>", [[INSTANT, WHOLE]]),
    "list_bool": ("list<bool>", [[True, False]]),
}
MORE: dict[str, tuple[str, list[Any]]] = {
    "int8": ("int8", [-128, 127, None, 0]),
    "int16": ("int16", [-(2**15), 2**15 - 1, None, 0]),
    "float32_odd": ("float32", [0.10000000149011612, NAN, -INF, -0.0]),
    "float64_sum": ("float64", [0.1 + 0.2, 1e22, 123456789.12345679, -5e-324]),
    "string_hostile": ("string", ["*3\r\n$3\r\nSET\r\n", "e\u0301", "null", "NaN"]),
    "bytes_hostile": ("bytes", [b"\r\n$-1\r\n", b"\xc3", b"\0", bytes(range(256))]),
    "date_far": ("date", [date(1, 1, 1), date(9999, 12, 31), None, date(1969, 12, 31)]),
    "ts_far": (
        "timestamp",
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
            None,
            datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        ],
    ),
    "decimal_scale": ("decimal(12,2)", [Decimal("0.10"), None, Decimal("-9999999999.99")]),
    "list_f64_null": ("list<float64>", [[NAN, -INF, None], [], None, [-0.0]]),
    "list_date": ("list<date>", [[date(2025, 1, 2), None], [], None]),
    "list_decimal": ("list<decimal(12,2)>", [[Decimal("1.50"), None], []]),
    "list_bytes": ("list<bytes>", [[b"\xff", b""], None]),
    "list_list": ("list<list<int64>>", [[[1], [], None], None, [[2**63 - 1]]]),
    "struct": (
        "struct<a:int64,b:list<string>>",
        [{"a": 2**53 + 1, "b": ["", None]}, {"a": None, "b": []}, None, {"a": 1, "b": None}],
    ),
}
CASES = SAME_AS_FEASTS | MORE


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal to the last bit and of one type."""
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, list) and isinstance(right, list):
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(same(a, b) for a, b in pairs)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return type(left) is type(right) and bool(left == right)
