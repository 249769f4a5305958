"""`lockstep serve` as a process: what it imports, what it prints, how it ends, what it hides."""

import json
import re
import socket
import threading
from http.client import HTTPConnection, HTTPException, RemoteDisconnected
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import redis
import typer

from lockstep.cli import app
from lockstep.serving.auth import create_token
from lockstep.serving.command import ServeOptions
from lockstep.serving.settings import ServingSettings
from tests.serving_processes import (
    CANARY,
    Shop,
    ask,
    free_ports,
    made_in,
    refused,
    serving,
)
from tests.serving_world import Caller

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what a test is about
HEAVY = {
    *("dagster", "deltalake", "pandera", "soda", "soda_core", "duckdb", "pyarrow", "pandas"),
    *("numpy", "pydantic", "typer", "rich"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Shop:
    return made_in(tmp_path_factory.mktemp("project") / "a project", redis_url)


def test_it_serves_and_ends_with_zero(project: Shop, tmp_path: Path) -> None:
    with serving(project, tmp_path / "log") as served:
        answer = ask(served).json
        ready = served.get("/readyz").status
        status = served.end()

    assert ([[0.5]], [["present"]]) == (answer["values"], answer["statuses"])
    assert (200, 0) == (ready, status)
    assert "user 'default' without a password" in served.said
    assert "Traceback" not in served.said


def test_nothing_heavy_is_ever_imported(project: Shop, tmp_path: Path) -> None:
    """Every import of the process's life is told, the lazy ones of every route included."""
    with serving(project, tmp_path / "log", python=("-X", "importtime")) as served:
        for accept in ("application/json", "application/msgpack"):
            body = {"feature_set": "scores_v1", "entities": {"user_id": [1]}}
            assert 200 == served.post("/v1/features", body, Accept=accept).status
        arrow = "application/vnd.apache.arrow.stream"
        assert 200 == served.post("/v1/features", body, Accept=arrow).status
        for path in ("/metrics", "/openapi.json", "/v1/feature-sets/scores_v1", "/readyz"):
            assert 200 == served.get(path).status
        served.end()

    imported = set(re.findall(r"^import time:.*\| +(\S+)$", served.said, re.MULTILINE))
    assert {"polars", "uvicorn", "uvloop", "lockstep.serving.app"} <= imported
    assert set() == {name.partition(".")[0] for name in imported} & HEAVY
    assert not any(name.startswith("opentelemetry.sdk") for name in imported)


def test_spans_go_to_the_console_under_the_services_name(project: Shop, tmp_path: Path) -> None:
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "scores"}
    with serving(project, tmp_path / "log", **variables) as served:
        trace_id = ask(served).json["trace_id"]
        served.end()

    names = re.findall(r'^    "name": "(\w+)"', served.said, re.MULTILINE)
    assert ["decode", "fetch", "redis"] == sorted(names)
    assert f'"trace_id": "0x{trace_id}"' in served.said
    assert '"service.name": "scores"' in served.said


def test_stopping_under_load_loses_no_request_that_was_begun(project: Shop, tmp_path: Path) -> None:
    outcomes: list[str] = []
    begun = threading.Event()

    def client(port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        body = json.dumps({"feature_set": "scores_v1", "entities": {"user_id": [1]}})
        while True:
            try:
                connection.request(
                    "POST", "/v1/features", body, {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                document = json.loads(answer.read())
            except (ConnectionRefusedError, RemoteDisconnected, ConnectionResetError) as error:
                outcomes.append(type(error).__name__)
                return
            except (HTTPException, ValueError, OSError) as error:
                outcomes.append(f"broken: {error!r}")
                return
            outcomes.append(f"{answer.status} {document['statuses'][0][0]}")
            if len(outcomes) > 100:
                begun.set()

    with serving(project, tmp_path / "log") as served:
        clients = [threading.Thread(target=client, args=(served.port,)) for _ in range(8)]
        for each in clients:
            each.start()
        assert begun.wait(20)
        status = served.end()
        for each in clients:
            each.join()

    refused = [found for found in outcomes if not found.startswith("200 present")]
    assert 0 == status
    assert 8 == len(refused)
    assert ["ConnectionRefusedError"] * 8 == refused


def test_the_log_is_written_when_it_ends(project: Shop, tmp_path: Path) -> None:
    settings = project.folder / "pyproject.toml"
    before = settings.read_text()
    settings.write_text(before + "served_log_rate = 1.0\nserved_log_seconds = 3600\n")
    try:
        with serving(project, tmp_path / "log", LOCKSTEP_ROOT=str(tmp_path / "lake")) as served:
            ask(served)
            served.end()
    finally:
        settings.write_text(before)

    (file,) = (tmp_path / "lake" / "landing" / "served_features").rglob("*.parquet")
    assert [0.5] == pl.read_parquet(file)["number"].to_list()


def test_no_secret_and_no_pii_gets_out_on_any_path(
    project: Shop, tmp_path: Path, redis_url: str
) -> None:
    """Right and wrong passwords and tokens, errors of every kind: then everything is searched."""
    user, password = f"u{uuid4().hex[:8]}", f"{CANARY}-password"
    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", user, "on", f">{password}", "~*", "+@all")  # type: ignore[no-untyped-call]
    tokens = tmp_path / "tokens.toml"
    token = create_token(tokens, "reader", ["view:profile", "metrics"])
    place = redis_url.removeprefix("redis://")
    seen: list[bytes] = []

    def use(url: str, log: Path) -> None:
        variables = {"LOCKSTEP_REDIS_URL": url, "LOCKSTEP_TOKENS": str(tokens)}
        with serving(project, log, **variables) as served:
            served.token = token
            said = {"features": ["profile:score"], "entities": {"user_id": [1]}}
            pii = {"features": ["profile:email"], "entities": {"user_id": [1]}}
            for body in (said, pii, {**said, "on_missing": "fail"}, {"entities": CANARY}):
                answer = served.post("/v1/features", body)
                seen.extend([answer.body, str(answer.headers).encode()])
            for caller in (served, Caller(served.port), Caller(served.port, f"{CANARY}-token")):
                for path in ("/metrics", "/openapi.json", "/v1/feature-sets/scores_v1", "/readyz"):
                    answer = caller.get(path)
                    seen.extend([answer.body, str(answer.headers).encode()])
            served.get(f"/{CANARY}-path?token={CANARY}-query")
            served.call("POST", "/v1/features", b"{", {"Content-Type": f"{CANARY}/type"})
            served.end()
            seen.append(served.said.encode())

    use(f"redis://{user}:{password}@{place}", tmp_path / "right")
    use(f"redis://{user}:{password}-wrong@{place}", tmp_path / "wrong")

    everything = b"\n".join(seen)
    assert b"present" in everything
    assert CANARY.encode() not in everything
    assert token.encode() not in everything


def alone_or_shared() -> Any:
    """The same with one process and with several: their supervisor must not try for ever."""
    return pytest.mark.parametrize("workers", ["1", "2"])


@alone_or_shared()
def test_it_does_not_listen_for_others_unless_it_is_safe_or_told(
    project: Shop, tmp_path: Path, workers: str
) -> None:
    options = ("--host", EVERYWHERE, "--port", str(free_ports(3)), "--workers", workers)
    done = refused(project, *options)
    with serving(project, tmp_path / "log", *options, "--insecure") as served:
        let_in = served.get("/healthz").status
        status = served.end()

    assert 2 == done.returncode
    assert 1 == done.stderr.count("nobody needs a token")
    assert (200, 0) == (let_in, status)
    assert "Insecure: nobody needs a token." in served.said


@alone_or_shared()
def test_a_port_that_is_taken_is_said(project: Shop, tmp_path: Path, workers: str) -> None:
    with serving(project, tmp_path / "log") as served:
        done = refused(project, "--port", str(served.port), "--workers", workers)

    assert 2 == done.returncode
    assert 1 == done.stderr.count("Address already in use")


@alone_or_shared()
def test_a_tokens_file_that_is_broken_is_said(project: Shop, tmp_path: Path, workers: str) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("this is no TOML")
    options = ("--port", str(free_ports(3)), "--workers", workers)
    done = refused(project, *options, LOCKSTEP_TOKENS=str(tokens))

    assert 2 == done.returncode
    assert 1 == done.stderr.count(str(tokens))


def test_a_store_that_hangs_does_not_hold_up_the_end(project: Shop, tmp_path: Path) -> None:
    """The landing zone is on a store that takes connections and never says anything."""
    settings = project.folder / "pyproject.toml"
    before = settings.read_text()
    settings.write_text(before + "served_log_rate = 1.0\nserved_log_seconds = 3600\n")
    with settings.open("a") as file:
        file.write("drain_seconds = 1\n")
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = {
                "LOCKSTEP_ROOT": "s3://bucket/lake",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "nobody",
                "AWS_SECRET_ACCESS_KEY": "none",
                "AWS_REGION": "nowhere",
            }
            with serving(project, tmp_path / "log", **store) as served:
                ask(served)
                status = served.end()
    finally:
        settings.write_text(before)

    assert 0 == status
    assert "1 cells are dropped, for they could not be written" in served.said


@pytest.mark.parametrize(
    "words",
    [
        ["--host", "h", "--port=7", "--workers", "2", "--insecure"],
        ["--deadline-ms", "5", "--max-in-flight", "6", "--max-queue", "7", "--worker", "1"],
        ["--port", "-1"],
        ["--port", "1", "--port", "2"],
        [],
    ],
)
def test_both_command_lines_read_the_same_options(words: list[str]) -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    with command.make_context("serve", list(words)) as context:
        full = ServeOptions(**context.params)

    assert full == ServeOptions.read(words)
    assert full == ServeOptions.read(full.words())


@pytest.mark.parametrize("word", ["-h", "--help", "--nope", "--port", "--port=x", "--por=1", "x"])
def test_help_and_mistakes_are_left_to_the_full_command_line(word: str) -> None:
    assert ServeOptions.read([word]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "-1"), "port must be a whole number"),
        (("--deadline-ms", "0"), "deadline_ms must be a whole number, at least 1"),
        (("--max-in-flight", "0"), "max_in_flight"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    project: Shop, options: tuple[str, ...], said: str
) -> None:
    done = refused(project, *options)

    assert 2 == done.returncode
    assert said in done.stderr


def test_options_win_over_the_settings() -> None:
    settings = ServingSettings.parse({"deadline_ms": 20, "max_queue": 3}, None, Path("/x"))

    assert 7 == settings.overridden(deadline_ms=7, port=None).deadline_ms
    assert 3 == settings.overridden(deadline_ms=7).max_queue
