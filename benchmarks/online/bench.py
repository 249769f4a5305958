"""One run of the benchmark: its sizes, folder, servers and contenders."""

import shutil
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl
import redis

from benchmarks.machine import load
from benchmarks.online import data, lake_of_rows, project_files
from benchmarks.online.workers import Process, SharedWorker, Worker, WorkerFailedError
from lockstep.project import find_project
from lockstep.store import Store
from lockstep.stores.server import EmbeddedServer


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        pushed: Entities of the view that is pushed and backfilled.
        read: Entities of the three views that are read.
        rounds: Repetitions, contenders in turn; medians are reported.
        feast_pushes: Repetitions of Feast's materialize, which takes longest.
        seconds: Length of one closed or open loop.
        most_seconds: After which a throttled push is cut short; its rate is that until then.
    """

    pushed: int = 1_000_000
    read: int = 100_000
    rounds: int = 3
    feast_pushes: int = 2
    seconds: float = 1.2
    most_seconds: float = 25.0


QUICK = Sizes(pushed=1_000, read=400, rounds=1, feast_pushes=1, seconds=0.02, most_seconds=2)


@dataclass
class Bench:
    """What the parts share; leaving the block ends every process that was started."""

    sizes: Sizes
    work: Path
    feast_python: str | None
    quick: bool = False
    loads: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    services: list[Any] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _servers: dict[str, EmbeddedServer] = field(default_factory=dict)
    _clients: "dict[str, redis.Redis]" = field(default_factory=dict)
    _workers: dict[str, SharedWorker] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Tell the person who waits, and note how busy the machine is."""
        self.loads.append(load())
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    # Servers

    @cached_property
    def engines(self) -> dict[str, Path | None]:
        """Debian's Redis, which peers are compared on, and the embedded Valkey."""
        found = shutil.which("redis-server")
        if found is None:
            self.notes.append("redis-server is not installed: every contender uses Valkey.")
            return {"valkey": None}
        return {"redis": Path(found), **({} if self.quick else {"valkey": None})}

    def server(self, name: str, engine: str | None = None, *, aof: bool = False) -> str:
        """The URL of this run's own server of that name: no persistence unless asked.

        All that is ours is on one server in a quick run, so that one worker can do all pushes.
        """
        if self.quick and "feast" not in name:
            name = "quick"
        if name not in self._servers:
            binary = self.engines[engine or next(iter(self.engines))]
            settings = {"appendonly": "yes" if aof else "no"}
            made = EmbeddedServer(self.work / f"server-{name}", binary=binary, settings=settings)
            made.start()
            self._stack.callback(made.stop)
            self._servers[name] = made
        return self._servers[name].url

    def client(self, name: str) -> "redis.Redis":
        """A plain client of a server, to load, flush and look."""
        if name not in self._clients:
            made = redis.Redis.from_url(self.server(name), protocol=2, socket_timeout=60)
            self._clients[name] = self._stack.enter_context(made)
        return self._clients[name]

    def port(self, name: str) -> int:
        """The port of a server."""
        return int(self.server(name).rsplit(":", 1)[1].split("/")[0])

    # Processes

    def log(self, name: str) -> Path:
        """Where a process writes what nobody measures."""
        return self.work / f"{name}.log"

    def worker(self, module: str, *arguments: str, server: str) -> Worker:
        """A worker of ours beside a server; one for all who need its kind in a quick run.

        Importing the libraries takes nearly all of a quick run's time.
        """
        environment = project_files.environment(self.server(server))
        log = self.log(module)
        if not self.quick:
            return Worker(module, *arguments, log=log, environment=environment)
        if module not in self._workers:
            made = SharedWorker(module, *arguments, log=log, environment=environment)
            self._workers[module] = made
            self._stack.callback(made.end)
        return self._workers[module]

    def feast(self, server: str) -> Worker:
        """A worker in Feast's environment with its views declared."""
        folder = str(self.work / f"feast-{server}")
        worker = Worker(
            "feast_worker",
            folder,
            str(self.port(server)),
            log=self.log("feast_worker"),
            python=str(self.feast_python),
        )
        worker.ask("declare", views=self.feast_views)
        return worker

    def own(self, process: Process) -> Process:
        """Keep a process until the run ends."""
        return self._stack.enter_context(process)

    # Data

    @cached_property
    def project(self) -> Path:
        """The project's folder, its rows committed to Delta through ingestion and audits."""
        folder = self.work / "project"
        self.say(f"committing {self.sizes.pushed:,} and 3 × {self.sizes.read:,} rows to Delta")
        project_files.write_project(folder)
        store = Store(find_project(folder))
        for view in data.ENTITIES:
            # One view is enough to show that ingestion and audits let the rows pass.
            as_they_are = self.quick and view != data.PUSHED
            commit = lake_of_rows.commit if as_they_are else lake_of_rows.build
            commit(store, view, self.rows(view))
        lake_of_rows.commit_types(store)
        return folder

    @property
    def store(self) -> Store:
        """The project, opened."""
        return Store(find_project(self.project))

    def rows(self, view: str) -> pl.DataFrame:
        """The rows of a view."""
        return data.rows(view, self.sizes.pushed if view == data.PUSHED else self.sizes.read)

    @cached_property
    def feast_views(self) -> dict[str, Any]:
        """The same views and rows for Feast, as parquet."""
        folder = self.work / "feast-rows"
        folder.mkdir(exist_ok=True)
        event = pl.lit(data.EVENT, pl.Datetime("us", "UTC"))
        views = {}
        for view, entity in data.ENTITIES.items():
            path = folder / f"{view}.parquet"
            self.rows(view).with_columns(event_timestamp=event).write_parquet(path)
            views[view] = {
                "entity": entity,
                "key": data.key_of(view),
                "features": {name: str(dtype) for name, dtype in data.FEATURES.items()},
                "path": str(path),
                "ttl_days": data.TTL_DAYS,
            }
        return views


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: Process, seconds: float = 60) -> float:
    """Seconds until somebody listens on the port.

    Raises:
        WorkerFailedError: The process ended, or nobody does in time.
    """
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        if process.popen.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return time.perf_counter() - begin
    raise WorkerFailedError(f"nobody listens on {port}: {process.tail()}")
