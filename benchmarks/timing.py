"""Percentiles and the closed loop. Standard library only: Feast's environment imports it too."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WARM_UP = 20  # requests before anything is timed


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of an ascending sequence does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, 99th percentile and maximum of durations, in milliseconds, and how many there are."""
    if not seconds:
        return {"n": 0}
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "p50_ms": round(percentile(ordered, 0.5) * 1000, 4),
        "p99_ms": round(percentile(ordered, 0.99) * 1000, 4),
        "max_ms": round(ordered[-1] * 1000, 4),
    }


def closed_loop(
    call: Callable[[Any], Any], requests: Sequence[Any], seconds: float
) -> dict[str, Any]:
    """Call with one request after the other for some seconds; `spread` and calls per second."""
    for request in requests[:WARM_UP]:
        call(request)
    taken: list[float] = []
    begin = time.perf_counter()
    while (started := time.perf_counter()) - begin < seconds:
        call(requests[len(taken) % len(requests)])
        taken.append(time.perf_counter() - started)
    return {**spread(taken), "per_s": round(len(taken) / (time.perf_counter() - begin), 1)}


def paced_loop(
    call: Callable[[Any], Any], requests: Sequence[Any], rate: float, until: Callable[[], bool]
) -> dict[str, Any]:
    """Call at a steady rate until told to stop, never leaving out a request that is overdue.

    Returns:
        "due" and "took": per call the instant it was due (on the clock that all processes of a
        machine share) and the seconds from then to its answer.
    """
    for request in requests[:WARM_UP]:
        call(request)
    instants: list[float] = []
    took: list[float] = []
    begin = time.perf_counter()
    while not until():
        due = begin + len(took) / rate
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        call(requests[len(took) % len(requests)])
        took.append(time.perf_counter() - due)
        instants.append(due)
    return {"due": instants, "took": took}


def middle(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number over rounds; what is no number is taken from the last round."""
    found: dict[str, Any] = {}
    for name, last in rounds[-1].items():
        values = [one[name] for one in rounds if name in one]
        number = isinstance(last, int | float) and not isinstance(last, bool)
        found[name] = round(statistics.median(values), 4) if number else last
    if len(rounds) > 1:
        found["rounds"] = len(rounds)
    return found


def peak_rss_mb() -> float:
    """The most memory that this process ever held, in MiB (VmHWM)."""
    return _status_mb("VmHWM")


def rss_mb() -> float:
    """The memory that this process holds, in MiB."""
    return _status_mb("VmRSS")


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0
