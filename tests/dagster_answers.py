"""Waiting for a Dagster server that a test has started."""

import subprocess
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest


def answering(address: str, child: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until it answers; fail with its log if it ends first, or takes four minutes."""
    for _ in range(1200):
        try:
            with urlopen(f"{address}/server_info", timeout=5):  # noqa: S310 - loopback
                return address
        except URLError:
            try:
                child.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            break
    pytest.fail(f"it did not answer:\n{log.read_text(encoding='utf-8', errors='replace')}")
