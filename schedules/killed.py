"""Runs whose process was killed: found by the next one, which marks them as failed.

Dagster watches the runs that its daemon launches; one that `schedules.run` executes has nobody. It
says in a tag which process it is, in words that no later process on any machine can repeat.
"""

import os
import socket
from pathlib import Path
from typing import Final

import dagster as dg

PROCESS_TAG: Final = "lockstep/process"
_STARTED: Final = 19  # position of the start time after the name, see proc(5)


def process_tag() -> dict[str, str]:
    """Return the tag that names this process: host, boot, number, and when it began."""
    return {PROCESS_TAG: f"{_machine()}:{os.getpid()}:{_began(os.getpid())}"}


def fail_killed_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process on this machine is gone; return their ids."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED]
    killed = [
        run
        for run in instance.get_runs(filters=dg.RunsFilter(statuses=unfinished))
        if PROCESS_TAG in run.tags and _is_gone(run.tags[PROCESS_TAG])
    ]
    for run in killed:
        instance.report_run_failed(
            run, "Its process was killed. What was committed stays; running it again completes it."
        )
        if instance.event_log_storage.supports_global_concurrency_limits:
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in killed]


def _is_gone(tag: str) -> bool:
    host, boot, number, began = tag.split(":")
    if host != socket.gethostname():
        return False  # another machine's: it can't be seen from here
    return f"{host}:{boot}" != _machine() or _began(int(number)) != began


def _machine() -> str:
    return f"{socket.gethostname()}:{_read('/proc/sys/kernel/random/boot_id')}"


def _began(number: int) -> str:
    """Return when a process began, in ticks since the boot; empty if there is none."""
    # The name in parentheses may hold spaces, so count from behind it.
    fields = _read(f"/proc/{number}/stat").rpartition(")")[2].split()
    return fields[_STARTED] if len(fields) > _STARTED else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
