"""A child process of the project: its environment, its log, its events, and signals passed on.

The child is a session of its own, so that Ctrl-C reaches it once, through us; we wait for its end
whatever happens, and leave no process behind.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

from lockstep.project import Project

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_SECONDS: Final = 0.1
_TAIL_LINES: Final = 20


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: Its exit status; 128 + n if signal n ended it.
        signal: The first signal that was passed on to it; None if it ended by itself.
        log: Where its output is; None if that went to the terminal.
    """

    status: int
    signal: int | None
    log: Path | None

    @property
    def tail(self) -> str:
        """The last lines of the log."""
        if self.log is None:
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


def run_child(
    command: Sequence[str],
    *,
    project: Project,
    on_event: Callable[[Any], None],
    now: datetime,
) -> Ended:
    """Run a command in the project's folder until it ends; its output goes to a log of its own.

    Args:
        command: The program and its arguments.
        project: Gives the folder, and what the child finds in its environment.
        on_event: Called with every event that the child reports, in order.
        now: Names the log.
    """
    logs = project.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{now:%Y%m%dT%H%M%S}-{os.getpid()}.log"
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder, log.open("wb") as output:
        told = Path(folder) / "progress.jsonl"
        told.touch()
        environment = {**_environment(project), "LOCKSTEP_PROGRESS": str(told)}
        with told.open("rb") as events, _passing_signals_on() as passed:
            child = passed.start(command, project.folder, environment, output)
            while _waits(child):
                _hear(events, on_event)
            _hear(events, on_event)
    return _ended(child.returncode, passed.first, log)


def serve_child(command: Sequence[str], *, first: Sequence[str], project: Project) -> Ended:
    """Run `first`, whose output is not shown, then a command on this terminal until it ends."""
    environment = _environment(project)
    with _passing_signals_on() as passed:
        before = passed.start(first, project.folder, environment, subprocess.DEVNULL)
        before.wait()
        if passed.first is not None:
            return _ended(before.returncode, passed.first, None)
        child = passed.start(command, project.folder, environment, None)
        child.wait()
    return _ended(child.returncode, passed.first, None)


def _environment(project: Project) -> dict[str, str]:
    folder = str(project.folder)
    # The top-level dagster.yaml is in force only where DAGSTER_HOME is its folder.
    return {**os.environ, "DAGSTER_HOME": folder, "LOCKSTEP_PROJECT": folder}


def _waits(child: "subprocess.Popen[bytes]") -> bool:
    try:
        child.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _hear(events: IO[bytes], on_event: Callable[[Any], None]) -> None:
    """Take in the complete lines that were added; a line that is no JSON was cut off by a crash."""
    while True:
        start = events.tell()
        line = events.readline()
        if not line.endswith(b"\n"):
            events.seek(start)
            return
        try:
            event = json.loads(line)
        except ValueError:
            continue
        on_event(event)


def _ended(status: int, passed: int | None, log: Path | None) -> Ended:
    return Ended(status if status >= 0 else 128 - status, passed, log)


class _Passing:
    """Starts children and hands the signals that arrive to the one that runs."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        output: "IO[bytes] | int | None",
    ) -> "subprocess.Popen[bytes]":
        self._child = subprocess.Popen(  # noqa: S603 - our own command, no shell
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )
        if self.first is not None:  # it came while the child was being started
            self._child.send_signal(self.first)
        return self._child

    def arrived(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or number
        if self._child is not None:
            self._child.send_signal(number)


@contextmanager
def _passing_signals_on() -> Iterator[_Passing]:
    """Hand signals on while the block runs.

    A signal that has a handler here is at its default in a child, also where our own parent had us
    ignore it, as the shell does in the background: Dagster would then ignore it too.
    """
    passing = _Passing()
    ours = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, passing.arrived) for number in ours}
    try:
        yield passing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
