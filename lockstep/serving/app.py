"""The feature service as an ASGI application: who asks, what for, and whether there is room."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from time import perf_counter
from typing import Any, Final, TypeAlias

import msgspec

from lockstep.errors import (
    InputError,
    LockstepError,
    MissingFeatureError,
    OnlineError,
    UnknownNameError,
)
from lockstep.serving.admission import Admission
from lockstep.serving.answering import Answering
from lockstep.serving.auth import METRICS, OPEN, OPEN_TO_OTHERS, Caller, Tokens
from lockstep.serving.exchange import (
    RETRY_SOON,
    Answer,
    BodyGone,
    Receive,
    Refused,
    Scope,
    Send,
    body_of,
    kept_headers,
    refusal,
    send_answer,
    told,
)
from lockstep.serving.requests import (
    UnsupportedTypeError,
    feast_request,
    feature_request,
    set_query,
)
from lockstep.serving.settings import ServingSettings
from lockstep.serving.telemetry import CONTENT_TYPE, Telemetry
from lockstep.serving.tracing import CURRENT, Trace, TraceId, Tracing
from lockstep.serving.values import NonFiniteError

_SETS: Final = "/v1/feature-sets/"
_CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="lockstep"'),)
_FETCHES: Final = frozenset({"/v1/features", "/v1/feature-sets/{name}", "/get-online-features"})
_OPEN: Final = frozenset({"/healthz", "/readyz"})
_OK: Final = 200
_UNAVAILABLE: Final = 503
_PLAIN: Final = b"identity"
_FAILED: Final = 500
_GONE: Final = 499
_LOGGER: Final = logging.getLogger("lockstep.serving")
_STATUSES: Final[tuple[tuple[type[LockstepError], int], ...]] = (
    (UnsupportedTypeError, 415),
    (NonFiniteError, 422),
    (MissingFeatureError, 424),
    (InputError, 400),
    (OnlineError, 503),
)

_FAILURE: Final = "The service failed. Its log says why, under this trace id."

Handler: TypeAlias = Callable[["Request"], Awaitable[Answer]]


class Request(msgspec.Struct):
    """One request that was let in."""

    headers: Mapping[bytes, bytes]
    query: bytes
    name: str
    caller: Caller
    trace: Trace
    receive: Receive
    complete: float
    """When it was, by `perf_counter`: once its body had been read, if it has one."""


_NOWHERE: Final[tuple[str, Handler | None]] = ("other", None)


class App:
    """The application.

    Args:
        answering: Answers requests for features.
        admission: Says which of them there is room for.
        telemetry: Counts.
        tracing: Starts traces.
        tokens: Whose requests are answered; None asks for no token.
        settings: Of the service.
        description: Returns the OpenAPI document for a caller.
        readiness: Returns why requests should go elsewhere (None: they should not), and how many
            views are not ready.
        now: Returns the present instant (UTC).
    """

    def __init__(
        self,
        *,
        answering: Answering,
        admission: Admission,
        telemetry: Telemetry,
        tracing: Tracing,
        tokens: Tokens | None,
        settings: ServingSettings,
        description: Callable[[Caller], Mapping[str, Any]],
        readiness: Callable[[], tuple[str | None, int]],
        now: Callable[[], datetime],
    ) -> None:
        self._answering: Final = answering
        self._admission: Final = admission
        self._telemetry: Final = telemetry
        self._tracing: Final = tracing
        self._tokens: Final = tokens
        self._description: Final = description
        self._readiness: Final = readiness
        self._now: Final = now
        self._anonymous: Final = OPEN if settings.loopback else OPEN_TO_OTHERS
        self.routes: Final[Mapping[tuple[str, str], tuple[str, Handler]]] = {
            ("POST", "/v1/features"): ("/v1/features", self._features),
            ("GET", _SETS): ("/v1/feature-sets/{name}", self._feature_set),
            ("POST", "/get-online-features"): ("/get-online-features", self._feast),
            ("GET", "/metrics"): ("/metrics", self._metrics),
            ("GET", "/openapi.json"): ("/openapi.json", self._openapi),
            ("GET", "/healthz"): ("/healthz", self._healthz),
            ("GET", "/readyz"): ("/readyz", self._readyz),
        }
        self._methods: Final = {path: method for method, path in self.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        name = ""
        if path.startswith(_SETS):
            path, name = _SETS, path[len(_SETS) :]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route, handler = self.routes.get((method, path), _NOWHERE)
        headers = kept_headers(scope)
        parent, state = headers.get(b"traceparent"), headers.get(b"tracestate")
        fetches = route in _FETCHES
        trace = self._tracing.start("fetch", parent, state) if fetches else TraceId(parent)
        if self._tracing.on:
            CURRENT.set(trace)
        try:
            handle = self._known(handler, path)
            caller = self._caller(route, headers)
            query = scope["query_string"]
            request = Request(headers, query, name, caller, trace, receive, perf_counter())
            answer = await handle(request)
            if fetches and answer.status == _OK:
                self._telemetry.observe(perf_counter() - request.complete)
        except BodyGone:
            trace.end(_GONE, {"http.route": route})
            return
        except Refused as refused:
            answer = refusal(refused, trace.trace_id)
        except Exception:
            _LOGGER.exception("A request to %s failed; its trace id is %s.", route, trace.trace_id)
            answer = refusal(Refused(_FAILED, "InternalError", _FAILURE), trace.trace_id)
        await send_answer(scope, send, answer, trace.trace_id)
        self._telemetry.answered(route, answer.status)
        trace.end(answer.status, {"http.route": route})

    def _known(self, handler: Handler | None, path: str) -> Handler:
        if handler is not None:
            return handler
        allowed = self._methods.get(path)
        if allowed is None:
            raise Refused(404, "NotFound", "There is nothing at this path.")
        message = f"Only {allowed} is allowed here."
        raise Refused(405, "MethodNotAllowed", message, headers=((b"allow", allowed.encode()),))

    def _caller(self, route: str, headers: Mapping[bytes, bytes]) -> Caller:
        if self._tokens is None or route in _OPEN:
            return self._anonymous
        caller = self._tokens.caller(headers.get(b"authorization"), self._now())
        if caller is None:
            message = "This needs a valid token: Authorization: Bearer …"
            raise Refused(401, "Unauthorized", message, headers=_CHALLENGE)
        return caller

    async def _features(self, request: Request) -> Answer:
        body = await _body(request)

        async def work() -> Answer:
            asked = feature_request(body, _content_type(request))
            accept = request.headers.get(b"accept")
            return await self._answering.features(asked, request.caller, accept, request.trace)

        return await self._admitted(work(), request.caller)

    async def _feature_set(self, request: Request) -> Answer:
        async def work() -> Answer:
            query, keys = set_query(request.query)
            try:
                chosen = self._answering.feature_set(request.name)
            except UnknownNameError as error:
                message = told(error, everything=request.caller.sees_everything)
                raise Refused(404, "UnknownNameError", message) from None
            accept = request.headers.get(b"accept")
            return await self._answering.of_set(
                chosen, query, keys, request.caller, accept, request.trace
            )

        return await self._admitted(work(), request.caller)

    async def _feast(self, request: Request) -> Answer:
        body = await _body(request)

        async def work() -> Answer:
            asked = feast_request(body, _content_type(request))
            return await self._answering.feast(asked, request.caller, request.trace)

        return await self._admitted(work(), request.caller)

    async def _admitted(self, work: Coroutine[Any, Any, Answer], caller: Caller) -> Answer:
        """Do the work when there is room for it, and turn what it raises into an answer."""
        admission = self._admission
        if not admission.enter_now() and not await admission.enter():
            work.close()
            message = "The service is at its limit. Try again, or ask another instance."
            raise Refused(503, "Overloaded", message, headers=RETRY_SOON)
        try:
            return await work
        except LockstepError as error:
            raise _refused(error, everything=caller.sees_everything) from None
        finally:
            admission.leave()

    async def _metrics(self, request: Request) -> Answer:
        if METRICS not in request.caller.scopes:
            raise Refused(403, "Forbidden", f"The token lacks these scopes: {METRICS}.")
        return Answer(200, self._telemetry.exposition(), CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Answer:
        return Answer(200, msgspec.json.encode(self._description(request.caller)))

    async def _healthz(self, _request: Request) -> Answer:
        return Answer(200, b'{"status":"ok"}')

    async def _readyz(self, _request: Request) -> Answer:
        reason, not_ready = self._readiness()
        document = {
            "status": "ready" if reason is None else "not ready",
            "reason": reason,
            "views_not_ready": not_ready,
        }
        return Answer(200 if reason is None else 503, msgspec.json.encode(document))


def _encoded(coding: bytes) -> Refused:
    message = (
        f"The body's Content-Encoding {coding[:40].decode('latin-1')!r} cannot be read. Send the "
        "body as it is."
    )
    headers = ((b"accept-encoding", _PLAIN),)
    return Refused(415, "UnsupportedTypeError", message, headers=headers)


async def _body(request: Request) -> bytes:
    if request.headers.get(b"content-encoding", _PLAIN).lower() != _PLAIN:
        raise _encoded(request.headers[b"content-encoding"])
    body = await body_of(request.receive, request.headers)
    request.complete = perf_counter()
    return body


def _content_type(request: Request) -> str:
    return request.headers.get(b"content-type", b"").decode("latin-1")


def _refused(error: LockstepError, *, everything: bool) -> Refused:
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), None)
    if status is None:
        raise error
    headers = RETRY_SOON if status == _UNAVAILABLE else ()
    return Refused(
        status, type(error).__name__, told(error, everything=everything), headers=headers
    )
