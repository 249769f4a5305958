"""Where things are: `[tool.lockstep]` of pyproject.toml, and the environment that overrides it."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.errors import ConfigError
from lockstep.schema import NAME
from lockstep.time import zone_named

_SETTINGS: Final = frozenset(
    {
        *("views", "root", "time_zone", "namespace", "redis_url", "land", "serving", "alerts"),
        "dagster_url",
    }
)


@dataclass(frozen=True)
class Project:
    """The settings of one project; every path in it is absolute or `s3://…`.

    Attributes:
        folder: The folder of pyproject.toml; `lockstep` commands work from anywhere below it.
        views: Package that holds entities, sources and view files.
        root: The lake (`LOCKSTEP_ROOT` overrides): a folder or `s3://bucket/prefix`.
        zone: Time zone whose civil dates are the partitions.
        namespace: First part of every Redis key, `LOCKSTEP_ENV` included.
        redis_url: The online store (`LOCKSTEP_REDIS_URL` overrides); None is the embedded server.
        land: `module:function` that `lockstep land` calls, if the project has one.
        serving: The table `[tool.lockstep.serving]`; `lockstep.serving.settings` reads it.
        alerts: The table `[tool.lockstep.alerts]`; `lockstep.alerts.settings` reads it.
        dagster_url: Where Dagster's UI answers, for links to runs; None if nobody said.
    """

    folder: Path
    views: str
    root: str
    zone: ZoneInfo
    namespace: str
    redis_url: str | None
    land: str | None
    serving: Mapping[str, Any] = field(default_factory=dict, compare=False)
    alerts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    dagster_url: str | None = None

    @property
    def landing(self) -> str:
        """The landing zone: one folder per source and snapshot."""
        return f"{self.root}/landing"

    @property
    def state(self) -> Path:
        """Local folder for Dagster's storage and the embedded server."""
        return self.folder / ".lockstep"


def find_project(start: str | Path | None = None) -> Project:
    """Read the nearest pyproject.toml with a `[tool.lockstep]` table, at or above `start`.

    `LOCKSTEP_PROJECT` names the folder instead, if it is set and `start` is not given.

    Raises:
        ConfigError: There is none, or a setting is unknown, missing or wrong.
    """
    begin = Path(start or os.environ.get("LOCKSTEP_PROJECT") or Path.cwd()).resolve()
    for folder in (begin, *begin.parents):
        settings = _settings(folder / "pyproject.toml")
        if settings is not None:
            return _project(folder, settings)
    raise ConfigError(
        f"No Lockstep project at or above {begin}.",
        expected="a pyproject.toml with a [tool.lockstep] table",
        fix="Change into the project's folder, or set LOCKSTEP_PROJECT to it.",
    )


def _settings(file: Path) -> Mapping[str, Any] | None:
    if not file.is_file():
        return None
    found = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("lockstep")
    return found if isinstance(found, dict) else None


def _project(folder: Path, settings: Mapping[str, Any]) -> Project:
    unknown = sorted(settings.keys() - _SETTINGS)
    missing = sorted({"views", "root", "time_zone"} - settings.keys())
    if unknown or missing:
        raise ConfigError(
            f"[tool.lockstep] in {folder / 'pyproject.toml'} is wrong.",
            expected=f"settings out of {sorted(_SETTINGS)}",
            got=f"unknown {unknown}, missing {missing}",
            fix="Correct the names.",
        )
    root = os.environ.get("LOCKSTEP_ROOT") or str(settings["root"])
    environment = os.environ.get("LOCKSTEP_ENV") or "dev"
    namespace = str(settings.get("namespace", "lockstep"))
    for name in (environment, namespace):
        if not NAME.match(name):
            raise ConfigError(
                f"{name!r} can't be part of a Redis key.",
                expected="lower-case letters, digits and underscores",
                fix="Correct LOCKSTEP_ENV or namespace in [tool.lockstep].",
            )
    return Project(
        folder=folder,
        views=str(settings["views"]),
        root=root.rstrip("/") if "://" in root else str((folder / root).resolve()),
        zone=zone_named(str(settings["time_zone"])),
        namespace=f"{namespace}:{environment}",
        redis_url=os.environ.get("LOCKSTEP_REDIS_URL") or settings.get("redis_url"),
        land=settings.get("land"),
        serving=settings.get("serving", {}),
        alerts=settings.get("alerts", {}),
        dagster_url=settings.get("dagster_url"),
    )


@cache
def _partition_zone() -> str:
    return find_project().zone.key


def local(column: str) -> pl.Expr:
    """Return an instant column as wall-clock time of the project's partition zone.

    For features like the hour of day: `local("event_time").dt.hour()`.
    """
    return pl.col(column).dt.convert_time_zone(_partition_zone())
