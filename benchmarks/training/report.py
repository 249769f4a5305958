"""The lines of the tables: what was asked for, and how every contender did."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.table import Limit, Row, grid, held_to
from benchmarks.training.bench import FEAST, OURS
from benchmarks.training.measure_joined import FLOOR, OWN_FLOOR

Results = Mapping[str, Any]

JOINED_S = Limit("≤ 2.2 s", most=2.2)
JOINED_MEMORY = Limit("≤ 2 GB", most=2.0)
JOINED_RATIO = Limit("≥ 3×", least=3)
FLOOR_RATIO = Limit("≤ 3.5 × floor", most=3.5)
LONG_RATIO = Limit("≥ 20×", least=20)
LARGE_MEMORY = Limit("< 4 GB", most=4.0)
LINEAR = Limit("≤ 1.5 × linear", most=1.5)
GROWTH = Limit("linear", most=1.25)
"""Of the cost of one more view: what the later half may cost more than the first."""
SAME = Limit("equal", most=0)
LARGER = 20
"""How often the spine of `joined` goes into that of `large`."""
WIDER = 10
"""The same of the rows that are joined to it, nearly."""
MB_PER_GB = 1e9 / 2**20
WORKLOADS = {"joined": "joined", "long": "long ttl", "large": "large"}


def rows_of(results: Results) -> list[Row]:
    """Every line that the results allow."""
    parts = {"joined": _joined, "long": _long, "large": _large, "views": _views, "modes": _modes}
    return [
        row for name, part in parts.items() if name in results for row in _told(name, part, results)
    ]


def _told(name: str, part: Callable[[Results], Iterator[Row]], results: Results) -> Iterator[Row]:
    """The lines of a part; one that says how ours failed, if it did."""
    ours = results[name].get(OURS, {})
    if "failed" in ours:
        yield Row(WORKLOADS[name], ours["failed"], "finishes", met=False)
    else:
        yield from part(results)


def contenders(results: Results) -> str:
    """Time and memory of every contender in every workload, as Markdown."""
    chosen = {name: results[name] for name in WORKLOADS if name in results}
    names = list(dict.fromkeys(name for of in chosen.values() for name in of))
    lines = [[name, *(_cell(of.get(name)) for of in chosen.values())] for name in names]
    return grid(["", *(WORKLOADS[name] for name in chosen)], lines)


def _cell(found: Results | None) -> str:
    if found is None:
        return ""
    if "failed" in found:
        return f"{found['failed']}, at {gigabytes(found):.1f} GB"
    differs = found.get("differs")
    other = f", other values in {', '.join(differs)}" if differs else ""
    cpu = f"{seconds(found['seconds'])} ({seconds(found['cpu_s'])} CPU)"
    return f"{cpu}, {gigabytes(found):.1f} GB{other}"


def seconds(value: float) -> str:
    """A duration with about three digits."""
    digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004
    return f"{value:.{digits}f} s"


def gigabytes(found: Results) -> float:
    """The most that a process held, in GB of 10⁹ bytes."""
    return float(found["peak_rss_mb"]) / MB_PER_GB


def fastest_feast(found: Results) -> Results | None:
    """Feast asked in the way that it answers faster, if it took part and answered."""
    done = [found[name] for name in FEAST if name in found and "failed" not in found[name]]
    return min(done, key=lambda one: float(one["seconds"]), default=None)


def _against_feast(what: str, found: Results, limit: Limit) -> Iterator[Row]:
    feast, ours = fastest_feast(found), found[OURS]["seconds"]
    if feast is not None:
        ratio = feast["seconds"] / ours
        beside = {"feast": seconds(feast["seconds"]), "ratio": f"{ratio:.1f}×"}
        yield held_to(what, seconds(ours), limit, ratio, **beside)


def _joined(results: Results) -> Iterator[Row]:
    found = results["joined"]
    ours, feast = found[OURS], fastest_feast(found)
    took, memory = ours["seconds"], gigabytes(ours)
    yield held_to("joined", seconds(took), JOINED_S, took)
    theirs = f"{gigabytes(feast):.1f} GB" if feast else ""
    yield held_to("joined, memory", f"{memory:.1f} GB", JOINED_MEMORY, memory, feast=theirs)
    yield from _against_feast("joined, against Feast", found, JOINED_RATIO)
    floor, own = found[FLOOR]["seconds"], found[OWN_FLOOR]["seconds"]
    words, ratio = f"{seconds(floor)}; our files {seconds(own)}", took / floor
    what, shown = "joined, against decoding alone", f"{ratio:.1f} × floor"
    yield held_to(what, shown, FLOOR_RATIO, ratio, floor=words)
    yield _equal("joined", found)


def _long(results: Results) -> Iterator[Row]:
    found = results["long"]
    if fastest_feast(found) is None:
        yield Row("long ttl", seconds(found[OURS]["seconds"]))
    yield from _against_feast("long ttl", found, LONG_RATIO)
    feast = fastest_feast(found)
    theirs = f"{gigabytes(feast):.1f} GB" if feast else ""
    yield Row("long ttl, memory", f"{gigabytes(found[OURS]):.1f} GB", feast=theirs)
    yield _equal("long ttl", found)


def _large(results: Results) -> Iterator[Row]:
    found = results["large"]
    ours = found[OURS]
    memory = gigabytes(ours)
    yield held_to("large, memory", f"{memory:.2f} GB", LARGE_MEMORY, memory)
    small = results.get("joined", {}).get(OURS, {})
    if "seconds" not in small:
        yield Row("large", seconds(ours["seconds"]))
    else:
        factor = ours["seconds"] / small["seconds"] / LARGER
        words = f"{factor:.2f} × linear in the spine, {factor * LARGER / WIDER:.2f} × in the rows"
        shown = f"{seconds(ours['seconds'])} = {words}"
        yield held_to("large, time", shown, LINEAR, factor)
    yield _equal("large", found)


def _equal(what: str, found: Results) -> Row:
    compared = [name for name, of in found.items() if "differs" in of and name != OURS]
    other = [name for name in compared if found[name]["differs"]]
    shown = f"{len(compared) - len(other)} of {len(compared)} peers"
    return held_to(f"{what}, same values", shown, SAME, len(other))


def _views(results: Results) -> Iterator[Row]:
    found = {int(name): of["seconds"] for name, of in results["views"].items()}
    for number, took in found.items():
        what = f"{number} views" if number > 1 else "1 view"
        yield Row(what, f"{seconds(took)}, {took / number:.2f} s each")
    if len(found) > 2:  # noqa: PLR2004
        (first, a), *_, (middle, b), (last, c) = sorted(found.items())
        growth = ((c - b) / (last - middle)) / ((b - a) / (middle - first))
        shown = f"{growth:.2f} × the cost of one before"
        yield held_to("one more view, at the end", shown, GROWTH, growth)


def _modes(results: Results) -> Iterator[Row]:
    found = results["modes"]
    event = found["event"]["seconds"]
    for name, of in found.items():
        if "failed" in of:
            yield Row(name, of["failed"])
        else:
            took = of["seconds"]
            beside = "" if name == "event" else f" = {took / event:.2f} × event"
            yield Row(name, seconds(took) + beside)
