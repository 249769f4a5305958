"""`lockstep serve` as a process: what it imports, what it prints, how it ends, what it hides."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, RemoteDisconnected
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import redis

from lockstep.catalog import Catalog, discover
from lockstep.project import find_project
from lockstep.serving.auth import create_token
from lockstep.serving.settings import ServingSettings
from lockstep.stores.redis import OnlineStore
from tests.serving_world import LONG_AGO, US, Caller, push_frame

HEAVY = {"dagster", "deltalake", "pandera", "soda", "soda_core", "duckdb", "pyarrow", "pandas"}
CANARY = "canary-9f1c"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what a test is about
DECLARATIONS = '''\
"""What is served."""

from datetime import date

import polars as pl

from lockstep import Entity, FeatureSet, Feature, Features, Source, feature_view

USER = Entity("user", {"user_id": pl.Int64}, "Somebody.", buckets=2)
VISITS = Source(
    "visits",
    {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
    event_time="at",
    unique_by=["user_id", "at"],
    start=date(2026, 1, 1),
)


class Profile(Features, entity=USER, owner="team:tests", ttl=None):
    """A user."""

    score = Feature(pl.Float64, "Score.")
    email = Feature(pl.String, "E-mail address.", pii=True)


@feature_view(Profile, inputs=[VISITS.trailing(days=1)])
def profile(visits: pl.LazyFrame) -> pl.LazyFrame:
    return visits


SCORES_V1 = FeatureSet("scores_v1", [Profile.score], owner="team:tests")
'''


@dataclass(frozen=True)
class Shop:
    """A project's folder with rows online."""

    folder: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Shop:
    return made_in(tmp_path_factory.mktemp("project") / "a project", redis_url)


def made_in(folder: Path, url: str) -> Shop:
    views = f"views_{uuid4().hex[:8]}"
    (folder / views).mkdir(parents=True)
    (folder / views / "__init__.py").touch()
    (folder / views / "declared.py").write_text(DECLARATIONS, encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        f'[tool.lockstep]\nviews = "{views}"\nroot = "lake"\ntime_zone = "UTC"\n'
        "[tool.lockstep.serving]\nport = 0\n"
    )
    environment = {
        **os.environ,
        "LOCKSTEP_REDIS_URL": url,
        "LOCKSTEP_ENV": views,
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    frame = pl.DataFrame(
        {"user_id": [1, 2], "score": [0.5, None], "email": [f"{CANARY}@example.com", "b"]}
    ).with_columns(event_timestamp=pl.lit(LONG_AGO, US))
    store = OnlineStore(url, namespace=f"lockstep:{views}")
    store.ensure_ready()
    push_frame(store, _catalog(folder).views["profile"], frame)
    store.close()
    return Shop(folder, environment)


def _catalog(folder: Path) -> Catalog:
    return discover(find_project(folder))


@dataclass
class Process(Caller):
    """A running `lockstep serve`."""

    process: "subprocess.Popen[str]" = None  # type: ignore[assignment]
    log: Path = Path()

    def end(self) -> int:
        """Send SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


@contextmanager
def serving(
    project: Shop, log: Path, *options: str, python: tuple[str, ...] = (), **variables: str
) -> Iterator[Process]:
    """Start `lockstep serve` and wait until it says where it listens."""
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *python, "-m", "lockstep", "serve", *options],
            cwd=project.folder,
            env={**project.environment, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        ends = time.monotonic() + 30
        while not (found := re.search(r"Listening on http://\S+:(\d+)", log.read_text("utf-8"))):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < ends
        yield Process(int(found[1]), process=process, log=log)
    finally:
        process.kill()
        process.wait()


def ask(served: Caller, user: int = 1) -> Any:
    asked = {"feature_set": "scores_v1", "entities": {"user_id": [user]}}
    return served.post("/v1/features", asked)


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


def refused(project: Shop, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lockstep", "serve", *options],
        cwd=project.folder,
        env={**project.environment, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_does_not_listen_for_others_unless_it_is_safe_or_told(
    project: Shop, tmp_path: Path
) -> None:
    done = refused(project, "--host", EVERYWHERE)
    with serving(project, tmp_path / "log", "--host", EVERYWHERE, "--insecure") as served:
        let_in = served.get("/healthz").status

    assert 2 == done.returncode
    assert "nobody needs a token" in done.stderr
    assert (200, True) == (let_in, "Insecure: nobody needs a token." in served.said)


def test_a_port_that_is_taken_is_said(project: Shop, tmp_path: Path) -> None:
    with serving(project, tmp_path / "log") as served:
        done = refused(project, "--port", str(served.port))

    assert 2 == done.returncode
    assert "Address already in use" in done.stderr


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


def test_workers_share_a_port_and_each_has_one_of_its_own(project: Shop, tmp_path: Path) -> None:
    port = free_ports(3)
    options = ("--port", str(port), "--workers", "2")
    with serving(project, tmp_path / "log", *options) as served:
        answers = {ask(served).json["statuses"][0][0] for _ in range(20)}
        counted = [metric_of(port + 1 + at) for at in range(2)]
        before = pid_of(served, 1)
        os.kill(before, signal.SIGKILL)
        ends = time.monotonic() + 30
        while served.said.count("Listening on") < 3:
            assert time.monotonic() < ends
        again = Caller(port + 2).get("/healthz").status
        status = served.end()

    assert {"present"} == answers
    assert 20 == sum(counted)
    assert "Worker 1 ended with -9." in served.said
    assert (200, 0) == (again, status)


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens on."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            start: int = first.getsockname()[1]
            try:
                for at in range(1, count):
                    stack.enter_context(socket.create_server(("127.0.0.1", start + at)))
            except (OSError, OverflowError):
                continue
            return start


def metric_of(port: int) -> float:
    name = 'lockstep_requests_total{route="/v1/features",status="200"}'
    ends = time.monotonic() + 30
    while True:
        try:
            body = Caller(port).get("/metrics").body.decode()
        except ConnectionRefusedError:
            assert time.monotonic() < ends
            continue
        found = re.search(rf"^{re.escape(name)} (\S+)$", body, re.MULTILINE)
        return float(found[1]) if found else 0.0


def pid_of(served: Process, worker: int) -> int:
    """The process of a worker, found by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == served.process.pid and words[-3:-1] == [b"--worker", b"%d" % worker]:
            return int(folder.name)
    message = f"There is no worker {worker}."
    raise AssertionError(message)
