"""Measures how soon a dropped conversion is found in the replayed real data, and named how well.

From some day on the stores' wall clock is stored where UTC was, as `make incident` breaks it; begun
anew on every third day of a year. Every one of its nights without a shift is judged, too. Prints a
table, and writes JSON.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from benchmarks.machine import load, machine
from benchmarks.page import ROOT, Section, on_what
from benchmarks.table import grid
from demo.replay import ZONE, land
from lockstep.day_shape import SLOT_MINUTES, SLOTS, DayShape, Floats, hours_of, offset_slots
from lockstep.time import days_between
from lockstep.zone_shift import ZoneShift, judge

RESULTS: Final = ROOT / "benchmarks" / "results" / "zones_real.json"
LAST: Final = date(2026, 11, 20)
DAYS: Final = 313
QUICK_DAYS: Final = 90
EVERY: Final = 3
BEFORE: Final = 60
"""So many days are known before the shift begins."""
NIGHTS: Final = 5
LATER: Final = 7
HEADS: Final = ("told", "at once", "a week later")
WORDS: Final = ("one offset, right", "several, the likeliest right", "several, right among them")
WRONG: Final = ("one offset, wrong", "several, all wrong", "nothing")

Counts = dict[date, Floats]


def counted(folder: Path, first: date, last: date) -> tuple[Counts, dict[date, Counts]]:
    """Return the hours of every day; and day → the days that its rows land on if it is shifted."""
    land(folder, first, last)
    zone, right, wrong = ZoneInfo(ZONE), dict[date, Floats](), dict[date, Counts]()
    for day in days_between(first, last):
        read = pl.read_parquet(folder / "transactions" / f"{day}.parquet")
        times = read["transaction_timestamp"].dt.replace_time_zone("UTC")
        if times.is_empty():
            continue
        right[day] = np.array(hours_of(times, zone), dtype=np.float64)
        as_utc = times.dt.convert_time_zone(ZONE).dt.replace_time_zone(None)
        stored = as_utc.dt.replace_time_zone("UTC").alias("at").to_frame()
        days = stored.with_columns(day=pl.col("at").dt.convert_time_zone(ZONE).dt.date())
        wrong[day] = {
            lands: np.array(hours_of(part["at"], zone), dtype=np.float64)
            for (lands,), part in days.partition_by("day", as_dict=True).items()
        }
    return right, wrong


def shapes(counts: Mapping[date, Floats]) -> list[DayShape]:
    """Return days as the check sees them."""
    zone = ZoneInfo(ZONE)
    return [DayShape(day, counts[day], offset_slots(day, zone)) for day in sorted(counts)]


def shifted(right: Counts, wrong: Mapping[date, Counts], days: Sequence[date], at: int) -> Counts:
    """Return the hours of the days if the shift begins with the one at that place."""
    found = {day: right[day].copy() for day in days[:at]}
    for day in days[at:]:
        for lands, counts in wrong[day].items():
            found[lands] = found.get(lands, np.zeros(SLOTS)) + counts
    return found


def told(found: ZoneShift | None, day: date) -> str:
    """Return how well the offset of a day was named, in words."""
    truth = offset_slots(day, ZoneInfo(ZONE)) * SLOT_MINUTES
    if found is None:
        return WRONG[2]
    if found.offset_minutes == truth:
        return WORDS[1] if found.others else WORDS[0]
    if truth in found.others:
        return WORDS[2]
    return WRONG[1] if found.others else WRONG[0]


def run(days: int) -> dict[str, Any]:
    """What the JSON file says."""
    began, loads = datetime.now(UTC), [load()]
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        right, wrong = counted(Path(folder), LAST - timedelta(days=days), LAST)
    every, zone = sorted(right), ZoneInfo(ZONE)
    nights, at_once, later = Counter[str](), Counter[str](), Counter[str]()
    for at in range(BEFORE, len(every) - NIGHTS - LATER, EVERY):
        known = every[at - BEFORE :]

        def after(night: int, known: Sequence[date] = known) -> ZoneShift | None:
            seen = known[: BEFORE + night]
            return judge("real", shapes(shifted(right, wrong, seen, BEFORE)), zone, "UTC")

        hit = next(((night, one) for night in range(1, NIGHTS + 1) if (one := after(night))), None)
        nights[str(hit[0]) if hit else "more"] += 1
        if hit:
            at_once[told(hit[1], known[BEFORE + hit[0] - 1])] += 1
            later[told(after(hit[0] + LATER), known[BEFORE + hit[0] + LATER - 1])] += 1
    clean = [
        judge(
            "real", shapes({day: right[day] for day in every[max(0, n - BEFORE) : n]}), zone, "UTC"
        )
        for n in range(EVERY * 5, len(every) + 1)
    ]
    loads.append(load())
    return {
        "machine": machine(("numpy", "polars")),
        "at": began.isoformat(timespec="seconds"),
        "load_average": {"median": loads[0], "most": max(loads)},
        "quick": days != DAYS,
        "beginnings": sum(nights.values()),
        "nights": dict(sorted(nights.items())),
        "at_once": dict(at_once),
        "a_week_later": dict(later),
        "clean_nights": len(clean),
        "false_alarms": sum(found is not None for found in clean),
    }


def block(found: Mapping[str, Any]) -> str:
    """What stands in the page between the marks."""
    nights = ", ".join(f"{count} after {night}" for night, count in found["nights"].items())
    words = [
        *on_what(found),
        f"{found['beginnings']} beginnings: {nights} nights;",
        f"{found['false_alarms']} false alarms in {found['clean_nights']} nights without a shift.",
        "",
    ]
    lines = [
        [word, str(found["at_once"].get(word, 0)), str(found["a_week_later"].get(word, 0))]
        for word in (*WORDS, *WRONG)
    ]
    return "\n".join([*words, grid(HEADS, lines)]) + "\n"


SECTION = Section("zones.real", RESULTS, block)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.zones.real", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three months: shows that it runs")
    parser.add_argument("--out", type=Path, help=f"JSON file; {RESULTS.name} of a full run")
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; write the table into the page"
    )
    asked = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if asked.document:
        SECTION.write()
        return 0
    found = run(QUICK_DAYS if asked.quick else DAYS)
    out = asked.out or (None if asked.quick else RESULTS)
    print(block(found))
    if out is not None:
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
