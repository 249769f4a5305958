"""What `lockstep slo export` writes: the files, and whether those in a folder are the same."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lockstep.alerts.settings import AlertSettings
from lockstep.errors import StoreError
from lockstep.serving.telemetry import BUCKETS
from lockstep.slo.alerting import Alerting
from lockstep.slo.dashboard import dashboard
from lockstep.slo.objectives import objectives
from lockstep.slo.panels import rows
from lockstep.slo.rules import groups, rules
from lockstep.slo.runbook_index import runbook_index
from lockstep.view import FeatureView

FOLDER: Final = "deploy/slo"
RULES: Final = "lockstep.rules.yml"
DASHBOARD: Final = "lockstep.dashboard.json"
INDEX: Final = "runbooks.md"


def exported(views: Iterable[FeatureView], settings: AlertSettings, up: str = "") -> dict[str, str]:
    """Return file name → content; equal contracts and settings give equal bytes.

    Args:
        settings: Who answers for the service, and where runbooks are.
        up: Relative path from the folder of the files to the project's, ending in a slash; empty
            if they are the same.

    Raises:
        ConfigError: There is no view.
        DeclarationError: A view promises what cannot be measured.
    """
    promised = objectives(views, BUCKETS, settings.owner)
    alerting = Alerting(settings.runbooks)
    return {
        RULES: rules(promised, alerting),
        DASHBOARD: dashboard(rows(promised)),
        INDEX: runbook_index(groups(promised, alerting), up),
    }


def way_up(folder: Path, project: Path) -> str:
    """Return what leads from a folder to the project's, for links; it ends in a slash."""
    way = Path(os.path.relpath(project, folder)).as_posix()
    return "" if way == "." else f"{way}/"


def differing(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return name → "missing" or "differs", of those files that are not in the folder as given."""
    found = {}
    for name, content in files.items():
        try:
            there: bytes | None = (folder / name).read_bytes()
        except FileNotFoundError:
            there = None
        except OSError as error:
            raise _refusal(folder / name, error, "read") from error
        if there != content.encode():
            found[name] = "missing" if there is None else "differs"
    return found


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files into a folder, which is made if it is not there.

    Raises:
        StoreError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content.encode())
    except OSError as error:
        raise _refusal(folder, error, "written") from error


def _refusal(place: Path, error: OSError, verb: str) -> StoreError:
    return StoreError(
        f"{place} cannot be {verb}: {error.strerror}.",
        fix="Correct its permissions, or name another folder with --out.",
    )
