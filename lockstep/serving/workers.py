"""Several processes on one port: started, started again when one dies, and stopped together.

The kernel shares connections out (SO_REUSEPORT). Worker i also listens on the port `port + 1 + i`,
so that each can be scraped: their counters are their own.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Final

from lockstep.errors import ConfigError
from lockstep.serving.server import LOGGER
from lockstep.serving.settings import ServingSettings

_LOOK_SECONDS: Final = 0.5


def supervise(settings: ServingSettings, options: Sequence[str]) -> int:
    """Run the workers until SIGTERM or SIGINT; return 0 if all of them ended well.

    Args:
        options: Of `lockstep serve`, for each worker; its number is added.

    Raises:
        ConfigError: The port is 0: workers could not share it.
    """
    if settings.port == 0:
        raise ConfigError("Several workers need a port that is known.", fix="Name it: --port.")
    stopping = threading.Event()
    before = {sig: signal.signal(sig, lambda *_: stopping.set()) for sig in _STOPPING}
    running = {index: _start(options, index) for index in range(settings.workers)}
    try:
        while not stopping.wait(_LOOK_SECONDS):
            for index, worker in running.items():
                if worker.poll() is not None:
                    LOGGER.error("Worker %d ended with %s.", index, worker.returncode)
                    running[index] = _start(options, index)
    finally:
        for worker in running.values():
            worker.terminate()
        statuses = [worker.wait() for worker in running.values()]
        for sig, handler in before.items():
            signal.signal(sig, handler)
    return max(abs(status) for status in statuses)


_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


def _start(options: Sequence[str], index: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "lockstep", "serve", *options, "--worker", str(index)]
    return subprocess.Popen(command)  # noqa: S603 - this very program
