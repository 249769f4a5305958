"""The feature service as a process: it listens, warms up, answers, and drains when told to stop."""

import asyncio
import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import uvicorn

from lockstep.catalog import Catalog
from lockstep.errors import ConfigError
from lockstep.project import Project
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.admission import Admission
from lockstep.serving.answering import Answering
from lockstep.serving.app import App
from lockstep.serving.auth import Caller, Tokens
from lockstep.serving.daemon import in_daemon
from lockstep.serving.lifeline import say_ready
from lockstep.serving.messages import LOGGER
from lockstep.serving.openapi import document
from lockstep.serving.protocol import GuardedProtocol
from lockstep.serving.served_log import ServedLog
from lockstep.serving.settings import ServingSettings, is_loopback
from lockstep.serving.telemetry import Telemetry
from lockstep.serving.tracing import Tracing
from lockstep.stores.address import Address
from lockstep.stores.files import open_place

_SWEEP_SECONDS: Final = 0.25
_BACKLOG: Final = 2048
_CLOSING_SECONDS: Final = 0.05
"""Connections are closed by the loop's next turns; a loop that ends before leaves them open."""
# Answers hold many small lists for a moment; looking at them every 700 costs more than it frees.
_ALLOCATIONS: Final = 20_000
# A thread that writes the log must not hold the interpreter for the default 5 ms.
_SWITCH_SECONDS: Final = 0.0005
_LAST_SECONDS: Final = 1.0
"""The log gets them even if requests took all of `drain_seconds`."""


