"""What is served is exact in JSON, msgpack and Arrow, and every caller gets the format it asks."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tests.serving_world import (
    CASES,
    COLUMNS,
    NOW,
    YESTERDAY,
    Running,
    make_catalog,
    new_namespace,
    push_all,
    running,
    words,
)

USERS = [1, 2, 3, 4]
NAMES = [f"everything:{name}" for name in CASES]
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    namespace, catalog = new_namespace(), make_catalog()
    push_all(redis_url, namespace, catalog)
    with running(redis_url, namespace, tmp_path_factory.mktemp("formats"), catalog=catalog) as it:
        yield it


def from_json(value: Any, dtype: Any) -> Any:
    """The value that a client which knows the type makes of JSON."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        return [from_json(item, dtype.inner) for item in value]
    if isinstance(dtype, pl.Struct):
        return {each.name: from_json(value[each.name], each.dtype) for each in dtype.fields}
    readers: dict[Any, Callable[[Any], Any]] = {
        pl.Float64: float,
        pl.Float32: float,
        pl.Date: date.fromisoformat,
        pl.Datetime: datetime.fromisoformat,
        pl.Decimal: Decimal,
        pl.Binary: base64.b64decode,
    }
    return readers.get(dtype.base_type(), lambda same: same)(value)


def from_msgpack(value: Any, dtype: Any) -> Any:
    if value is None or dtype.base_type() == pl.Binary:
        return value
    if isinstance(dtype, pl.Struct):
        return {each.name: from_msgpack(value[each.name], each.dtype) for each in dtype.fields}
    if isinstance(dtype, pl.List):
        return [from_msgpack(item, dtype.inner) for item in value]
    return from_json(value, dtype)


def expected() -> dict[str, Any]:
    return {name: words(values) for name, values in COLUMNS.items()}


def test_there_are_as_many_cases_as_were_compared_with_the_peers() -> None:
    assert 32 == len(CASES)


def test_every_type_comes_through_json_to_the_bit(served: Running) -> None:
    document = served.features(NAMES, USERS).json

    read = {
        name: words([from_json(value, CASES[name][0]) for value in column])
        for name, column in zip(CASES, document["values"], strict=True)
    }

    assert expected() == read
    assert [str(dtype) for dtype, _ in CASES.values()] == document["types"]


def test_every_type_comes_through_msgpack_to_the_bit(served: Running) -> None:
    body = msgspec.msgpack.encode({"features": NAMES, "entities": {"user_id": USERS}})

    answer = served.call(
        "POST",
        "/v1/features",
        body,
        {"Content-Type": "application/msgpack", "Accept": "application/msgpack"},
    )

    document = msgspec.msgpack.decode(answer.body)
    read = {
        name: words([from_msgpack(value, CASES[name][0]) for value in column])
        for name, column in zip(CASES, document["values"], strict=True)
    }
    assert "application/msgpack" == answer.headers["content-type"]
    assert expected() == read


def test_every_type_comes_through_arrow_to_the_bit(served: Running) -> None:
    answer = served.post(
        "/v1/features", {"features": NAMES, "entities": {"user_id": USERS}}, Accept=ARROW
    )

    frame = pl.read_ipc_stream(io.BytesIO(answer.body))
    read = {name: words(frame[f"everything:{name}"].to_list()) for name in CASES}
    assert ARROW == answer.headers["content-type"]
    assert expected() == read
    assert {n: d for n, (d, _) in CASES.items()} == {
        name: frame.schema[f"everything:{name}"] for name in CASES
    }


def test_arrow_carries_keys_statuses_and_ages_of_every_view(served: Running) -> None:
    asked = {"features": ["spend:amount"], "entities": {"user_id": [1, 5, 8]}}

    answer = served.post("/v1/features", asked, Accept=ARROW)

    frame = pl.read_ipc_stream(io.BytesIO(answer.body))
    assert [1, 5, 8] == frame["user_id"].to_list()
    assert ["present", "expired", "missing"] == frame["spend:amount::status"].to_list()
    assert YESTERDAY == frame["spend::event_timestamp"][0]
    assert (NOW - YESTERDAY).total_seconds() == frame["spend::age_seconds"][0]


def test_pyarrow_reads_the_stream_too(served: Running) -> None:
    import pyarrow.ipc

    answer = served.post(
        "/v1/features", {"features": NAMES, "entities": {"user_id": USERS}}, Accept=ARROW
    )

    table = pyarrow.ipc.open_stream(answer.body).read_all()
    assert COLUMNS["int64"] == table.column("everything:int64").to_pylist()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0.5, application/msgpack", "application/msgpack"),
        ("application/x-msgpack", "application/msgpack"),
        ("application/vnd.msgpack;q=0.9, application/json;q=0.8", "application/msgpack"),
        (f"text/csv, {ARROW};q=0.3", ARROW),
        ("application/*", "application/json"),
    ],
)
def test_the_accept_header_decides(served: Running, accept: str, content_type: str) -> None:
    asked = {"feature_set": "spending_v1", "entities": {"user_id": [1]}}

    answer = served.post("/v1/features", asked, Accept=accept)

    assert (200, content_type) == (answer.status, answer.headers["content-type"])


