"""What stands in the way of the promises, before it does: the store, the lake, the machine.

Every check has a stable code, says what it saw in one sentence, and what to do. Nothing is written,
except a probe object on S3 that is deleted again.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from lockstep.advice import Advice, ok, worst_first
from lockstep.doctor_online import examine_online
from lockstep.errors import LockstepError
from lockstep.lake import Lake
from lockstep.project import Project
from lockstep.stores.redis import OnlineStore
from lockstep.time import instant_of
from lockstep.view import FeatureView

LEFT_BEHIND: Final = timedelta(hours=24)
"""Temporary files older than this belong to nobody any more."""

_STAGED: Final = "offline/_rebuild"
_TEMPORARY: Final = re.compile(r"^\.lockstep-tmp-|\.parquet#\d+$")
_QUIET: Final = timedelta(hours=1)
_FEW_BYTES: Final = 2**30
_FEW: Final = 0.1
_NO_BYTES: Final = 2**28
_TELEMETRY_OFF: Final = re.compile(
    r"^telemetry:[ \t]*\n(?:[ \t]+.*\n)*?[ \t]+enabled:[ \t]*false\b", re.MULTILINE
)


def examine(
    lake: Lake,
    open_online: Callable[[], tuple[OnlineStore, str]],
    views: Sequence[FeatureView],
    *,
    now: Callable[[], datetime],
    left_behind: timedelta = LEFT_BEHIND,
) -> list[Advice]:
    """Return the results of every check, what must be put right first.

    Args:
        open_online: Returns the online store and its URL, or raises why there is none.
        left_behind: How old a temporary file must be to belong to nobody.
    """
    found: list[Advice] = []
    try:
        found += examine_online(*open_online(), views, now=now)
    except LockstepError as error:
        found.append(Advice("online-reachable", "broken", error.culprit, error.fix or ""))
    found += examine_lake(lake, views, now(), left_behind)
    found += examine_machine(lake.project)
    return worst_first(found)


def examine_lake(
    lake: Lake, views: Sequence[FeatureView], now: datetime, left_behind: timedelta = LEFT_BEHIND
) -> Iterator[Advice]:
    """Yield what is to be said of the lake."""
    try:
        lake.require_safe_commits()
    except LockstepError as error:
        yield Advice("lake-commits", "broken", error.culprit, error.fix or "")
        return
    yield ok("lake-commits", f"Of two writers of one version, {lake.place.uri} lets one win.")
    yield from _tables(lake, views)
    yield _rebuilds(lake, now)
    if not lake.place.remote:
        yield _leftovers(Path(lake.place.uri), now - left_behind)


def _tables(lake: Lake, views: Sequence[FeatureView]) -> Iterator[Advice]:
    damaged = 0
    for view in views:
        try:
            lake.table(view).head_or_none()
        except LockstepError as error:
            damaged += 1
            yield Advice("lake-tables", "broken", f"{view.name}: {error.culprit}", error.fix or "")
    if not damaged:
        yield ok("lake-tables", "The log of every view's table can be read.")


def _rebuilds(lake: Lake, now: datetime) -> Advice:
    newest: dict[str, datetime] = {}
    for info in lake.place.list(_STAGED):
        name = info.path.removeprefix(f"{_STAGED}/").partition("/")[0]
        changed = instant_of(info.modified_ns // 1000)
        newest[name] = max(changed, newest.get(name, changed))
    stopped = sorted(name for name, changed in newest.items() if now - changed > _QUIET)
    if not stopped:
        return ok("lake-rebuilds", "No rebuild was left unfinished.")
    return Advice(
        "lake-rebuilds",
        "advice",
        f"A rebuild was interrupted: {', '.join(stopped)}. Everybody reads what was before.",
        f"Finish it: lockstep materialize {stopped[0]} --rebuild",
    )


def _leftovers(root: Path, before: datetime) -> Advice:
    left: list[Path] = []
    size = 0
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names if _TEMPORARY.search(name)):
            try:
                status = path.stat()
            except FileNotFoundError:  # its writer has just finished
                continue
            if instant_of(status.st_mtime_ns // 1000) < before:
                left.append(path)
                size += status.st_size
    if not left:
        return ok("lake-leftovers", "No killed process has left a temporary file.")
    return Advice(
        "lake-leftovers",
        "advice",
        f"{len(left)} temporary files ({size / 2**20:,.1f} MiB) of killed processes, e.g. "
        f"{min(left)}.",
        "Delete them: nothing reads them, and nobody writes them any more.",
    )


def examine_machine(project: Project) -> Iterator[Advice]:
    """Yield what is to be said of this machine and of Dagster's home on it."""
    yield _space(project)
    settings = project.folder / "dagster.yaml"
    home = os.environ.get("DAGSTER_HOME")
    if not settings.is_file():
        yield Advice(
            "dagster-home",
            "advice",
            f"There is no dagster.yaml in {project.folder}, so Dagster forgets what it ran.",
            "Copy the reference project's dagster.yaml there.",
        )
        return
    if home and Path(home).resolve() != project.folder.resolve():
        yield Advice(
            "dagster-home",
            "advice",
            f"DAGSTER_HOME is {home}, not the project's folder: its dagster.yaml is not in force.",
            f"export DAGSTER_HOME={project.folder}",
        )
    elif not (project.state / "dagster").is_dir() and "base_dir: .lockstep/dagster" in (
        settings.read_text(encoding="utf-8")
    ):
        yield Advice(
            "dagster-home",
            "advice",
            "Dagster's storage has not been created yet; several processes at once fail at it.",
            "Start one process first: lockstep ui",
        )
    else:
        yield ok("dagster-home", f"{settings} is in force.")
    if _TELEMETRY_OFF.search(settings.read_text(encoding="utf-8")):
        yield ok("dagster-telemetry", "Dagster reports nothing to its makers.")
    else:
        yield Advice(
            "dagster-telemetry",
            "advice",
            "Dagster reports usage to its makers.",
            f"In {settings}: telemetry, enabled: false",
        )


def _space(project: Project) -> Advice:
    local = "://" not in project.root
    place = Path(project.root) if local else project.state
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    said = f"{usage.free / 2**30:,.1f} GiB of {usage.total / 2**30:,.1f} are free at {place}."
    fix = "Make room before a run fails: nothing of it would be committed."
    if usage.free < _NO_BYTES:
        return Advice("disk-space", "broken", said, fix)
    if usage.free < min(_FEW_BYTES, usage.total * _FEW):
        return Advice("disk-space", "advice", said, fix)
    return ok("disk-space", said)
