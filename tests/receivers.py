"""Receivers of alerts on the loopback: an HTTP server and a mail server that keep what they get."""

import base64
import contextlib
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """One POST."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class WebReceiver:
    """Keeps every POST, and answers as it is told.

    `statuses` are given in turn, then 200; `silent` accepts and never answers until it is freed;
    `redirect` is where a 3xx leads.
    """

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    silent: threading.Event | None = None
    redirect: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def web_receiver() -> Iterator[WebReceiver]:
    """Run one."""
    kept = WebReceiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(kept))
    server.daemon_threads = True
    kept.port = int(server.server_address[1])
    with _serving(server):
        yield kept


def _handler(kept: WebReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.requests.append(Request(self.path, dict(self.headers), json.loads(body)))
            if kept.silent is not None:
                kept.silent.wait(30)
            self.send_response(kept.statuses.pop(0) if kept.statuses else 200)
            if kept.redirect:
                self.send_header("Location", kept.redirect)
            self.send_header("Content-Length", "0")
            with contextlib.suppress(OSError):
                self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Say nothing: the tests assert on what arrives."""

    return Handler


@dataclass
class MailReceiver:
    """Keeps every mail, the logins, and whether they came encrypted.

    `refuses` is answered to MAIL FROM instead of taking it.
    """

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refuses: str = ""
    password: str | None = None


@contextmanager
def mail_receiver(tls: ssl.SSLContext | None = None) -> Iterator[MailReceiver]:
    """Run one; with a context it offers STARTTLS and, after it, logins."""
    kept = MailReceiver()
    server = _MailServer(("127.0.0.1", 0), _Session)
    server.daemon_threads = True
    server.kept, server.tls = kept, tls
    kept.port = int(server.server_address[1])
    with _serving(server):
        yield kept


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _MailServer(socketserver.ThreadingTCPServer):
    kept: MailReceiver
    tls: ssl.SSLContext | None


class _Session(socketserver.StreamRequestHandler):
    server: _MailServer
    encrypted = False
    wrapped: ssl.SSLSocket | None = None

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.say("220 ready")
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                self.say("221 bye")
                return
            getattr(self, f"on_{verb.lower()}")(rest)

    def finish(self) -> None:
        super().finish()
        if self.wrapped is not None:
            self.wrapped.close()

    def on_ehlo(self, _: str) -> None:
        offers = ["250-here"]
        if self.server.tls is not None:
            offers.append("250-AUTH PLAIN" if self.encrypted else "250-STARTTLS")
        for offer in [*offers, "250 8BITMIME"]:
            self.say(offer)

    def on_starttls(self, _: str) -> None:
        self.say("220 go on")
        assert self.server.tls is not None
        self.wrapped = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile = self.wrapped.makefile("rb")
        self.wfile = self.wrapped.makefile("wb", buffering=0)
        self.encrypted = True

    def on_auth(self, rest: str) -> None:
        _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
        kept = self.server.kept
        kept.logins.append((user, password))
        wrong = kept.password is not None and password != kept.password
        self.say(f"535 wrong: {password}" if wrong else "235 welcome")

    def on_mail(self, _: str) -> None:
        self.say(self.server.kept.refuses or "250 ok")

    def on_rcpt(self, rest: str) -> None:
        self.server.kept.recipients.append(rest)
        self.say("250 ok")

    def on_rset(self, _: str) -> None:
        self.say("250 ok")

    def on_data(self, _: str) -> None:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        found = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.server.kept.mails.append(found)
        self.server.kept.encrypted.append(self.encrypted)
        self.say("250 taken")
