"""What the numbers were measured on, and how busy it was meanwhile."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """CPU model and number, memory, kernel, and versions of packages."""
    model = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(line for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(int(memory.split()[1]) / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "commit": _commit(),
    }


def load() -> float:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
