"""What receivers get, byte by byte, over real HTTP and SMTP; and receivers that fail or hang."""

import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from lockstep.alerts.deliver import send
from lockstep.alerts.mail import mail_of
from lockstep.alerts.message import Item, Message, Standing
from lockstep.alerts.posting import alertmanager_body, slack_body, within
from lockstep.alerts.problem import KINDS, Problem
from lockstep.alerts.settings import AlertSettings, Receiver, parse_alerts
from lockstep.alerts.state import States
from lockstep.errors import ConfigError
from lockstep.stores.files import open_place
from tests.alert_looks import HOUR, MINUTE, T0, seen, stale, ticked
from tests.certificates import Authority
from tests.receivers import MailReceiver, WebReceiver, mail_receiver, web_receiver

SCHEMA: Final = json.loads(
    (Path(__file__).parent.parent / "docs" / "alert-message.schema.json").read_text("utf-8")
)
TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
# `postableAlerts` of Alertmanager's api/v2/openapi.yaml; label names as Prometheus has them.
POSTABLE: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["labels"],
        "properties": {
            "labels": {
                **TEXTS,
                "required": ["alertname"],
                "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
            },
            "annotations": TEXTS,
            "startsAt": {"type": "string", "format": "date-time"},
            "endsAt": {"type": "string", "format": "date-time"},
        },
    },
}
SECRET: Final = "s3cr3t-t0k3n"  # noqa: S105 - what must not be seen


def item(found: Problem, standing: Standing = "new") -> Item:
    healed = T0 + HOUR if standing == "resolved" else None
    return Item(f"{found.key}@1", found, standing, T0, healed)


def message(*items: Item) -> Message:
    listed = items or (item(stale("txn_7d")),)
    page = "https://wiki.example.com/runbooks/stale.md"
    return Message(
        "0123456789abcdef01234567", "shop:prod", "team:growth", "stale", page, T0 + HOUR,
        timedelta(minutes=6), listed,
    )  # fmt: skip


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as running:
        yield running


@pytest.fixture
def post() -> Iterator[MailReceiver]:
    with mail_receiver() as running:
        yield running


def mailbox(port: int, **setting: Any) -> Receiver:
    given = {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "lockstep@example.com"}
    return Receiver("box", "email", **{**given, "to": ["oncall@example.com"], **setting})


# The bytes


def test_a_webhook_gets_what_the_schema_describes(web: WebReceiver) -> None:
    mixed = [item(stale("a")), item(stale("b"), "ongoing"), item(stale("c"), "resolved")]
    receiver = Receiver("hook", "webhook", url=f"{web.url}/alerts")

    assert send(receiver, message(*mixed), {}) is None

    (got,) = web.requests
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(got.body, SCHEMA)
    assert "/alerts" == got.path
    assert "application/json; charset=utf-8" == got.headers["Content-Type"]
    assert got.body["id"] == got.headers["Idempotency-Key"]
    assert ("firing", 1) == (got.body["status"], got.body["version"])
    assert ["new", "ongoing", "resolved"] == [each["status"] for each in got.body["alerts"]]
    assert [None, None, "2026-11-22T03:00:00Z"] == [a["resolved_at"] for a in got.body["alerts"]]
    assert {"owner": "team:growth", "kind": "stale"}.items() <= got.body.items()


def test_the_schema_knows_every_kind() -> None:
    assert list(KINDS) == SCHEMA["$defs"]["kind"]["enum"]


def test_a_webhook_is_told_that_all_is_over() -> None:
    body = message(item(stale("a"), "resolved")).to_json()

    jsonschema.validate(body, SCHEMA)
    assert ("resolved", "[resolved] Data is not fresh: a") == (body["status"], body["title"])


def test_slack_gets_a_text_and_blocks_within_its_limits(web: WebReceiver) -> None:
    many = [item(stale(f"view_{n}", sentence="<!channel> & more " * 300)) for n in range(60)]
    receiver = Receiver("slack", "slack", url_env="HOOK")

    assert send(receiver, message(*many), {"HOOK": f"{web.url}/services/{SECRET}"}) is None

    body = web.requests[0].body
    assert {"text", "blocks"} == body.keys()
    assert "header" == body["blocks"][0]["type"]
    assert len(body["blocks"][0]["text"]["text"]) <= 150
    sections = [block for block in body["blocks"] if block["type"] == "section"]
    assert len(body["blocks"]) <= 50
    assert "and 20 more" == sections[-1]["text"]["text"]
    assert all(len(block["text"]["text"]) <= 3000 for block in sections)
    assert all("mrkdwn" == block["text"]["type"] for block in sections)
    assert "<!channel>" not in json.dumps(body)
    assert "&lt;!channel&gt; &amp; more" in sections[0]["text"]["text"]


