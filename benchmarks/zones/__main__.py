"""Measures how well shifts by a time zone are found in 1,000 simulated feeds.

Every feed is judged every day, as the check does. Prints a table to standard output, progress to
standard error, and writes JSON.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.table import grid
from benchmarks.zones.bench import FEEDS, QUICK_FEEDS, summed_up, watch
from benchmarks.zones.feeds import make_feed

RESULTS = Path(__file__).parents[1] / "results" / "zones.json"
TELL_EVERY = 100
HEADS = ("feeds", "n", "hits", "right offset", "a week later", "days to the alarm", "false alarms")


def run(feeds: int) -> dict[str, Any]:
    """What the JSON file says of so many feeds."""
    watched = []
    for seed in range(feeds):
        watched.append(watch(make_feed(seed)))
        if (seed + 1) % TELL_EVERY == 0:
            print(f"{seed + 1} of {feeds} feeds", file=sys.stderr, flush=True)
    return {"feeds": feeds, "groups": summed_up(watched)}


def shown(found: dict[str, Any]) -> str:
    """The table."""
    lines = [
        [
            name,
            str(group["feeds"]),
            _share(group["hits"]),
            _share(group["right_at_once"]),
            _share(group["right_in_a_week"]),
            "" if group["median_days"] is None else f"{group['median_days']:g}",
            _share(group["false_alarms"]),
        ]
        for name, group in found["groups"].items()
    ]
    return grid(HEADS, lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.zones", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 feeds: shows that it runs")
    parser.add_argument("--feeds", type=int, help="how many feeds")
    parser.add_argument(
        "--out", type=Path, help="JSON file; benchmarks/results/zones.json of a full run"
    )
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    feeds = asked.feeds or (QUICK_FEEDS if asked.quick else FEEDS)
    out = asked.out or (RESULTS if feeds == FEEDS else None)
    began = datetime.now(UTC)
    found = run(feeds)
    print(shown(found))
    if out is not None:
        seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
        told = {"machine": machine(("numpy", "polars")), "seconds": seconds, **found}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
