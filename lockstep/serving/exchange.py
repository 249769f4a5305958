"""One request and its answer, as plain data; what ASGI needs and nothing more."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from lockstep.errors import LockstepError
from lockstep.serving.settings import MAX_BODY

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]
Respond: TypeAlias = Callable[[int, Sequence[Header], bytes], Awaitable[None]]

RESPOND: Final = "lockstep.respond"
"""Key of a scope under which a server offers to send a whole answer in one write."""

JSON_TYPE: Final = b"application/json"
RETRY_SOON: Final[tuple[Header, ...]] = ((b"retry-after", b"1"),)
CLOSE: Final[tuple[Header, ...]] = ((b"connection", b"close"),)
_ALWAYS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_KEPT: Final = frozenset(
    {
        b"accept",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"traceparent",
        b"tracestate",
    }
)


class Answer(msgspec.Struct):
    """What goes back."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    headers: Sequence[Header] = ()


class Refused(Exception):  # noqa: N818 - it is an answer
    """The request is answered without being carried out."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        headers: Sequence[Header] = (),
        missing: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers
        self.missing = missing


class BodyGone(Exception):  # noqa: N818 - nobody is left to be told
    """The caller went away before the body was complete."""


def kept_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers that mean something here, lower-case; of repeated ones the last."""
    return {name: value for name, value in scope["headers"] if name in _KEPT}


async def body_of(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the whole body.

    Raises:
        Refused: It is longer than 1 MiB; no more than that is kept.
        BodyGone: The caller disconnected.
    """
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > MAX_BODY:
        raise _too_long()
    message = await receive()
    if message["type"] != "http.request":
        raise BodyGone
    body: bytes = message["body"]
    if not message.get("more_body"):
        if len(body) > MAX_BODY:
            raise _too_long()
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] != "http.request":
            raise BodyGone
        parts.append(message["body"])
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _too_long()
    return b"".join(parts)


def _too_long() -> Refused:
    message = f"The body is longer than {MAX_BODY} bytes. Send several requests."
    return Refused(413, "BodyTooLong", message, headers=CLOSE)


async def send_answer(scope: Scope, send: Send, answer: Answer, trace_id: str) -> None:
    """Send the answer whole: at once, if the server offers that, else as ASGI says."""
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-trace-id", trace_id.encode()),
        *_ALWAYS,
        *answer.headers,
    ]
    respond: Respond | None = scope.get(RESPOND)
    if respond is not None:
        await respond(answer.status, headers, answer.body)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def refusal(refused: Refused, trace_id: str) -> Answer:
    """Return the answer that says why."""
    document: dict[str, Any] = {
        "error": {"type": refused.kind, "message": refused.message},
        "trace_id": trace_id,
    }
    if refused.missing is not None:
        document["missing"] = refused.missing
    body = msgspec.json.encode(document)
    return Answer(refused.status, body, headers=refused.headers)


def told(error: LockstepError, *, everything: bool) -> str:
    """Return the error's sentence; to somebody who may not see every view only its culprit."""
    return str(error) if everything else error.culprit
