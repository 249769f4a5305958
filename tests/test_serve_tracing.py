"""Trace ids are always there; spans go where the standard variables say, and nowhere else."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lockstep.errors import ConfigError
from lockstep.serving.tracing import Tracing, given_id, tracing_from
from tests.serving_world import Clock, Running, make_catalog, new_namespace, push_all, running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def namespace(redis_url: str) -> str:
    made = new_namespace()
    push_all(redis_url, made, make_catalog())
    return made


@pytest.fixture
def served(redis_url: str, namespace: str, tmp_path: Path) -> Iterator[Running]:
    with running(redis_url, namespace, tmp_path) as it:
        yield it


def test_the_callers_trace_is_taken_up(served: Running) -> None:
    asked = {"feature_set": "spending_v1", "entities": {"user_id": [1]}}

    answer = served.post("/v1/features", asked, traceparent=PARENT)
    refused = served.post("/v1/features", {}, traceparent=PARENT)

    assert TRACE == answer.json["trace_id"] == answer.headers["x-trace-id"]
    assert TRACE == refused.json["trace_id"] == refused.headers["x-trace-id"]


def test_without_one_every_request_has_its_own(served: Running) -> None:
    ids = [served.features("spending_v1", [1]).json["trace_id"] for _ in range(20)]

    assert 20 == len(set(ids))
    assert all(len(found) == 32 and int(found, 16) for found in ids)


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-extra",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        "canary\r\n",
    ],
)
def test_what_is_no_traceparent_is_ignored(header: str) -> None:
    assert given_id(header.encode()) is None


def test_a_later_version_of_the_header_is_understood() -> None:
    assert TRACE == given_id(f"01{PARENT[2:]}-more".encode())


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
    ],
)
def test_spans_are_recorded_only_if_asked_for(variables: Mapping[str, str], on: bool) -> None:
    tracing = tracing_from(variables)
    tracing.close()

    assert on == tracing.on


def test_an_unknown_exporter_is_refused() -> None:
    with pytest.raises(ConfigError, match="jaeger"):
        tracing_from({"OTEL_TRACES_EXPORTER": "jaeger"})


class Collector(HTTPServer):
    """An OTLP collector over HTTP that keeps every span."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.spans += scope.spans


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        packed = self.headers.get("Content-Encoding") == "gzip"
        assert isinstance(self.server, Collector)
        self.server.take(gzip.decompress(body) if packed else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def test_a_request_that_fails_is_logged_counted_answered_and_its_span_ended(
    redis_url: str, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    clock = FailingClock()
    asked = {"features": ["spend:amount"], "entities": {"user_id": [1]}}
    with running(redis_url, namespace, tmp_path, now=clock, tracing=Tracing(provider)) as served:
        clock.fails = True
        answer = served.post("/v1/features", asked, traceparent=PARENT)
        scrape = served.get("/metrics")
        clock.fails = False
        again = served.post("/v1/features", asked)
        counted = served.get("/metrics").body.decode()

    assert (500, "InternalError") == (answer.status, answer.error)
    assert (500, "InternalError") == (scrape.status, scrape.error)
    assert TRACE == answer.json["trace_id"] == answer.headers["x-trace-id"]
    assert "application/json" == answer.headers["content-type"]
    assert b"what time" not in answer.body
    assert 200 == again.status
    for route in ("/v1/features", "/metrics"):
        assert f'lockstep_requests_total{{route="{route}",status="500"}} 1.0' in counted
    failed, fine = (span for span in spans.get_finished_spans() if span.name == "fetch")
    assert (500, StatusCode.ERROR) == (
        (failed.attributes or {})["http.response.status_code"],
        failed.status.status_code,
    )
    assert 200 == (fine.attributes or {})["http.response.status_code"]
    assert f"A request to /v1/features failed; its trace id is {TRACE}." in caplog.text
    assert "what time" in caplog.text


class FailingClock(Clock):
    """A clock that may fail."""

    fails = False

    def __call__(self) -> datetime:
        if self.fails:
            message = "Nobody knows what time it is."
            raise RuntimeError(message)
        return super().__call__()


def traced(redis_url: str, namespace: str, folder: Path, tracing: Tracing) -> None:
    """Ask once and stop, which sends every span."""
    with running(redis_url, namespace, folder, tracing=tracing) as served:
        asked = {"features": ["spend:amount"], "entities": {"user_id": [123_456_789]}}
        answer = served.post("/v1/features", asked, traceparent=PARENT)
        served.features(["no:feature"], [1])
        served.get("/healthz")
    assert TRACE == answer.json["trace_id"]


def test_a_fetch_is_a_span_with_redis_and_decode_below_it(
    redis_url: str,
    namespace: str,
    tmp_path: Path,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    traced(redis_url, namespace, tmp_path, tracing_from())

    (fetch,) = [
        span for span in collector.spans if span.name == "fetch" and span.trace_id.hex() == TRACE
    ]
    below = {span.name: span for span in collector.spans if span.parent_span_id == fetch.span_id}
    said = {each.key: each.value for each in fetch.attributes}
    assert "00f067aa0ba902b7" == fetch.parent_span_id.hex()
    assert {"redis", "decode"} == below.keys()
    redis, decode = below["redis"], below["decode"]
    times = [fetch.start_time_unix_nano, redis.start_time_unix_nano, redis.end_time_unix_nano]
    times += [decode.start_time_unix_nano, decode.end_time_unix_nano, fetch.end_time_unix_nano]
    assert sorted(times) == times
    assert "/v1/features" == said["http.route"].string_value
    assert 200 == said["http.response.status_code"].int_value
    assert {"lockstep"} == collector.services
    assert not any(b"123456789" in span.SerializeToString() for span in collector.spans)
