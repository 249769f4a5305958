"""Trace ids always; spans only if the standard OTEL_* variables ask for an exporter.

The OpenTelemetry SDK is imported then and not before.
"""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final, Protocol

from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Trace(Protocol):
    """One request's trace."""

    trace_id: str

    def step(self, name: str, start_ns: int, end_ns: int) -> None:
        """Record a child span that is over; times in nanoseconds since 1970."""

    def end(self, status: int, attributes: Mapping[str, Any]) -> None:
        """Record that the answer is encoded."""


CURRENT: Final[ContextVar[Trace | None]] = ContextVar("CURRENT", default=None)
"""The trace of the request that a task answers; set only if spans are recorded."""


class TraceId:
    """A trace without spans: the caller's id, or a new one."""

    __slots__ = ("trace_id",)

    def __init__(self, traceparent: bytes | None) -> None:
        self.trace_id = (traceparent and given_id(traceparent)) or f"{getrandbits(128) or 1:032x}"

    def step(self, name: str, start_ns: int, end_ns: int) -> None:
        """Do nothing."""

    def end(self, status: int, attributes: Mapping[str, Any]) -> None:
        """Do nothing."""


def given_id(traceparent: bytes) -> str | None:
    """Return the trace id of a W3C traceparent header; None if the header is not valid."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] == b"ff" or found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    if found[1] == b"00" and found[4]:
        return None
    return found[2].decode()


class Tracing:
    """Starts a trace per request.

    Args:
        provider: Where spans go; None records none.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider: Final = provider
        self._tracer: Final[Any] = provider and provider.get_tracer("lockstep.serving")

    @property
    def on(self) -> bool:
        """Whether spans are recorded."""
        return self._provider is not None

    def start(self, name: str, traceparent: bytes | None, tracestate: bytes | None) -> Trace:
        """Return the trace of a request that has just arrived."""
        if self._tracer is None:
            return TraceId(traceparent)
        return _Spans(self._tracer, name, traceparent, tracestate)

    def close(self) -> None:
        """Send what has not been sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


class _Spans:
    def __init__(
        self, tracer: Any, name: str, traceparent: bytes | None, tracestate: bytes | None
    ) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {"traceparent": traceparent, "tracestate": tracestate}
        carrier = {key: value.decode("latin-1") for key, value in headers.items() if value}
        parent = TraceContextTextMapPropagator().extract(carrier)
        self._tracer = tracer
        self._span = tracer.start_span(name, context=parent, kind=SpanKind.SERVER)
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"

    def step(self, name: str, start_ns: int, end_ns: int) -> None:
        from opentelemetry.trace import set_span_in_context

        child = self._tracer.start_span(
            name, context=set_span_in_context(self._span), start_time=start_ns
        )
        child.end(end_time=end_ns)

    def end(self, status: int, attributes: Mapping[str, Any]) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attributes({"http.response.status_code": status, **attributes})
        if status >= 500:  # noqa: PLR2004 - the first status that is the server's fault
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def tracing_from(environment: Mapping[str, str] | None = None) -> Tracing:
    """Return what the OTEL_* variables of OpenTelemetry's specification ask for.

    Spans are exported if OTEL_TRACES_EXPORTER is otlp or console, or if it is not set and there is
    an OTLP endpoint; never if OTEL_SDK_DISABLED is true. The SDK itself reads the others
    (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …).

    Raises:
        ConfigError: Another exporter is asked for.
    """
    variables = os.environ if environment is None else environment
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Tracing()
    default = "otlp" if any(variables.get(name) for name in _ENDPOINTS) else "none"
    asked = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower() or default
    names = [name.strip() for name in asked.split(",") if name.strip() not in {"", "none"}]
    if unknown := sorted(set(names) - {"otlp", "console"}):
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER names {unknown}.", expected="otlp, console or none"
        )
    return Tracing(_provider(names)) if names else Tracing()


def _provider(names: list[str]) -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "lockstep"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "console" in names:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    if "otlp" in names:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
