"""Measures how well shifts by a time zone are found in 1,000 simulated feeds.

Every feed is judged every day, as the check does; those whose arrival is known also by their hours
alone and by their arrival alone. Prints tables to standard output, progress to standard error, and
writes JSON.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import load, machine
from benchmarks.zones import document
from benchmarks.zones.bench import FEEDS, QUICK_FEEDS, Judging, Watched, compared, summed_up, watch
from benchmarks.zones.feeds import make_feed

TELL_EVERY = 50


def run(feeds: int) -> dict[str, Any]:
    """What the JSON file says of so many feeds."""
    began, loads = datetime.now(UTC), [load()]
    watched: list[Watched] = []
    known: dict[str, list[Watched]] = {}
    for seed in range(feeds):
        feed = make_feed(seed)
        judging = Judging(feed)
        watched.append(watch(feed, way=judging.by_both))
        ways = {
            "hours and arrival": judging.by_both,
            "hours alone": judging.by_hours,
            "arrival alone": judging.by_arrival,
        }
        for name, way in ways.items() if feed.arrival != "unknown" else ():
            known.setdefault(name, []).append(watch(feed, way=way))
        if (seed + 1) % TELL_EVERY == 0:
            loads.append(load())
            print(f"{seed + 1} of {feeds} feeds", file=sys.stderr, flush=True)
    return {
        "machine": machine(("numpy", "polars")),
        "at": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
        "load_average": {"median": sorted(loads)[len(loads) // 2], "most": max(loads)},
        "feeds": feeds,
        "quick": feeds != FEEDS,
        "groups": summed_up(watched),
        "arrival_known": compared(known),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.zones", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 feeds: shows that it runs")
    parser.add_argument("--feeds", type=int, help="how many feeds")
    parser.add_argument(
        "--out", type=Path, help="JSON file; benchmarks/results/zones.json of a full run"
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the tables into the page"
    )
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        document.SECTION.write()
        return 0
    feeds = asked.feeds or (QUICK_FEEDS if asked.quick else FEEDS)
    out = asked.out or (document.RESULTS if feeds == FEEDS else None)
    found = run(feeds)
    print(document.tables(found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
