"""Several processes on one port: started, started again when one dies, and stopped together.

The kernel shares connections out (SO_REUSEPORT). Worker i also listens on the port `port + 1 + i`,
so that each can be scraped: their counters are their own.

The first worker is started alone, so that what keeps the service from starting is said once. Later
deaths are no reason to stop: a worker is started again, each time in a row after a longer pause.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from lockstep.errors import ConfigError
from lockstep.serving.messages import LOGGER, configure_logging
from lockstep.serving.settings import ServingSettings

REFUSED: Final = 2
"""Exit status of a worker that a setting, or a port that is taken, keeps from starting."""
SETTLED_SECONDS: Final = 60.0
"""A worker that lived so long was well; what ends it is the first death in a row."""
LONGEST_PAUSE: Final = 30.0

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_TOLD_TO: Final = frozenset({0, *(-sig for sig in _STOPPING), 128 + signal.SIGINT})
"""How one ends that is told to, or was before it listened for it."""


def supervise(settings: ServingSettings, options: Sequence[str]) -> int:
    """Run the workers until SIGTERM or SIGINT; return 0 if all of them then ended well.

    If a worker can't even start, because of a setting or a port, it has said why: the others are
    stopped, and the status is 2.

    Args:
        options: Of `lockstep serve`, for each worker; its number is added.

    Raises:
        ConfigError: The port is 0: workers could not share it.
    """
    if settings.port == 0:
        raise ConfigError("Several workers need a port that is known.", fix="Name it: --port.")
    configure_logging()
    program = [sys.executable, "-m", "lockstep", "serve", *options, "--worker"]
    return asyncio.run(_Workers(settings.workers, program).run())


class Backoff:
    """How long to wait before something that has died is started again."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def pause(self, lived: float) -> float:
        """Return seconds: none after the first death in a row, then 1, 2, 4 and so on up to 30.

        Args:
            lived: Seconds between its last start and its death.
        """
        self._in_a_row = 1 if lived >= SETTLED_SECONDS else self._in_a_row + 1
        doublings = min(self._in_a_row - 2, 10)
        return 0.0 if doublings < 0 else min(2.0**doublings, LONGEST_PAUSE)


class _Workers:
    def __init__(self, count: int, program: Sequence[str]) -> None:
        self._count: Final = count
        self._program: Final = program
        self._stop: Final = asyncio.Event()
        self._ready: Final = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Run until told to stop, or until one can't start; return the status."""
        loop = asyncio.get_running_loop()
        for sig in _STOPPING:
            loop.add_signal_handler(sig, self._end)
        kept = [asyncio.create_task(self._keep(0))]
        others = asyncio.create_task(self._ready.wait())
        await asyncio.wait([*kept, others], return_when=asyncio.FIRST_COMPLETED)
        if not kept[0].done():
            kept += [asyncio.create_task(self._keep(index)) for index in range(1, self._count)]
        await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)
        self._end()
        others.cancel()
        return max(await asyncio.gather(*kept))

    def _end(self) -> None:
        self._stop.set()
        for worker in self._running.values():
            with suppress(ProcessLookupError):
                worker.terminate()

    async def _keep(self, index: int) -> int:
        """Keep one worker running; return the status of the last, once it is not started again."""
        backoff = Backoff()
        has_been_ready = False
        status = 0
        while not self._stop.is_set():
            began = monotonic()
            status, ready = await self._life(index)
            has_been_ready |= ready
            if self._stop.is_set():
                break
            if status == REFUSED and not has_been_ready:
                return REFUSED
            pause = backoff.pause(monotonic() - began)
            when = f"in {pause:g} s" if pause else "now"
            LOGGER.error("Worker %d ended with %d. It is started again %s.", index, status, when)
            status = 0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
        return 0 if status in _TOLD_TO else abs(status)

    async def _life(self, index: int) -> tuple[int, bool]:
        """Run a worker once; return its exit status, and whether it has answered requests."""
        own, its = socket.socketpair()
        with its:
            worker = await asyncio.create_subprocess_exec(
                *self._program, str(index), stdin=its.fileno()
            )
        self._running[index] = worker
        if self._stop.is_set():
            self._end()
        own.settimeout(0)
        with own:
            ready = bool(await asyncio.get_running_loop().sock_recv(own, 1))
            if ready:
                self._ready.set()
            status = await worker.wait()
        del self._running[index]
        return status, ready
