"""Every contender joins the same features to the same spine, from files to a frame."""

from typing import Any

from benchmarks.timing import middle
from benchmarks.training.bench import FEAST, OURS, Bench
from benchmarks.training.shapes import Shape

RAW = ("polars", "polars streaming", "duckdb", "numpy")
FLOOR = "decoding"
OWN_FLOOR = "decoding our files"
Results = dict[str, dict[str, Any]]


def joined(bench: Bench) -> Results:
    """The usual training set: two views, all contenders."""
    rounds = bench.sizes.rounds
    repetitions = dict.fromkeys([OURS, *feasts(bench), *RAW, FLOOR, OWN_FLOOR], rounds)
    return in_turn(bench, bench.sizes.joined, repetitions)


def long(bench: Bench) -> Results:
    """A long ttl over many days of few entities: Feast's join multiplies rows first."""
    slow, rounds = bench.sizes.slow_rounds, bench.sizes.rounds
    repetitions = dict.fromkeys([OURS, "polars", "polars streaming", "duckdb"], rounds)
    return in_turn(bench, bench.sizes.long, repetitions | dict.fromkeys(feasts(bench)[:1], slow))


def feasts(bench: Bench) -> list[str]:
    """The ways to ask Feast, if it takes part."""
    return list(FEAST) if bench.feast_python else []


def in_turn(bench: Bench, shape: Shape, repetitions: dict[str, int]) -> Results:
    """Contender → medians over its rounds, and whether its values are ours.

    A contender that fails once is not asked again.
    """
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in repetitions}
    for number in range(max(repetitions.values())):
        for name, wanted in repetitions.items():
            failed = any("failed" in one for one in taken[name])
            if number < wanted and not failed:
                taken[name].append(_once(bench, shape, name, keep=number == 0))
    found = {name: summary(rounds) for name, rounds in taken.items()}
    return compared(bench, shape, found)


def _once(bench: Bench, shape: Shape, name: str, *, keep: bool) -> dict[str, Any]:
    bench.say(f"{shape.name}: {name}")
    result = {"result": str(bench.result(shape, name))} if keep else {}
    if name == OWN_FLOOR:
        return bench.raw(shape, FLOOR, committed=True)
    return bench.join(shape, name, **result)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of a contender's rounds, or how it failed."""
    failed = [one for one in rounds if "failed" in one]
    if failed:
        return failed[0]
    found = middle(rounds)
    found["every_s"] = [round(one["seconds"], 3) for one in rounds]
    return found


def compared(bench: Bench, shape: Shape, found: Results) -> Results:
    """Say of every result whether it has our values, or in which columns it differs."""
    files = {name: bench.result(shape, name) for name in found if "failed" not in found[name]}
    files = {name: file for name, file in files.items() if file.exists()}
    bench.say(f"{shape.name}: comparing {len(files)} results")
    numbers = bench.compare(shape, files)
    ours = numbers.get(OURS, {})
    for name, of in numbers.items():
        found[name]["compared_rows"] = of["rows"]
        found[name]["differs"] = sorted(column for column in of if of[column] != ours.get(column))
    for file in files.values():
        file.unlink()
    return found
