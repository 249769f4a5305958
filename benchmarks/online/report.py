"""The lines of the online side's table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.table import FEW_DIGITS_FROM, Limit, Row, held_to

Results = Mapping[str, Any]


PUSH_RATE = Limit("≥ 250,000/s", least=250_000)
PUSH_RATIO = Limit("≥ 15×", least=15)
PUSH_MEMORY = Limit("< 600 MB", most=600)
FETCH_MS = {size: Limit(f"≤ {ms} ms", most=ms) for size, ms in ((1, 0.25), (100, 1.5), (1000, 12))}
FETCH_RATIO = Limit("≥ 10×", least=10)
HTTP_MS = {size: Limit(f"≤ {ms} ms", most=ms) for size, ms in ((1, 0.7), (100, 3), (500, 14))}
HALF_LOAD = Limit("≤ 3 × p50", most=3)
THROUGHPUT = Limit("≥ 5×", least=5)
NONE = Limit("none", most=0)
RECOVERY = Limit("≤ 1 s", most=1)
READERS = Limit("≤ 2 × idle", most=2)
MEMORY = Limit("≤ 60 %", most=0.6)


def rows_of(results: Results) -> list[Row]:
    """Every line that the results allow."""
    parts = {
        "push": _push,
        "fetch": _fetch,
        "http": _http,
        "readers": _readers,
        "memory": _memory,
        "types": _types,
    }
    return [row for name, part in parts.items() if name in results for row in part(results[name])]


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < FEW_DIGITS_FROM else f"{value:.1f} ms"


def _rate(value: float) -> str:
    return f"{value:,.0f}/s"


def _p50_p99(found: Results) -> str:
    return f"{_ms(found['p50_ms'])}, p99 {_ms(found['p99_ms'])}"


def _against(theirs: float | None, ours: float, shown: str) -> dict[str, Any]:
    """Feast's figure and the ratio; nothing where Feast was left out."""
    return {} if theirs is None else {"feast": shown, "ratio": f"{theirs / ours:.1f}×"}


def _push(found: Results) -> Iterator[Row]:
    own = "lockstep on redis" if "lockstep on redis" in found else "lockstep on valkey"
    ours, feast = found[own], found.get("feast")
    rate, memory = ours["rows_per_s"], ours["peak_rss_mb"]
    floor = max(of["rows_per_s"] for name, of in found.items() if "redis-benchmark" in name)
    yield held_to("push from Delta", _rate(rate), PUSH_RATE, rate, floor=_rate(floor))
    if feast:
        ratio = rate / feast["rows_per_s"]
        beside = {"feast": _rate(feast["rows_per_s"]), "ratio": f"{ratio:.1f}×"}
        yield held_to("push against materialize", _rate(rate), PUSH_RATIO, ratio, **beside)
    theirs = f"{feast['peak_rss_mb']:.0f} MB" if feast else ""
    yield held_to("memory of the push", f"{memory:.0f} MB", PUSH_MEMORY, memory, feast=theirs)
    for name in ("lockstep on valkey", "lockstep, throttle on", "lockstep with append-only file"):
        if name in found and name != own:
            yield Row(name.replace("lockstep", "push"), _rate(found[name]["rows_per_s"]))


def _fetch(found: Results) -> Iterator[Row]:
    feast = found.get("feast")
    for size, limit in FETCH_MS.items():
        of = {name: by_size[str(size)] for name, by_size in found.items()}
        what, p50 = f"in-process fetch, {size}", of["lockstep"]["p50_ms"]
        by_redis_py = _ms(of["redis-py pipeline"]["p50_ms"])
        floor = f"redis-py {by_redis_py}, by hand {_ms(of['packed by hand']['p50_ms'])}"
        yield held_to(what, _p50_p99(of["lockstep"]), limit, p50, floor=floor)
        if feast:
            theirs = of["feast"]["p50_ms"]
            beside = _against(theirs, p50, _ms(theirs))
            yield held_to(f"{what}, against the SDK", _ms(p50), FETCH_RATIO, theirs / p50, **beside)
        yield Row(f"{what}, asyncio", _p50_p99(of["lockstep, asyncio"]))


