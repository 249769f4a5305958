"""Runs one contender alone in a process, watches its memory, and says how it ended."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import ROOT

LOOK_EVERY = 0.02  # seconds between two looks at a process's memory
KIB_PER_MB = 1024


class ChildFailedError(RuntimeError):
    """A process that must succeed did not."""


def run(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    python: str = sys.executable,
    patience: float = 900,
    memory: int | None = None,
) -> dict[str, Any]:
    """Run `python -m module arguments`, which prints one JSON object at last.

    Args:
        log: Where all that it prints goes.
        patience: Seconds after which it is ended.
        memory: Bytes of its own (mapped files are left out) above which it is ended.

    Returns:
        What it printed and "process_s", from its start to its end; or "failed", in words, with
        "peak_rss_mb", the most that it was seen to hold.
    """
    command = [python, "-W", "ignore", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"}
    started = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)  # noqa: S603
    ended_for, most = _watch(process, patience, memory)
    seconds = time.perf_counter() - started
    text = log.read_text("utf-8", errors="replace")
    if ended_for or process.returncode:
        why = ended_for or _why(process.returncode, text)
        return {"failed": f"{why} after {seconds:.0f} s", "peak_rss_mb": round(most, 1)}
    said: dict[str, Any] = json.loads(text.rstrip().rpartition("\n")[2])
    return said | {"process_s": round(seconds, 3)}


def run_here(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Do the same work in this process, which nobody watches, and say the same of it."""
    path, started = list(sys.path), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said: dict[str, Any] = importlib.import_module(module).work(*arguments)
    finally:
        # A project that is opened puts its folder there.
        sys.path[:] = path
    return said | {"process_s": round(time.perf_counter() - started, 3)}


def require(found: dict[str, Any], what: str) -> dict[str, Any]:
    """Return what a process said, if it succeeded.

    Raises:
        ChildFailedError: It did not.
    """
    if "failed" in found:
        raise ChildFailedError(f"{what}: {found['failed']}")
    return found


def _watch(
    process: "subprocess.Popen[bytes]", patience: float, memory: int | None
) -> tuple[str, float]:
    """Wait for the end; why it was brought about, if it was, and the most memory seen, in MiB."""
    started, most = time.perf_counter(), 0.0
    try:
        while process.poll() is None:
            own, whole = _held_kib(process.pid)
            most = max(most, whole / KIB_PER_MB)
            if memory is not None and own * 1024 > memory:
                return f"ended: it held more than {memory / 1e9:.3g} GB", most
            if time.perf_counter() - started > patience:
                return "ended: too slow", most
            time.sleep(LOOK_EVERY)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    return "", most


def _held_kib(pid: int) -> tuple[int, int]:
    """Memory of its own and all of it, mapped files included; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    found = dict(line.split(":", 1) for line in lines)
    own, whole = (int(found.get(name, "0 kB").split()[0]) for name in ("RssAnon", "VmRSS"))
    return own, whole


def _why(code: int, text: str) -> str:
    """Words for the end of a process that nobody here brought about."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    last = (errors or lines)[-1:]
    return f"failed: {last[0][:200]}" if last else f"failed with code {code}"