def test_slack_shows_owner_command_and_a_link_to_the_runbook() -> None:
    shown = json.dumps(slack_body(message()), ensure_ascii=False)

    assert "`lockstep status`" in shown
    assert "Owner team:growth" in shown
    assert "<https://wiki.example.com/runbooks/stale.md|what to do>" in shown


def test_alertmanager_gets_an_alert_per_problem(web: WebReceiver) -> None:
    mixed = message(item(stale("a")), item(stale("b"), "resolved"))

    assert send(Receiver("am", "alertmanager", url=f"{web.url}/am/"), mixed, {}) is None

    (got,) = web.requests
    jsonschema.validate(got.body, POSTABLE)
    going, over = got.body
    assert "/am/api/v2/alerts" == got.path
    assert {
        "alertname": "LockstepStale",
        "kind": "stale",
        "owner": "team:growth",
        "project": "shop:prod",
        "severity": "page",
        "subject": "a",
    } == going["labels"]
    assert "2026-11-22T01:00:00Z" == going["startsAt"]
    assert "2026-11-22T03:18:00Z" == going["endsAt"]
    assert "2026-11-22T03:00:00Z" == over["endsAt"]
    for alert in got.body:
        starts, ends = (datetime.fromisoformat(alert[at]) for at in ("startsAt", "endsAt"))
        assert starts < ends


def test_alertmanager_knows_a_problem_by_the_same_labels_until_it_is_over() -> None:
    bodies = [alertmanager_body(message(item(stale("a"), s)))[0] for s in ("new", "resolved")]

    assert bodies[0]["labels"] == bodies[1]["labels"]


def test_mail_says_what_is_wrong_and_what_to_do(post: MailReceiver) -> None:
    mixed = message(item(stale("a")), item(stale("b"), "resolved"))

    assert send(mailbox(post.port, to=["a@example.com", "b@example.com"]), mixed, {}) is None

    (mail,) = post.mails
    assert ["TO:<a@example.com>", "TO:<b@example.com>"] == [r.split()[0] for r in post.recipients]
    assert "[page] Data is not fresh: a" == mail["Subject"]
    assert "<0123456789abcdef01234567@lockstep.invalid>" == mail["Message-ID"]
    assert "Sun, 22 Nov 2026 03:00:00 +0000" == mail["Date"]
    assert "auto-generated" == mail["Auto-Submitted"]
    text = mail.get_content().replace("\r\n", "\n")
    assert "new: a, since 2026-11-22 01:00 UTC.\n  It is old.\n  Run: lockstep status" in text
    assert "resolved: b, after 2 h 0 min." in text
    assert "Owner: team:growth. Project: shop:prod." in text
    assert "What to do: https://wiki.example.com/runbooks/stale.md" in text


def test_a_subject_cannot_add_a_header_to_a_mail() -> None:
    hostile = replace(stale("a"), subject="a\r\nBcc: all@example.com")

    mail = mail_of(mailbox(1), message(item(hostile)))

    assert mail["Bcc"] is None
    assert "\n" not in mail["Subject"]


# Secrets


