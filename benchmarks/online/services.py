"""The HTTP services under load: ours, Feast's feature server, and the bare floor."""

import http.client
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.online import data, project_files
from benchmarks.online.bench import Bench, free_port, wait_for
from benchmarks.online.read_views import FEAST, FEATURES, FLOOR, KEY, LOADED, ReadViews
from benchmarks.online.workers import Process, WorkerFailedError

FLOOR_VIEW = [f"{data.READ[0]}:{name}" for name in data.FEATURES]
OK = 200
TRIES = 10
COOL_DOWN = 0.6
"""Seconds after which a service that gave up on the store tries it again."""


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        port: Where it listens.
        path: What is asked.
        body: Entities → the request's body.
        values: Answer → `view:feature` → value per entity.
        ready_s: Seconds from the start of its process until it listened.
        degraded: What an answer contains that could not read the store, if it would say so.
        one_client_only: Whether more than one client at a time is left out.
    """

    name: str
    port: int
    path: str
    body: Callable[[Sequence[int]], Any]
    values: Callable[[Any], Mapping[str, Sequence[Any]]]
    ready_s: float
    degraded: str = ""
    one_client_only: bool = False

    def ask(self, body: Any) -> Any:
        """The JSON that it answers once it could read the store in time.

        Raises:
            WorkerFailedError: It never could, or its status is not 200.
        """
        for _ in range(TRIES):
            text = self._post(body)
            if not self.degraded or self.degraded not in text:
                return json.loads(text)
            time.sleep(COOL_DOWN)
        raise WorkerFailedError(f"{self.name} could not read the store: {text[-500:]}")

    def _post(self, body: Any) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", self.path, json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != OK:
            raise WorkerFailedError(f"{self.path} answered {answer.status}: {text[:500]}")
        return text


def start_all(bench: Bench, views: ReadViews) -> list[Service]:
    """Every service, started and seen to answer right."""
    started = [*start_ours(bench), start_floor(bench)]
    if bench.feast_python:
        started.insert(1, start_feast(bench))
    for service in started:
        found: dict[str, Any] = dict(service.values(service.ask(service.body(views.ids))))
        if service.name == "floor":
            found = {name: views.truth[name].gather(views.ids) for name in FEATURES} | found
        views.require_right(service.name, found)
    return started


def start_ours(bench: Bench) -> list[Service]:
    """`lockstep serve` with one worker, once per run: in its own protocol, and in Feast's."""
    if bench.services:
        return bench.services
    port = free_port()
    command = [sys.executable, "-m", "lockstep", "serve", "--port", str(port)]
    log, environment = bench.log("serve"), project_files.environment(bench.server(LOADED))
    process = bench.own(Process(command, log, cwd=bench.project, environment=environment))
    ready = wait_for(port, process)
    own = Service(
        "lockstep",
        port,
        "/v1/features",
        lambda ids: {"features": FEATURES, "entities": {KEY: list(ids)}},
        lambda said: dict(zip(said["features"], said["values"], strict=True)),
        ready,
        degraded='"error"',
    )
    as_feast = Service(
        "lockstep, Feast's protocol",
        port,
        "/get-online-features",
        feast_body,
        feast_values,
        ready,
        one_client_only=True,
    )
    bench.services = [own, as_feast]
    return bench.services


def start_feast(bench: Bench) -> Service:
    """`feast serve` with one worker that is never recycled, without an access log."""
    port = free_port()
    command = [str(bench.feast_python), "-W", "ignore", "-m", "feast.cli.cli", "serve"]
    command += ["-h", "127.0.0.1", "-p", str(port), "-w", "1", "--no-access-log"]
    command += ["--max-requests", "1000000000", "--max-requests-jitter", "0"]
    folder = bench.work / f"feast-{FEAST}"
    process = bench.own(Process(command, bench.log("feast-serve"), cwd=folder))
    ready = wait_for(port, process)
    return Service("feast", port, "/get-online-features", feast_body, feast_values, ready)


def feast_body(ids: Sequence[int]) -> Any:
    """What Feast's feature server is asked."""
    return {"features": FEATURES, "entities": {KEY: list(ids)}, "full_feature_names": True}


def feast_values(said: Any) -> Mapping[str, Sequence[Any]]:
    """What Feast's feature server answers."""
    names = said["metadata"]["feature_names"]
    return {name: result["values"] for name, result in zip(names, said["results"], strict=True)}


def start_floor(bench: Bench) -> Service:
    """The bare server over MGET, with one view."""
    port = free_port()
    module = "benchmarks.online.http_floor_worker"
    command = [sys.executable, "-m", module, str(bench.port(FLOOR)), str(port)]
    process = bench.own(Process(command, bench.log("http-floor")))
    return Service(
        "floor",
        port,
        "/",
        lambda ids: {"features": FLOOR_VIEW, "ids": list(ids)},
        lambda said: dict(zip(said["features"], said["values"], strict=True)),
        wait_for(port, process),
    )
