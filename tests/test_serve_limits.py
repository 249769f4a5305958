"""What the service refuses: too much, too deep, too slow, and everything that is no feature."""

import ast
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lockstep.serving import settings
from tests.serving_world import (
    Running,
    make_catalog,
    new_namespace,
    push_all,
    raw_connection,
    received,
    running,
)
from tests.source_tree import ROOT, name_of, product_files

HEADERS = b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}
ROUTES = """\
GET /healthz
GET /metrics
GET /openapi.json
GET /readyz
GET /v1/feature-sets/
POST /get-online-features
POST /v1/features
"""


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    namespace = new_namespace()
    push_all(redis_url, namespace, make_catalog())
    folder = tmp_path_factory.mktemp("limits")
    settings = {"read_seconds": 0.4, "idle_seconds": 1, "max_connections": 40}
    with running(redis_url, namespace, folder, **settings) as it:
        yield it


def test_the_route_table_is_this_one(served: Running) -> None:
    routes = sorted(f"{method} {path}" for method, path in served.service.app.routes)

    assert ROUTES.splitlines() == routes


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GET", "POST"])
def test_other_methods_are_refused_with_the_one_allowed(served: Running, method: str) -> None:
    for route in ROUTES.splitlines():
        allowed, path = route.split()
        if method == allowed:
            continue
        answer = served.call(method, path)
        assert (405, allowed) == (answer.status, answer.headers["allow"]), route


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/v1", "/v1/features/", "/materialize", "/push", "/read-document"),
        *("/v1/features/../healthz", "/static/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e", "//healthz"),
        *("/healthz%00", "/HEALTHZ", "/v1/feature-sets"),
    ],
)
def test_nothing_else_is_there(served: Running, path: str) -> None:
    assert 404 == served.get(path).status


@pytest.mark.parametrize(
    "name", ["../spending_v1", "spending_v1/", "%2e%2e", "a%00b", "%C3%A9", "", "x" * 5000]
)
def test_names_of_feature_sets_lead_nowhere_else(served: Running, name: str) -> None:
    assert 404 == served.get(f"/v1/feature-sets/{name}").status


def test_no_browser_page_of_another_origin_is_allowed_in(served: Running) -> None:
    headers = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }

    preflight = served.call("OPTIONS", "/v1/features", None, headers)
    asked = served.call("GET", "/healthz", None, headers)

    for answer in (preflight, asked):
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "api_key"])
def test_a_token_in_the_query_is_refused(served: Running, name: str) -> None:
    answer = served.get(f"/v1/feature-sets/spending_v1?user_id=1&{name}=secret-canary")

    assert 400 == answer.status
    assert b"secret-canary" not in answer.body


def test_as_many_entities_and_features_as_allowed_are_served(served: Running) -> None:
    answer = served.features("everything_v1", list(range(settings.MAX_ENTITIES)))

    assert 200 == answer.status
    assert settings.MAX_ENTITIES == len(answer.json["values"][0])


def test_more_entities_are_refused_in_any_form(served: Running) -> None:
    ids = list(range(settings.MAX_ENTITIES + 1))
    rows = {"feature_set": "spending_v1", "entities": [{"user_id": at} for at in ids]}
    query = "&".join(f"user_id={at}" for at in ids)
    feast = {"features": ["spend:amount"], "entities": {"user_id": ids}}

    assert 400 == served.features("spending_v1", ids).status
    assert 400 == served.post("/v1/features", rows).status
    assert 400 == served.get(f"/v1/feature-sets/spending_v1?{query}").status
    assert 400 == served.post("/get-online-features", feast).status


def test_more_features_and_one_feature_twice_are_refused(served: Running) -> None:
    many = [f"spend:f{at}" for at in range(settings.MAX_FEATURES + 1)]

    assert "at most 200" in served.features(many, [1]).json["error"]["message"]
    assert 400 == served.features(["spend:amount", "spend:amount"], [1]).status