def _http(found: Results) -> Iterator[Row]:
    feast = found.get("feast")
    for size, limit in HTTP_MS.items():
        ours, floor = found["lockstep"][str(size)], found["floor"][str(size)]
        p50 = ours["one_client"]["p50_ms"]
        theirs = feast[str(size)]["one_client"]["p50_ms"] if feast else None
        beside = _against(theirs, p50, _ms(theirs or 0))
        beside["floor"] = _ms(floor["one_client"]["p50_ms"])
        yield held_to(f"HTTP fetch, {size}", _p50_p99(ours["one_client"]), limit, p50, **beside)
        shown, spread = _half_load(ours)
        what = f"HTTP p99 at half load, {size}, {_rate(ours['half_load_even']['offered_per_s'])}"
        beside = {"feast": _half_load(feast[str(size)])[0]} if feast else {}
        # A service that cannot keep up is evenly slow: that is no success.
        held = spread if limit.met(ours["half_load_even"]["p50_ms"]) else math.inf
        yield held_to(what, shown, HALF_LOAD, held, floor=_half_load(floor)[0], **beside)
    ours, floor = found["lockstep"]["1"]["busy"], found["floor"]["1"]["busy"]
    rate = ours["per_s"]
    beside = {"floor": _rate(floor["per_s"])}
    theirs = feast["1"]["busy"]["per_s"] if feast else rate
    if feast:
        beside |= {"feast": _rate(theirs), "ratio": f"{rate / theirs:.1f}×"}
    limit_of = THROUGHPUT if feast else None
    yield held_to("HTTP throughput, 8 clients", _rate(rate), limit_of, rate / theirs, **beside)
    yield from _overload(found["overload"])


def _half_load(of: Results) -> tuple[str, float]:
    half = of["half_load_even"]
    spread = half["p99_ms"] / half["p50_ms"]
    return f"{_ms(half['p99_ms'])} = {spread:.1f} × {_ms(half['p50_ms'])}", spread


def _overload(found: Results) -> Iterator[Row]:
    sheds, recovered = found["sheds_from_per_s"], found["recovery"]["recovered_after_s"]
    shown = f"{_rate(sheds)} offered" if sheds else "never"
    floor = f"{_rate(found['capacity_per_s'])} by 4 clients"
    yield Row(f"sheds from, {found['entities']} entities", shown, floor=floor)
    worst = max(step["degraded_share"] for step in found["steps"])
    yield held_to("answers without values under overload", f"{worst:.1%}", NONE, worst)
    yield held_to("recovers after overload", f"{recovered:.2f} s", RECOVERY, recovered)


def _readers(found: Results) -> Iterator[Row]:
    idle = found["idle"]["p99_ms"]
    yield Row("readers' p99, idle", _ms(idle))
    for name, limit in {"throttled": READERS, "unthrottled": None}.items():
        p99, rate = found[name]["p99_ms"], found[name]["pushed_rows_per_s"]
        what = f"readers' p99, {name} backfill at {rate:,.0f} rows/s"
        yield held_to(what, f"{_ms(p99)} = {p99 / idle:.1f} × idle", limit, p99 / idle)


def _memory(found: Results) -> Iterator[Row]:
    ours, feast = found["lockstep"]["bytes_per_entity"], found.get("feast")
    if not feast:
        yield Row("memory per entity", f"{ours:.0f} B")
        return
    theirs = feast["bytes_per_entity"]
    beside = {"feast": f"{theirs:.0f} B", "ratio": f"{ours / theirs:.0%}"}
    yield held_to("memory per entity", f"{ours:.0f} B", MEMORY, ours / theirs, **beside)


def _types(found: Results) -> Iterator[Row]:
    ours, feast = found["lockstep"], found.get("feast")
    theirs = f"{feast['exact']} of {feast['of']}" if feast else ""
    every, more = Limit("all", least=ours["of"]), Limit("all", least=ours["of_with_more"])
    shown = f"{ours['exact']} of {ours['of']}"
    yield held_to("type cases, exact over HTTP", shown, every, ours["exact"], feast=theirs)
    shown = f"{ours['exact_with_more']} of {ours['of_with_more']}"
    yield held_to("with more cases", shown, more, ours["exact_with_more"])
