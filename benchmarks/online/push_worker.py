"""One push by Lockstep, alone in a process: `push_worker PROJECT`.

The online store is the one that the environment names.
"""

import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.online.talk import answer
from benchmarks.timing import peak_rss_mb, rss_mb
from lockstep.project import find_project
from lockstep.push import push
from lockstep.store import Store
from lockstep.throttle import Throttle


class EnoughError(Exception):
    """The push was given its time."""


def main() -> None:
    """Answer the benchmark's questions."""
    store = Store(find_project(Path(sys.argv[1])))
    imported = rss_mb()

    def timed(
        view: str, *, throttled: bool = False, most_seconds: float = math.inf
    ) -> dict[str, Any]:
        of = store.catalog.view(view)
        throttle = Throttle(time.monotonic, time.sleep) if throttled else None
        acknowledged = 0

        def count(rows: int) -> None:
            nonlocal acknowledged
            acknowledged += rows
            if time.perf_counter() - started > most_seconds:
                raise EnoughError

        started = time.perf_counter()
        receipt: dict[str, Any] = {}
        with suppress(EnoughError):
            pushed = push(
                store.lake,
                store.online_store,
                of,
                now=store.now,
                on_rows=count,
                throttle=throttle,
            )
            receipt = asdict(pushed.receipt)
        seconds = time.perf_counter() - started
        return {
            "rows": acknowledged,
            "whole": bool(receipt),
            "seconds": seconds,
            "rows_per_s": round(acknowledged / seconds),
            "peak_rss_mb": peak_rss_mb(),
            "imported_rss_mb": imported,
            "began": started,
            "ended": started + seconds,
            "buckets": len(receipt.pop("sealed", ())),
            **{name: count for name, count in receipt.items() if isinstance(count, int)},
        }

    answer({"ready": lambda: True, "push": timed})


if __name__ == "__main__":
    main()