class Service:
    """Everything between the socket and the client, of one process.

    Args:
        project: Where the lake is, and what the keys begin with.
        catalog: What is served.
        client: Fetches; it is started and closed here.
        settings: How to serve.
        tracing: Where spans go.
        now: Returns the present instant (UTC).

    Raises:
        ConfigError: The tokens' file is wrong.
    """

    def __init__(
        self,
        project: Project,
        catalog: Catalog,
        client: AsyncClient,
        settings: ServingSettings,
        tracing: Tracing,
        now: Callable[[], datetime],
    ) -> None:
        self.settings: Final = settings
        self.draining = False
        self._catalog: Final = catalog
        self._client: Final = client
        self._tokens: Final = Tokens(Path(settings.tokens)) if settings.tokens else None
        self._tracing: Final = tracing
        self._log: Final = ServedLog(
            lambda: open_place(project.landing),
            settings.served_log_rate,
            settings.served_log_seconds,
        )
        admission = Admission(
            settings.max_in_flight, settings.max_queue, settings.deadline, perf_counter
        )
        telemetry = Telemetry(
            list(catalog.views.values()),
            admission,
            _Online(client, self.readiness),
            lambda: (self._log.written, self._log.dropped),
            now,
        )
        self.app: Final = App(
            answering=Answering(catalog, client, telemetry, self._log, settings.non_finite),
            admission=admission,
            telemetry=telemetry,
            tracing=self._tracing,
            tokens=self._tokens,
            settings=settings,
            description=self._description,
            readiness=self.readiness,
            now=now,
        )

    async def start(self) -> None:
        """Connect and compile every plan; a store that does not answer yet is asked again later."""
        self._log.start()
        await self._client.start()
        if self._client.watch.problem is not None:
            LOGGER.warning("Not ready: %s", self._client.watch.problem)

    async def stop(self, seconds: float) -> None:
        """Write the log and send the spans, for so many seconds at most; close the connections."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        spans = asyncio.create_task(in_daemon(self._tracing.close))
        await self._log.close(seconds)
        _, late = await asyncio.wait([spans], timeout=max(0.0, ends - loop.time()))
        if late:
            spans.cancel()
            LOGGER.warning("Spans that had not been sent yet are lost: their collector is slow.")
        else:
            spans.result()
        await self._client.close()
        await asyncio.sleep(_CLOSING_SECONDS)

    def tick(self) -> None:
        """Do what is due every now and then."""
        if self._tokens is None:
            return
        try:
            if self._tokens.refresh():
                LOGGER.info("The tokens' file was read again.")
        except ConfigError as error:
            LOGGER.error("%s The tokens read before still count.", error)

    def readiness(self) -> tuple[str | None, int]:
        """Return why requests should go elsewhere, or None, and how many views are not ready."""
        waiting = len(self._client.readiness)
        if self.draining:
            return "the service is stopping", waiting
        if self._client.breaker.state != "closed":
            return "the online store does not answer", waiting
        if self._client.watch.problem is not None:
            return "the last look at the online store failed", waiting
        return None, waiting

    def _description(self, caller: Caller) -> dict[str, Any]:
        return document(self._catalog, caller, package_version())


class _Online:
    """The client as metrics see it."""

    def __init__(
        self, client: AsyncClient, readiness: Callable[[], tuple[str | None, int]]
    ) -> None:
        self._client: Final = client
        self._readiness: Final = readiness

    @property
    def facts(self) -> Any:
        return self._client.watch.facts

    @property
    def not_ready(self) -> Any:
        return self._client.readiness

    @property
    def ready(self) -> bool:
        return self._readiness()[0] is None

    @property
    def last_look(self) -> float:
        return self._client.last_look

    @property
    def breaker(self) -> str:
        state: str = self._client.breaker.state
        return state


class Server(uvicorn.Server):
    """A uvicorn server around a service.

    Args:
        service: What answers.
        on_ready: Called with the port once requests are answered.
        line: A worker's line to its supervisor; the server stops when the other end is gone.
    """

    def __init__(
        self,
        service: Service,
        on_ready: Callable[[int], None] = lambda _: None,
        line: socket.socket | None = None,
    ) -> None:
        settings = service.settings
        protocol = type("Protocol", (GuardedProtocol,), {"settings": settings})
        super().__init__(
            uvicorn.Config(
                service.app,
                loop="uvloop",
                http=protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=ceil(settings.idle_seconds),
                timeout_graceful_shutdown=ceil(settings.drain_seconds),
            )
        )
        self._service: Final = service
        self._on_ready: Final = on_ready
        self._line: Final = line
        self._sweeping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Warm up, then listen."""
        await self._service.start()
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        self._sweeping = loop.create_task(self._sweep())
        if self._line is not None:
            loop.add_reader(self._line, self._left_alone)
        self._on_ready((sockets or [self.servers[0].sockets[0]])[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish what was begun, write the log: all within `drain_seconds`."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._service.settings.drain_seconds
        self._service.draining = True
        if self._line is not None:
            loop.remove_reader(self._line)
        await super().shutdown(sockets)
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._service.stop(max(ends - loop.time(), _LAST_SECONDS))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server; unlike uvicorn's, it then ends with status 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _STOPPING}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _left_alone(self) -> None:
        """Stop: the supervisor says nothing on the line, so what there is to read is its end."""
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line)
        LOGGER.error("The supervisor of the workers is gone; this one stops.")
        self.should_exit = True

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for connection in list(self.server_state.connections):
                if isinstance(connection, GuardedProtocol):
                    connection.sweep(loop.time())
            self._service.tick()


_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


def serve(
    service: Service, listening: list[socket.socket], line: socket.socket | None = None
) -> None:
    """Answer requests until SIGTERM or SIGINT; then drain and return.

    Args:
        line: A worker's line to its supervisor, told when requests are answered. When its other
            end is gone, the service stops, too.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)

    def ready(port: int) -> None:
        # What is there now stays: collections need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS)
        host = service.settings.host
        LOGGER.info("Listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        if line is not None:
            say_ready(line)

    Server(service, ready, line).run(sockets=listening)


def bound_socket(settings: ServingSettings, *, worker: int | None = None) -> socket.socket:
    """Return a socket that is bound to the address of the settings.

    Args:
        worker: Number of a worker that shares the port with others.

    Raises:
        ConfigError: The address is in use, or is none of this machine.
    """
    return _bound(settings.host, settings.port, shared=worker is not None)


def worker_socket(settings: ServingSettings, worker: int) -> socket.socket:
    """Return a socket on the worker's own port, `port + 1 + worker`.

    Raises:
        ConfigError: The port is in use.
    """
    return _bound(settings.host, settings.port + 1 + worker, shared=False)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise ConfigError(
            f"The service cannot listen on {host}:{port}.",
            got=getattr(error, "strerror", None) or "no such port",
            fix="Stop what uses the port, or choose another: --port.",
        ) from None
    return bound


def require_safe(settings: ServingSettings, address: Address, *, insecure: bool) -> list[str]:
    """Return warnings about who could reach what.

    Args:
        insecure: Turns what is refused into warnings.

    Raises:
        ConfigError: Others than this machine could read features, or values could be read or
            forged on their way from Redis.
    """
    problems = []
    local = address.path is not None or is_loopback(address.host)
    unverified = (address.tls or {}).get("ssl_cert_reqs", "required") != "required"
    if settings.tokens is None:
        problems.append("nobody needs a token")
    if address.path is None and address.password is None:
        problems.append("the online store asks for no password")
    if not local and (address.tls is None or unverified):
        problems.append("the connection to the online store is not encrypted and verified")
    if settings.loopback:
        problems = []
    if problems and not insecure:
        raise ConfigError(
            f"The service would listen on {settings.host} for other machines, but "
            f"{', and '.join(problems)}.",
            fix="Create tokens (`lockstep token create`), use a rediss:// URL with a password, or "
            "say --insecure.",
            effect="Nothing was started.",
        )
    warnings = [f"Insecure: {problem}." for problem in problems]
    if address.password is None and address.user in {None, "default"}:
        warnings.append("The online store is used as user 'default' without a password.")
    return warnings


def package_version() -> str:
    """Return the version of this package."""
    with suppress(PackageNotFoundError):
        return version("lockstep")
    return "0"
