"""An S3 on the loopback, and a proxy before it that breaks what real stores and networks break."""

import http.client
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

BUCKET = "lake"
REFUSAL = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SignatureDoesNotMatch</Code>'
    "<Message>The request signature we calculated does not match.</Message>"
    "<CanonicalRequest>{headers}</CanonicalRequest></Error>"
)


@dataclass
class S3:
    """A running store: its options as Lockstep takes them."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


@dataclass
class Faults:
    """What the proxy does to requests: edit while it runs.

    `lose_replies` counts down the conditional PUTs (of keys matching `only`) that are applied and
    then answered with 500, as a gateway does whose backend was slow. `refuse` matches the keys that
    are answered with 403 and, as S3 does, with the headers of the request in the body. `requests`
    gathers what was asked, as "METHOD /bucket/key".
    """

    strip_if_none_match: bool = False
    lose_replies: int = 0
    only: str = r"_delta_log/\d+\.json"
    refuse: str = r"(?!)"
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def loses_reply(self, method: str, path: str) -> bool:
        with self.lock:
            hit = method == "PUT" and self.lose_replies > 0 and bool(re.search(self.only, path))
            self.lose_replies -= hit
            return hit


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run an empty store with one bucket."""
    # Here: every run of the suite loads this module, and they take a second.
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = S3(f"http://{host}:{port}")
    try:
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 - of a store on the loopback
        )
        client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        server.stop()


@pytest.fixture(scope="module")
def s3_store() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@contextmanager
def faulty(store: S3, faults: Faults) -> Iterator[S3]:
    """Run a proxy before the store."""
    host = store.endpoint.removeprefix("http://")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(host, faults))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield S3(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(host: str, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key: value for key, value in self.headers.items() if key != "Host"}
            faults.requests.append(f"{self.command} {self.path}")
            if re.search(faults.refuse, self.path):
                self._answer(403, REFUSAL.format(headers=self.headers).encode())
                return
            if faults.strip_if_none_match:
                headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
            upstream = http.client.HTTPConnection(host)
            upstream.request(self.command, self.path, body, headers)
            reply = upstream.getresponse()
            data = reply.read()
            if reply.status == 200 and faults.loses_reply(self.command, self.path):
                self._answer(500, b"")
                return
            self.send_response(reply.status)
            for key, value in reply.getheaders():
                if key.lower() not in {"transfer-encoding", "connection", "content-length"}:
                    self.send_header(key, value)
            length = reply.headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the base class looks for these

        def log_message(self, *args: Any) -> None:
            """Say nothing: the tests assert on what arrives."""

    return Handler