@pytest.mark.parametrize("accept", ["text/csv", "application/json;q=0", "image/*;q=nonsense", ","])
def test_a_caller_that_accepts_nothing_spoken_here_is_told_so(served: Running, accept: str) -> None:
    asked = {"feature_set": "spending_v1", "entities": {"user_id": [1]}}

    answer = served.post("/v1/features", asked, Accept=accept)

    assert (406, "NotAcceptable") == (answer.status, answer.error)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json"])
def test_bodies_that_a_web_page_could_send_unasked_are_refused(served: Running, kind: str) -> None:
    body = json.dumps({"feature_set": "spending_v1", "entities": {"user_id": [1]}}).encode()

    answer = served.call("POST", "/v1/features", body, {"Content-Type": kind})

    assert 415 == answer.status


def test_integers_beyond_two_to_the_53_are_digits_if_asked(served: Running) -> None:
    names = ["everything:int64", "everything:list_int", "everything:struct", "everything:int32"]

    document = served.features(names, USERS, int64="string").json

    whole, lists, structs, small = document["values"]
    assert [str(value) for value in COLUMNS["int64"]] == whole
    assert [["1", "2"], [str(2**53 + 1)], None, None] == lists
    assert str(2**53 + 1) == structs[0]["n"]
    assert COLUMNS["int32"] == small
    assert ["1", "2", "3", "4"] == document["entities"]["user_id"]


def test_keys_may_be_decimal_text(served: Running) -> None:
    as_text = served.features("spending_v1", ["1", "-9223372036854775808"]).json
    as_rows = served.post(
        "/v1/features", {"feature_set": "spending_v1", "entities": [{"user_id": "1"}]}
    ).json

    assert [1, -(2**63)] == as_text["entities"]["user_id"]
    assert 10.5 == as_text["values"][0][0] == as_rows["values"][0][0]


@pytest.mark.parametrize(
    "key", ["", "1.0", " 1", "+1", "1e3", "\uff10", "1_0", "abc", "0x10", "--1"]
)
def test_text_that_is_no_whole_number_is_no_key(served: Running, key: str) -> None:
    answer = served.features("spending_v1", [key])

    assert (400, "InputError") == (answer.status, answer.error)


@pytest.mark.parametrize("key", [1.5, True, None, [1], {"a": 1}, 2**63, -(2**63) - 1, 10**40])
def test_other_json_is_no_key(served: Running, key: Any) -> None:
    assert 400 == served.features("spending_v1", [key]).status


def test_composite_text_keys_are_exact(served: Running) -> None:
    entities = {"country": ["pl", "de", "pl:a"], "shop": ["a:b", "\r\n", "b"]}

    document = served.post("/v1/features", {"feature_set": "shops_v1", "entities": entities}).json

    assert [[6, 7, None]] == document["values"]
    assert [["present", "present", "missing"]] == document["statuses"]


@pytest.mark.parametrize(
    ("policy", "written"),
    [("string", ["NaN", "Infinity", "-Infinity", 1.0]), ("null", [None, None, None, 1.0])],
)
def test_nan_and_infinities_follow_the_asked_policy(
    served: Running, policy: str, written: list[Any]
) -> None:
    names = ["everything:float64_nan_inf", "everything:list_float"]

    document = served.features(names, USERS, non_finite=policy).json

    assert written == document["values"][0]
    assert [0.1, written[0]] == document["values"][1][0]


def test_nan_is_an_error_that_names_the_feature_if_asked(served: Running) -> None:
    answer = served.features(["everything:float64_nan_inf"], USERS, non_finite="error")

    assert (422, "NonFiniteError") == (answer.status, answer.error)
    assert "everything:float64_nan_inf" in answer.json["error"]["message"]
    assert 200 == served.features(["everything:float64"], USERS, non_finite="error").status


def test_the_project_declares_the_policy_for_nan(
    redis_url: str, served: Running, tmp_path: Path
) -> None:
    with running(redis_url, served.namespace, tmp_path, non_finite="null") as other:
        document = other.features(["everything:float64_nan_inf"], USERS).json

    assert [None, None, None, 1.0] == document["values"][0]


def test_a_trace_id_and_no_store_are_on_every_answer(served: Running) -> None:
    for answer in (served.get("/healthz"), served.get("/nothing"), served.features("no", [1])):
        assert 32 == len(answer.headers["x-trace-id"])
        assert "no-store" == answer.headers["cache-control"]


def test_head_answers_as_get_without_a_body(served: Running) -> None:
    answer = served.call("HEAD", "/healthz")

    assert (200, b"") == (answer.status, answer.body)
    assert "15" == answer.headers["content-length"]