def test_a_body_of_a_mebibyte_is_read_and_one_byte_more_is_not(served: Running) -> None:
    body = json.dumps({"feature_set": "spending_v1", "entities": {"user_id": [1]}}).encode()
    whole = body + b" " * (settings.MAX_BODY - len(body))

    assert 200 == served.call("POST", "/v1/features", whole, JSON).status
    assert 413 == served.call("POST", "/v1/features", whole + b" ", JSON).status


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(served: Running) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with raw_connection(served.port) as connection:
        connection.sendall(HEADERS + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            connection.sendall(chunk)
        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/v1/features", "/get-online-features"])
def test_a_packed_body_is_415_and_says_what_cannot_be_read(served: Running, path: str) -> None:
    asked = {"features": ["spend:amount"], "entities": {"user_id": [1]}}
    packed = gzip.compress(json.dumps(asked).encode())

    refused = served.call("POST", path, packed, {**JSON, "Content-Encoding": "gzip"})
    plain = served.post(path, asked, **{"Content-Encoding": "Identity"})

    assert (415, "UnsupportedTypeError") == (refused.status, refused.error)
    assert "Content-Encoding 'gzip'" in refused.json["error"]["message"]
    assert "identity" == refused.headers["accept-encoding"]
    assert 200 == plain.status


def test_half_a_surrogate_pair_is_named(served: Running) -> None:
    body = b'{"feature_set": "shops_v1", "entities": {"country": ["\\ud800"], "shop": ["a"]}}'

    answer = served.call("POST", "/v1/features", body, JSON)

    assert 400 == answer.status
    assert "half of a surrogate pair" in answer.json["error"]["message"]


def deep(depth: int) -> bytes:
    return b'{"feature_set": "spending_v1", "entities": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"NaN", b'"text"', b"[" * 500_000),
        *(deep(3), deep(100_000), b'{"x":' * 100_000, b'{"entities": {"user_id": [NaN]}}'),
        b'{"feature_set": "spending_v1", "entities": {"user_id": [1]}, "sql": "drop"}',
        b'{"feature_set": "spending_v1", "features": [], "entities": {"user_id": [1]}}',
        b'{"features": [], "entities": {"user_id": [1]}}',
        b'{"feature_set": "spending_v1", "entities": {"user_id": [1], "extra": [1]}}',
        b'{"feature_set": "spending_v1", "entities": {"user_id": [1], "path": ["/etc/passwd"]}}',
        b'{"feature_set": "spending_v1", "entities": {}}',
        b'{"feature_set": "shops_v1", "entities": {"country": ["pl"], "shop": []}}',
        b'{"feature_set": "shops_v1", "entities": [{"country": "pl"}, {"shop": "a"}]}',
        b'{"feature_set": "shops_v1", "entities": {"country": [1], "shop": [2]}}',
        b'{"feature_set": "shops_v1", "entities": {"country": ["\\ud800"], "shop": ["a"]}}',
    ],
)
def test_what_is_no_request_is_400_in_our_words(served: Running, body: bytes) -> None:
    answer = served.call("POST", "/v1/features", body, JSON)

    assert 400 == answer.status, answer.body
    assert {"error", "trace_id"} == answer.json.keys()
    assert len(answer.body) < 2000


@pytest.mark.parametrize("body", [b"\x91" * 500_000, b"\xc1", b"", b"\x81\xa1a"])
def test_what_is_no_msgpack_request_is_400(served: Running, body: bytes) -> None:
    answer = served.call("POST", "/v1/features", body, {"Content-Type": "application/msgpack"})

    assert 400 == answer.status


def test_keys_longer_than_a_kibibyte_are_refused(served: Running) -> None:
    fits, too_long = "k" * 1000, "k" * 1100

    def asked(shop: str) -> Any:
        entities = {"country": ["pl"], "shop": [shop]}
        return served.post("/v1/features", {"feature_set": "shops_v1", "entities": entities})

    assert (200, 400) == (asked(fits).status, asked(too_long).status)


