"""What Dagster kept of a run's output on this machine: the files, and the lines about one view."""

import os
from pathlib import Path
from typing import Final

from lockstep.project import Project
from lockstep.why.facts import Log

_TAIL: Final = 256 * 1024
_LINES: Final = 6
_QUIET: Final = " - DEBUG - "
"""What Dagster says of its own steps and objects."""
_LOUD: Final = (" - WARNING - ", " - ERROR - ", " - CRITICAL - ")


def logs_of(project: Project, run_id: str, view: str) -> list[Log]:
    """Return the run's logs that are not empty, those with lines about the view first.

    They are where dagster.yaml of this project puts them, below `.lockstep/`; logs that are kept
    elsewhere, on S3 for instance, are in the UI only.
    """
    if not run_id or Path(run_id).name != run_id:
        return []
    folder = project.state / "dagster" / "compute_logs" / run_id / "compute_logs"
    files = sorted(folder.glob("*.err")) + sorted(folder.glob("*.out"))
    found = [Log(str(file), _lines_about(file, view)) for file in files if file.stat().st_size]
    return sorted(found, key=lambda log: not log.lines)


def _lines_about(file: Path, view: str) -> list[str]:
    """Return the last lines that name the view, warnings and errors before anything else."""
    with file.open("rb") as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL))
        lines = opened.read().decode("utf-8", "replace").splitlines()
    about = [line for line in lines if view in line and _QUIET not in line]
    loud = [line for line in about if any(word in line for word in _LOUD)]
    return (loud or about)[-_LINES:]
