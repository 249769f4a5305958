"""Times a day's materialization, the parts of its audit alone, and a year of PSI."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from benchmarks.audit import data
from lockstep.compute import compute_day, load_inputs
from lockstep.drift import REFERENCE_DAYS, Drift, measure, references_of
from lockstep.ingest import ingest
from lockstep.lake import Lake
from lockstep.materialize import materialize
from lockstep.newcomers import Newcomers
from lockstep.pandera_schema import contract_failures
from lockstep.profile import ColumnProfile, profile
from lockstep.project import Project
from lockstep.quality import Earlier, audit
from lockstep.schema import Contract
from lockstep.soda import SodaSession
from lockstep.store import Store

AUDITED = ("profile", "contract", "soda", "drift")
"""What is held against the limit; keys, cardinality and new entities come on top."""
YEAR = "year"
VIEW = data.habits


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        customers: Rows of the days that are timed, and of the one before.
        few: Rows of each of the earlier days.
        earlier: Days that drift compares the timed ones with, besides the one before.
        rounds: Days that are timed.
        repeats: Times that each part is timed, per day.
        year: Days of the year of PSI.
    """

    customers: int = 1_000_000
    few: int = 50_000
    earlier: int = REFERENCE_DAYS
    rounds: int = 3
    repeats: int = 3
    year: int = 365


QUICK = Sizes(customers=3_000, few=500, earlier=6, rounds=1, repeats=1, year=5)


@dataclass
class Bench:
    """One lake, and what was found in it."""

    store: Store
    sizes: Sizes
    say: Callable[[str], None]

    @property
    def lake(self) -> Lake:
        """The lake."""
        return self.store.lake

    def materialize(self, numbers: Iterable[int]) -> None:
        """Materialize days in one run."""
        days = [data.day_of(number) for number in numbers]
        reader, now = self.store.reader(), self.store.now
        for outcome in materialize(self.lake, VIEW, days, reader, now=now):
            if outcome.status != "committed":
                raise RuntimeError(outcome.message)


def opened(folder: Path, sizes: Sizes, say: Callable[[str], None]) -> Bench:
    """Return the bench on an empty folder."""
    project = Project(
        folder=folder,
        views="bench",
        root=str(folder / "lake"),
        zone=ZoneInfo("UTC"),
        namespace="bench",
        redis_url="redis://127.0.0.1:1/0",
        land=None,
    )
    end = datetime.combine(data.day_of(400), datetime.min.time(), UTC)
    return Bench(Store(project, now=lambda: end), sizes, say)


def run(bench: Bench) -> dict[str, Any]:
    """Measure everything; seconds by name."""
    sizes = bench.sizes
    before, last = sizes.earlier, sizes.earlier + sizes.rounds
    bench.say(f"landing and ingesting {last + 1} days, {sizes.rounds + 1} of them large")
    for number in range(last + 1):
        landing = Path(bench.store.project.landing)
        data.land(landing, number, sizes.customers if number >= before else sizes.few)
    days = [data.day_of(number) for number in range(last + 1)]
    for outcome in ingest(bench.lake, data.PURCHASES, days, now=bench.store.now):
        if not outcome.certified:
            raise RuntimeError(outcome.message)
    bench.say("materializing the days before")
    bench.materialize(range(before + 1))
    timed: dict[str, list[Took]] = {}
    for number in range(before + 1, last + 1):
        bench.say(f"timing {data.day_of(number)}")
        for name, took in _one_day(bench, number).items():
            timed.setdefault(name, []).append(took)
    bench.say(f"timing {sizes.year} days of PSI")
    wall = {name: statistics.median(t.wall for t in took) for name, took in timed.items()}
    cpu = {name: statistics.median(t.cpu for t in took) for name, took in timed.items()}
    return {"day": _rounded(wall), "cpu": _rounded(cpu), "year": _year(bench)}


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


@dataclass(frozen=True)
class Took:
    """Seconds on the clock, and seconds of all cores."""

    wall: float
    cpu: float


def _took(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def _one_day(bench: Bench, number: int) -> dict[str, Took]:
    day, found = data.day_of(number), {}
    before = Newcomers(VIEW, bench.lake.table(VIEW), bench.lake.table(VIEW).head())
    reader = bench.store.reader()
    load_inputs(VIEW, [day], reader)
    computed = []
    zone = bench.store.project.zone
    found["compute"] = _took(lambda: computed.append(compute_day(VIEW, day, reader, zone)))
    found["materialize"] = _took(lambda: bench.materialize([number]))
    for name, part in _parts(bench, day, computed[0].frame, before).items():
        taken = [_took(part) for _ in range(bench.sizes.repeats)]
        found[name] = sorted(taken, key=lambda took: took.wall)[len(taken) // 2]
    return found


def _parts(
    bench: Bench, day: date, frame: pl.DataFrame, before: Newcomers
) -> dict[str, Callable[[], object]]:
    contract, soda = VIEW.contract, SodaSession()
    head = bench.lake.table(VIEW).head()
    revisions = {d: record.revision for d, record in head.days.items() if d < day}
    profiles = bench.lake.profiles(VIEW.name, revisions)
    earlier = Earlier(day, profiles, {}, before.counts(day, frame))
    references = references_of(contract, day, profiles, {})
    seen = profile(frame, contract, references)

    def drift() -> None:
        for name, reference in references_of(contract, day, profiles, {}).items():
            measure(name, seen[name], reference)

    return {
        "profile": lambda: profile(frame, contract, references),
        "contract": lambda: contract_failures(frame, contract),
        "soda": lambda: soda.verify(frame, contract),
        "drift": drift,
        "new entities": lambda: before.counts(day, frame),
        "whole audit": lambda: audit(frame, contract, earlier, soda),
    }


def _year(bench: Bench) -> dict[str, Any]:
    """Record a year of profiles, read them again, and measure each day against those before."""
    contract, days = VIEW.contract, bench.sizes.year + REFERENCE_DAYS
    head = bench.lake.table(VIEW).head()
    rows = (
        bench.lake.table(VIEW)
        .read_day(max(head.days))
        .sample(fraction=1.0, shuffle=True, seed=data.SEED)
    )
    share = max(1, rows.height // days)
    kept: dict[date, dict[str, ColumnProfile]] = {}
    for number in range(days):
        day, slice_ = data.FIRST + timedelta(days=number), rows.slice(number * share, share)
        kept[day] = profile(slice_, contract, references_of(contract, day, kept, {}))
    bench.lake.record_profiles(YEAR, {(day, 1): found for day, found in kept.items()})
    read: dict[date, dict[str, ColumnProfile]] = {}
    reading = _took(lambda: read.update(bench.lake.profiles(YEAR, dict.fromkeys(kept, 1))))
    found: list[Drift] = []
    measuring = _took(lambda: found.extend(_measured(contract, read)))
    return {
        "numbers": len(found),
        "read": round(reading.wall, 4),
        "psi": round(measuring.wall, 4),
        "psi_cpu": round(measuring.cpu, 4),
        "largest": max(one.psi or 0.0 for one in found),
    }


def _measured(
    contract: Contract, read: Mapping[date, Mapping[str, ColumnProfile]]
) -> Iterator[Drift]:
    for day in sorted(read)[REFERENCE_DAYS:]:
        references = references_of(contract, day, read, {})
        for name, column in read[day].items():
            yield measure(name, column, references[name])
