"""Feast in an environment of its own: what it pins would disturb ours."""

import subprocess
import sys
from pathlib import Path

FEAST = "feast[redis,duckdb,delta]==0.67.0"


def install_feast(work: Path) -> str:
    """The Python of an environment with Feast in the work folder, made if it is not there."""
    folder = work / "feast-environment"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603
        subprocess.run([str(python), "-m", "pip", "install", "-q", FEAST], check=True)  # noqa: S603
        (folder / "made").touch()
    return str(python)
