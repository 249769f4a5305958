"""Reads of three views over HTTP: one client, many, half load, and more than a service can bear."""

from typing import Any

from benchmarks.online.bench import Bench
from benchmarks.online.read_views import ReadViews
from benchmarks.online.services import Service, start_all
from benchmarks.online.workers import Worker
from benchmarks.timing import middle

SIZES = (1, 100, 500)
CLIENTS = {1: 8, 100: 4, 500: 2}
"""Entities per request → clients that keep one worker busy without a line before it."""
CONNECTIONS = 64  # of the open loop at half load: enough that none waits for another
MANY = 400  # of the overload: more than may be in flight and queue
RAMP = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
SHED_SIZE = 100
SLOW = 0.25  # seconds above which an answer after the overload counts as not recovered
LEAST = 8  # requests of an open loop in a quick run, however slow the machine is
SHED = 0.01  # share of refused requests from which the service counts as shedding


def measure(bench: Bench, views: ReadViews) -> dict[str, Any]:
    """Service → entities per request → times; and what ours does under overload."""
    services = start_all(bench, views)
    with Worker("http_load_worker", log=bench.log("load")) as load:
        found: dict[str, Any] = {service.name: {"ready_s": service.ready_s} for service in services}
        for size in SIZES:
            _measure_size(bench, views, services, load, size, found)
        bench.say("HTTP beyond what the service can bear")
        capacity = found["lockstep"][str(SHED_SIZE)]["busy"]["per_s"]
        _aim(load, services[0], views, SHED_SIZE)
        found["overload"] = _overload(bench, load, capacity)
    return found


def _aim(load: Worker, service: Service, views: ReadViews, size: int) -> None:
    bodies = [service.body(ids) for ids in views.asked(size)[:300]]
    how = {"port": service.port, "path": service.path, "degraded": service.degraded}
    load.ask("aim", bodies=bodies, **how)


def _measure_size(
    bench: Bench,
    views: ReadViews,
    services: list[Service],
    load: Worker,
    size: int,
    found: dict[str, Any],
) -> None:
    """Fill in one size: one client, enough to keep it busy, half of what those got."""
    seconds = bench.sizes.seconds
    rounds: dict[str, dict[str, list[Any]]] = {s.name: {} for s in services}
    for number in range(bench.sizes.rounds):
        bench.say(f"HTTP fetch of {size} entities, round {number + 1}")
        for service in services:
            _aim(load, service, views, size)
            of = rounds[service.name]
            one = load.ask("closed", connections=1, seconds=seconds)
            of.setdefault("one_client", []).append(one)
            if service.one_client_only:
                continue
            many = load.ask("closed", connections=CLIENTS[size], seconds=seconds)
            of.setdefault("busy", []).append(many)
            for arrivals in ("even", "poisson") if service is services[0] else ("even",):
                half = load.ask(
                    "open",
                    rate=many["per_s"] / 2,
                    seconds=_seconds(bench, many["per_s"] / 2),
                    connections=CONNECTIONS,
                    arrivals=arrivals,
                )
                of.setdefault(f"half_load_{arrivals}", []).append(half)
    for name, measured in rounds.items():
        found[name][str(size)] = {what: middle(all_) for what, all_ in measured.items()}


def _seconds(bench: Bench, rate: float) -> float:
    """How long an open loop at that rate takes."""
    usual = 2 * bench.sizes.seconds
    return max(usual, LEAST / rate) if bench.quick else usual


def _overload(bench: Bench, load: Worker, capacity: float) -> dict[str, Any]:
    """Offered load in steps until requests are refused; then overload and how it recovers."""
    steps, seconds = [], _seconds(bench, capacity / 2)
    many = CONNECTIONS if bench.quick else MANY
    for factor in RAMP[-1:] if bench.quick else RAMP:
        asked = {"rate": factor * capacity, "seconds": seconds}
        step = load.ask("open", **asked, connections=many, arrivals="even")
        total = sum(step["statuses"].values())
        for name, status in (("shed_share", "503"), ("degraded_share", "-1")):
            step[name] = round(step["statuses"].get(status, 0) / max(1, total), 4)
        steps.append({"times_capacity": factor, **step})
    shedding = [step for step in steps if step["shed_share"] > SHED]
    calm = {"calm": capacity / 2, "over": 2 * capacity, "slow": SLOW}
    return {
        "entities": SHED_SIZE,
        "capacity_per_s": capacity,
        "steps": steps,
        "sheds_from_per_s": shedding[0]["offered_per_s"] if shedding else None,
        "recovery": load.ask("overload", **calm, seconds=seconds, connections=many),
    }
