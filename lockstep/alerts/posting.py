"""Webhook, Slack and Alertmanager: a message as the JSON that each of them takes, and its POST."""

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from lockstep.alerts.message import Item, Message, instant
from lockstep.alerts.problem import TITLES
from lockstep.alerts.settings import Receiver
from lockstep.alerts.unexpected import UNEXPECTED, unexpected

ALERTMANAGER: Final = "/api/v2/alerts"

# Limits of Slack's blocks: https://api.slack.com/reference/block-kit/blocks
_HEADER: Final = 150
_SECTION: Final = 3000
_SECTIONS: Final = 40
_MARKS: Final = {"new": ":red_circle:", "ongoing": ":large_orange_circle:", "resolved": ":large_green_circle:"}  # noqa: E501  # fmt: skip

_ACCEPTED: Final = range(200, 300)


def webhook_body(message: Message) -> Any:
    """Return what a webhook gets; docs/alert-message.schema.json describes it."""
    return message.to_json()


def slack_body(message: Message) -> Any:
    """Return what an incoming webhook of Slack gets: a text for notifications, and blocks."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(message.title, _HEADER)}}
    ]
    blocks += [_section(item) for item in message.items[:_SECTIONS]]
    if more := len(message.items) - _SECTIONS:
        blocks += [_text(f"and {more} more")] if more > 0 else []
    said = f"Owner {_escaped(message.owner)} · {_escaped(message.project)} · {_link(message)}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": said}]})
    return {"text": _escaped(message.title), "blocks": blocks}


def _section(item: Item) -> dict[str, Any]:
    found = item.problem
    said = f"{_MARKS[item.standing]} *{_escaped(found.subject)}* {item.standing}\n"
    said += _escaped(_cut(found.sentence, _SECTION // 6))
    if item.healed is None and found.fix:
        said += f"\n`{_escaped(found.fix)}`"
    return _text(said)


def _text(said: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(said, _SECTION)}}


def _link(message: Message) -> str:
    page = message.runbook
    return f"<{page}|what to do>" if "://" in page else f"what to do: `{_escaped(page)}`"


def _escaped(said: str) -> str:
    """Escape what Slack reads as mentions and links."""
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(said: str, most: int) -> str:
    return said if len(said) <= most else f"{said[: most - 1]}…"


def alertmanager_body(message: Message) -> Any:
    """Return what Alertmanager's API takes: an alert per problem, no label of which is an entity.

    One that goes on ends by itself unless it is told again, so that a platform that is gone leaves
    no alert behind for ever.
    """
    return [
        {
            "labels": {
                "alertname": f"Lockstep{''.join(map(str.capitalize, message.kind.split('_')))}",
                "kind": message.kind,
                "owner": message.owner,
                "project": message.project,
                "severity": item.problem.severity,
                "subject": item.problem.subject,
            },
            "annotations": {
                "summary": f"{TITLES[message.kind]}: {item.problem.subject}",
                "description": item.problem.sentence,
                "fix": item.problem.fix,
                "runbook_url": message.runbook,
            },
            "startsAt": instant(item.problem.since),
            "endsAt": instant(item.healed or message.at + max(3 * message.again, _LEAST)),
        }
        for item in message.items
    ]


_LEAST: Final = timedelta(minutes=15)
BODIES: Final[Mapping[str, Callable[[Message], Any]]] = {
    "webhook": webhook_body,
    "slack": slack_body,
    "alertmanager": alertmanager_body,
}


def post(receiver: Receiver, message: Message, environment: Mapping[str, str]) -> str | None:
    """Send a message; return None if it was accepted, else why not, without the address.

    A redirect is not followed: it would take the token elsewhere.
    """
    address = receiver.url or environment.get(receiver.url_env or "", "")
    if not address:
        return f"the environment variable {receiver.url_env} is not set"
    if wrong := _unusable(address):
        return wrong
    if receiver.type == "alertmanager" and not address.endswith(ALERTMANAGER):
        address = f"{address.rstrip('/')}{ALERTMANAGER}"
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "lockstep",
        "Idempotency-Key": message.id,
    }
    if receiver.token_env is not None:
        token = environment.get(receiver.token_env, "")
        if not token.isprintable() or not token.isascii() or not token:
            return f"the environment variable {receiver.token_env} holds no token"
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps(BODIES[receiver.type](message), ensure_ascii=False).encode()
    request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310 - checked
    return within(receiver.timeout_seconds, lambda: _post(request, receiver.timeout_seconds))


def _unusable(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname)
        known = known and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if known and address.isprintable() and " " not in address and address.isascii():
        return None
    return "its address is not one that begins with http:// or https://"


def _post(request: urllib.request.Request, seconds: float) -> str | None:
    try:
        with _opener().open(request, timeout=seconds) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        status = error.code
    except urllib.error.URLError as error:
        return _named(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return _named(error)
    return None if status in _ACCEPTED else f"it answered with status {status}"


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https and nothing else, by the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _named(error: object) -> str:
    """Return what kind of error it is: its words may hold the address."""
    said = getattr(error, "strerror", None)
    return f"{type(error).__name__}{f': {said}' if isinstance(said, str) else ''}"


def within(seconds: float, call: Callable[[], str | None]) -> str | None:
    """Return what a call returns, or that it took too long: some servers trickle for ever.

    What takes too long is left to itself; whether it was accepted is not known.
    """
    answers: list[str | None] = []

    def answered() -> None:
        try:
            answers.append(call())
        except UNEXPECTED as error:
            answers.append(unexpected("A receiver could not be told", error))

    thread = threading.Thread(target=answered, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"it did not answer within {seconds:g} s"