def test_mail_goes_over_tls_with_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("server", address="127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with mail_receiver(context) as post:
        post.password = SECRET
        receiver = mailbox(post.port, tls="starttls", user_env="U", password_env="P")  # noqa: S106

        assert send(receiver, message(), {"U": "lockstep", "P": SECRET}) is None
        wrong = send(receiver, message(), {"U": "lockstep", "P": "wr0ng"})

    assert [True] == post.encrypted
    assert ("lockstep", SECRET) == post.logins[0]
    assert "the mail server answered 535 (SMTPAuthenticationError)" == wrong


def test_a_password_that_smtp_cannot_say_is_told_as_that(post: MailReceiver) -> None:
    receiver = mailbox(post.port, user_env="U", password_env="P")  # noqa: S106

    why = send(receiver, message(), {"U": "lockstep", "P": "pässwort"})

    assert why is not None
    assert "U and P hold more than ASCII" in why
    assert "pässwort" not in why


def test_a_call_that_breaks_says_with_what_and_not_that_it_was_slow() -> None:
    def breaks() -> str | None:
        message = f"http://127.0.0.1/{SECRET}"
        raise KeyError(message)

    assert "KeyError" == within(9.0, breaks)


def test_half_a_character_reaches_everybody_written_out(
    web: WebReceiver, post: MailReceiver, tmp_path: Path
) -> None:
    receivers = [Receiver("hook", "webhook", url=web.url), mailbox(post.port)]
    half = stale("a", sentence="It is file-\udcff.parquet.")

    result = ticked(States(open_place(str(tmp_path))), seen(half), T0, *receivers)

    assert {} == result.failed
    assert r"It is file-\udcff.parquet." == web.requests[0].body["alerts"][0]["sentence"]
    assert r"It is file-\udcff.parquet." in post.mails[0].get_content()


def test_a_mail_server_without_tls_gets_no_mail(post: MailReceiver) -> None:
    why = send(mailbox(post.port, tls="starttls"), message(), {})

    assert "SMTPNotSupportedError" == why
    assert [] == post.mails


def test_a_token_goes_along_and_nowhere_else(web: WebReceiver) -> None:
    with web_receiver() as elsewhere:
        web.statuses, web.redirect = [307], elsewhere.url
        receiver = Receiver("hook", "webhook", url=web.url, token_env="TOKEN")  # noqa: S106

        assert "it answered with status 307" == send(receiver, message(), {"TOKEN": SECRET})

        assert [] == elsewhere.requests
    assert f"Bearer {SECRET}" == web.requests[0].headers["Authorization"]


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        f"//{SECRET}",
        f"http://127.0.0.1:99999/{SECRET}",
        f"http://127.0.0.1:1/{SECRET}",
        f"http://127.0.0.1:1/a b{SECRET}\r\nX: y",
        f"https://[{SECRET}",
        f"javascript:{SECRET}",
        "",
    ],
)
def test_why_a_delivery_failed_says_nothing_of_the_address(address: str) -> None:
    receiver = Receiver("hook", "slack", url_env="HOOK")

    why = send(receiver, message(), {"HOOK": address})

    assert why is not None
    assert SECRET not in why
    assert "127.0.0.1" not in why


def test_a_token_with_a_line_break_is_refused() -> None:
    receiver = Receiver("hook", "webhook", url="http://127.0.0.1:1", token_env="TOKEN")  # noqa: S106

    why = send(receiver, message(), {"TOKEN": f"{SECRET}\r\nX-Evil: 1"})

    assert "the environment variable TOKEN holds no token" == why


# Receivers that fail


def test_a_receiver_that_is_down_says_so() -> None:
    with web_receiver() as gone:
        url = gone.url

    assert "ConnectionRefusedError: Connection refused" == send(
        Receiver("hook", "webhook", url=url), message(), {}
    )
    assert "ConnectionRefusedError: Connection refused" == send(
        mailbox(int(url.rpartition(":")[2])), message(), {}
    )


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_receiver_that_answers_otherwise_was_not_told(web: WebReceiver, status: int) -> None:
    web.statuses = [status]

    why = send(Receiver("hook", "webhook", url=web.url), message(), {})

    assert f"it answered with status {status}" == why


def test_a_receiver_that_is_silent_costs_its_timeout(web: WebReceiver) -> None:
    web.silent = threading.Event()
    receiver = Receiver("hook", "webhook", url=web.url, timeout_seconds=0.1)

    why = send(receiver, message(), {})
    web.silent.set()

    assert why in {"it did not answer within 0.1 s", "TimeoutError"}


def test_a_mail_server_that_refuses_says_with_which_code(post: MailReceiver) -> None:
    post.refuses = f"550 no, {SECRET}"

    why = send(mailbox(post.port), message(), {})

    assert "the mail server answered 550 (SMTPSenderRefused)" == why


def test_what_fails_over_http_is_sent_again_by_the_next_tick(
    web: WebReceiver, tmp_path: Path
) -> None:
    web.statuses = [500, 429]
    states = States(open_place(str(tmp_path)))
    receiver = Receiver("hook", "webhook", url=web.url)
    for minute in range(5):
        ticked(states, seen(stale("a")), T0 + minute * MINUTE, receiver)
    ticked(states, seen(), T0 + 9 * MINUTE, receiver)

    bodies = [request.body for request in web.requests]
    assert ["firing", "firing", "firing", "resolved"] == [body["status"] for body in bodies]
    assert 2 == len({body["id"] for body in bodies})


def test_a_missing_variable_is_named_and_fails_one_receiver(
    web: WebReceiver, tmp_path: Path
) -> None:
    states = States(open_place(str(tmp_path)))
    receivers = [
        Receiver("slack", "slack", url_env="NOT_SET"),
        Receiver("hook", "webhook", url=web.url),
        mailbox(1, user_env="NO_USER", password_env="NO_PASSWORD"),  # noqa: S106
    ]

    result = ticked(states, seen(stale("a")), T0, *receivers)

    assert 1 == len(web.requests)
    assert "the environment variable NOT_SET is not set" == result.failed["slack"]
    assert (
        "the environment variables NO_USER and NO_PASSWORD are not both set"
        == (result.failed["box"])
    )


