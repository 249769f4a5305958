"""`lockstep serve` as processes, for tests: a project with rows online, and ways to start it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from lockstep.catalog import Catalog, discover
from lockstep.project import find_project
from lockstep.stores.redis import OnlineStore
from tests.serving_world import LONG_AGO, US, Caller, push_frame

CANARY = "canary-9f1c"
COMMAND = (sys.executable, "-m", "lockstep", "serve")
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


def made_in(folder: Path, url: str) -> Shop:
    views = f"views_{uuid4().hex[:8]}"
    (folder / views).mkdir(parents=True)
    (folder / views / "__init__.py").touch()
    (folder / views / "declared.py").write_text(DECLARATIONS, encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        f'[tool.lockstep]\nviews = "{views}"\nroot = "lake"\ntime_zone = "UTC"\n'
        # A machine that has other work is no slow Redis.
        "[tool.lockstep.serving]\nport = 0\ndeadline_ms = 5000\n"
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


def refused(project: Shop, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *options],
        cwd=project.folder,
        env={**project.environment, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def wait_until(so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not so():
        assert time.monotonic() < ends


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
