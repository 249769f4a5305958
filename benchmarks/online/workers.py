"""Starts the processes that do the measured work, asks them, and ends them by their own ids."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.page import ROOT

PATIENCE = 900.0  # seconds for one answer: Feast materializes a million rows in about 80


class WorkerFailedError(RuntimeError):
    """A worker ended, kept silent or reported an error."""


class Process:
    """A process of this benchmark with its output in a log file; ended when the block ends."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        *,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        self.log, self.command = log, " ".join(command)
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(  # noqa: S603 - commands of this package
                command,
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=pipe,
                stdout=pipe if talks else sink,
                stderr=sink,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it: by the end of its input if it has one, else by SIGTERM, at last by SIGKILL."""
        if self.popen.stdin is None:
            self.popen.terminate()
        else:
            self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()

    def tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text("utf-8", errors="replace")[-1500:]


class Worker(Process):
    """A process that runs `talk.answer`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        python: str = sys.executable,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [python, "-W", "ignore", "-m", f"benchmarks.online.{module}", *arguments]
        super().__init__(command, log, cwd=cwd, environment=environment, talks=True)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask and wait for the answer."""
        self.start(do, **arguments)
        return self.result()

    def start(self, do: str, **arguments: Any) -> None:
        """Ask; `result` waits for the answer."""
        pipe: IO[bytes] = self.popen.stdin  # type: ignore[assignment]
        pipe.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        pipe.flush()

    def result(self) -> Any:
        """The answer to what was asked last.

        Raises:
            WorkerFailedError: It reports an error, ended, or is silent.
        """
        pipe: IO[bytes] = self.popen.stdout  # type: ignore[assignment]
        readable, _, _ = select.select([pipe], [], [], PATIENCE)
        line = pipe.readline() if readable else b""
        if not line:
            raise WorkerFailedError(f"{self.command} gave no answer: {self.tail()}")
        said = json.loads(line)
        if "error" in said:
            raise WorkerFailedError(f"{self.command}: {said['error']}")
        return said["ok"]


class SharedWorker(Worker):
    """A worker that several ask in turn, each of whom may close it: it goes on until `end`."""

    def close(self) -> None:
        """Leave it to the next one."""

    def end(self) -> None:
        """End it."""
        super().close()