def test_hostile_keys_are_only_keys(served: Running) -> None:
    hostile = ["*3\r\n$3\r\nSET\r\n", "\0", "../../x", "'; --", "\u202e", "é", "e\u0301", " a "]
    entities = {"country": hostile, "shop": hostile}

    answer = served.post("/v1/features", {"feature_set": "shops_v1", "entities": entities})

    assert [["missing"] * len(hostile)] == answer.json["statuses"]
    assert hostile == answer.json["entities"]["shop"]


@pytest.mark.parametrize(
    "query", ["%ff", "user_id", "user_id=1&&", "int64=x&user_id=1", "a=1&" * 3000, "user_id=%zz"]
)
def test_queries_that_cannot_be_read_are_400(served: Running, query: str) -> None:
    assert 400 == served.get(f"/v1/feature-sets/spending_v1?{query}").status


def test_headers_beyond_the_limit_are_431(served: Running) -> None:
    answer = served.get("/healthz", **{"X-Long": "x" * settings.MAX_HEADERS})

    assert 431 == answer.status


@pytest.mark.parametrize(
    "said",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /hea",
        b"",
        HEADERS + b"Content-Length: 100\r\n\r\n{",
        HEADERS + b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
    ],
    ids=["headers", "path", "nothing", "body", "chunk"],
)
def test_who_is_slow_is_cut_off(served: Running, said: bytes) -> None:
    with raw_connection(served.port) as connection:
        connection.sendall(said)
        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


def test_a_trickle_does_not_buy_time(served: Running) -> None:
    """Each byte comes in time; the whole does not."""
    with raw_connection(served.port) as connection:
        connection.settimeout(0.05)
        answer = b""
        sent = 0
        while not answer:
            connection.sendall(b"GET / HTTP/1.1\r\n"[sent : sent + 1] or b"x")
            sent += 1
            try:
                answer = connection.recv(100)
            except TimeoutError:
                assert sent < 200

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(served: Running) -> None:
    with raw_connection(served.port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_limit_are_told_to_come_back(served: Running) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(raw_connection(served.port))
        with raw_connection(served.port) as one_more:
            answer = received(one_more)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    while served.server.server_state.connections:
        pass
    assert 200 == served.get("/healthz").status


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/features HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/features HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/features HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n b\r\nBad Header: x\r\n\r\n",
    ],
)
def test_broken_http_is_400_and_closed(served: Running, said: bytes) -> None:
    with raw_connection(served.port) as connection:
        connection.sendall(said)
        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 4"), answer


def test_pipelined_requests_are_answered_in_order(served: Running) -> None:
    paths = [b"/healthz", b"/nothing", b"/readyz"]
    said = b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths[:-1])
    with raw_connection(served.port) as connection:
        connection.sendall(said + b"GET /readyz HTTP/1.0\r\n\r\n")
        answer = received(connection)

    assert [b"200", b"404", b"200"] == re.findall(rb"HTTP/1\.1 (\d+) ", answer)


@pytest.mark.parametrize(
    "file", [file for file in product_files() if name_of(file).startswith("lockstep/")], ids=name_of
)
def test_nothing_in_the_engine_can_run_what_it_is_given(file: Any) -> None:
    """Words, not only calls: not even behind another name."""
    text = file.read_text(encoding="utf-8")
    code = ast.unparse(ast.parse(text))
    banned = r"\b(pickle|dill|cloudpickle|marshal|shelve)\b|(?<![\w.])(eval|exec)\(|yaml\.load\b"

    assert re.findall(banned, code) == []


def test_the_source_tree_is_the_one_that_was_searched() -> None:
    assert (ROOT / "lockstep" / "serving" / "app.py") in product_files()


def test_msgpack_and_json_are_held_to_the_same_limits(served: Running) -> None:
    ids = list(range(settings.MAX_ENTITIES + 1))
    body = msgspec.msgpack.encode({"feature_set": "spending_v1", "entities": {"user_id": ids}})

    answer = served.call("POST", "/v1/features", body, {"Content-Type": "application/msgpack"})

    assert 400 == answer.status