# Settings


def test_settings_are_read_with_their_defaults() -> None:
    found = parse_alerts(
        {
            "runbooks": "https://wiki.example.com/runbooks",
            "receivers": {
                "growth": {"type": "slack", "url_env": "HOOK", "owners": ["team:growth"]},
                "am": {"type": "alertmanager", "url": "http://127.0.0.1:9093"},
                "box": {"type": "email", "host": "mail", "sender": "a@b.c", "to": ["d@e.f"]},
            },
        }
    )

    growth, am, box = found.receivers
    assert AlertSettings() == parse_alerts({})
    assert (("team:growth",), 24) == (tuple(growth.owners), growth.remind_after_hours)
    assert 6 == am.remind_after / timedelta(minutes=1)
    assert ("starttls", ["d@e.f"]) == (box.tls, box.to)


def mail(sender: str, *to: str) -> dict[str, Any]:
    return {"type": "email", "host": "h", "sender": sender, "to": [*to] or ["d@e.f"]}


@pytest.mark.parametrize(
    "address",
    ["root", "Zoë of Data <data@example.com>", "Data Inc. <a@b.c>", "a@b.c, d@e.f", "a@localhost"],
)
def test_every_form_of_an_address_is_taken(address: str) -> None:
    assert [address] == parse_alerts({"receivers": {"a": mail("a@b.c", address)}}).receivers[0].to


@pytest.mark.parametrize(
    "address", ['"', '"Team <a@b.c>', "(a@b.c", "Team: a@b.c", "a@b.c>", "a b"]
)
def test_what_the_mail_library_misreads_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="which is no address of mail"):
        parse_alerts({"receivers": {"a": mail("a@b.c", address)}})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"reciever": {}}, "there is no setting 'reciever'"),
        ({"owner": 3}, "owner must be text"),
        ({"receivers": 3}, "receivers must be tables"),
        ({"receivers": {"A b": {}}}, "'A b' must be lower-case"),
        ({"receivers": {"a": {"type": "pager"}}}, "a needs a type out of webhook, slack"),
        ({"receivers": {"a": {"type": "webhook"}}}, "exactly one of url and url_env"),
        (
            {"receivers": {"a": {"type": "webhook", "url": "http://u:p@h/"}}},
            "may be a secret: name a variable in url_env",
        ),
        (
            {"receivers": {"a": {"type": "slack", "url": "https://hooks.example.com/x"}}},
            "is a secret: name a variable in url_env",
        ),
        ({"receivers": {"a": {"type": "webhook", "url": "file:///x"}}}, "must begin with http"),
        ({"receivers": {"a": {"type": "webhook", "url_env": "A-B"}}}, "name an environment"),
        (
            {"receivers": {"a": {"type": "webhook", "url_env": "A", "owners": "x"}}},
            "owners must be a list",
        ),
        (
            {"receivers": {"a": {"type": "webhook", "url_env": "A", "timeout_seconds": 0}}},
            "timeout_seconds must be a number above 0",
        ),
        (
            {"receivers": {"a": {"type": "webhook", "url_env": "A", "min_severity": "warn"}}},
            "min_severity must be one of page, ticket",
        ),
        ({"receivers": {"a": {"type": "email", "host": "h"}}}, "sender is missing; a: to is"),
        ({"receivers": {"a": mail("(a@b.c")}}, "sender holds '(a@b.c', which is no"),
        ({"receivers": {"a": mail("a@b.c", "root", "<d@e.f")}}, "to holds '<d@e.f', which is no"),
        (
            {
                "receivers": {
                    "a": {
                        "type": "email", "host": "h", "sender": "s", "to": ["t"], "tls": "none",
                        "user_env": "U", "password_env": "P",
                    }
                }
            },
            "a password is not sent without TLS",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_alerts(table)


def test_every_problem_of_the_settings_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_alerts({"owner": 3, "receivers": {"a": {"type": "x"}, "b": {"type": "slack"}}})

    assert "owner must be text; a needs a type" in str(raised.value)
    assert "; b: exactly one of url and url_env" in str(raised.value)


def test_a_title_names_three_and_counts_the_rest() -> None:
    found = message(*(item(stale(name)) for name in "abcde"))

    assert "[page] Data is not fresh: a, b, c and 2 more" == found.title
