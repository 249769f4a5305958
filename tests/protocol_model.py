"""Explores the model of the write protocol: every history up to a bound, and long ones at random.

`python -m tests.protocol_model --histories 100000 --seed 7` explores for longer than the tests do.
"""

import argparse
import sys
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from tests.protocol_model_checks import ViolationError, next_events, settles, step
from tests.protocol_model_rules import SHIPPED, Rules
from tests.protocol_model_world import Commit, Event, Setting, World, begin, happen


class Counterexample(NamedTuple):
    """The events that lead to a violation, and which one it is."""

    history: tuple[Event, ...]
    violation: str

    def __str__(self) -> str:
        lines = [f"{n:3}. {' '.join(map(str, event))}" for n, event in enumerate(self.history, 1)]
        return "\n".join([*lines, f"     → {self.violation}"])


class Explored(NamedTuple):
    """What an exploration saw."""

    states: int
    steps: int
    found: Counterexample | None
    whole: bool = True  # whether nothing was left to see within the setting's bounds


def exhaustively(
    setting: Setting, rules: Rules, *, most_states: int, settling: bool = True
) -> Explored:
    """Every history within the setting's bounds, shortest first, until one ends in a violation."""
    first = begin(setting, rules)
    came_from: dict[World, tuple[World, Event] | None] = {first: None}
    waiting = deque([first])
    steps = 0
    while waiting and len(came_from) < most_states:
        world = waiting.popleft()
        for event in next_events(world):
            steps += 1
            try:
                after = step(world, event)
                if settling:
                    settles(after)
            except ViolationError as violation:
                history = (*_history(came_from, world), event)
                return Explored(len(came_from), steps, Counterexample(history, str(violation)))
            if after not in came_from:
                came_from[after] = (world, event)
                waiting.append(after)
    return Explored(len(came_from), steps, None, whole=not waiting)


def _history(came_from: dict[World, tuple[World, Event] | None], world: World) -> tuple[Event, ...]:
    events: list[Event] = []
    while (before := came_from[world]) is not None:
        world, event = before
        events.append(event)
    return tuple(reversed(events))


def replay(setting: Setting, rules: Rules, history: Sequence[Event]) -> Counterexample | None:
    """The history up to its first violation; None if there is none."""
    world = begin(setting, rules)
    for n, event in enumerate(history, 1):
        try:
            world = step(world, event)
            settles(world)
        except ViolationError as violation:
            return Counterexample(tuple(history[:n]), str(violation))
    return None


def at_random(setting: Setting, rules: Rules, random: Random, length: int) -> Counterexample | None:
    """One history; it is made shorter if it ends in a violation."""
    world, history = begin(setting, rules), list[Event]()
    for _ in range(length):
        history.append(drawn_event(world, random))
        try:
            world = step(world, history[-1])
        except ViolationError as violation:
            return shortened(setting, rules, Counterexample(tuple(history), str(violation)))
    try:
        settles(world)
    except ViolationError as violation:
        return shortened(setting, rules, Counterexample(tuple(history), str(violation)))
    return None


def drawn_event(world: World, random: Random) -> Event:
    """One of the events that may come next; mostly one that changes something."""
    by_kind: dict[str, list[Event]] = {}
    for event in next_events(world):
        by_kind.setdefault(event[0], []).append(event)
    for _ in range(_TRIES):
        kind = random.choices(list(by_kind), [_WEIGHTS.get(kind, 1) for kind in by_kind])[0]
        event = random.choice(by_kind[kind])
        if happen(world, event) is not world or random.random() < _IDLE:
            break
    return event


_TRIES, _IDLE = 4, 0.1
_WEIGHTS = {"deliver": 24, "look": 3, "pin": 5, "wipe": 10, "commit": 3, "replicate": 2}


def drawn_setting(random: Random) -> Setting:
    """A world of two shards in which much may happen."""
    keys, buckets = random.randint(3, 6), random.randint(2, 4)
    now = random.randint(2, 3)
    # A bucket's hash that is evicted alone while tables swap: see the test of that known limit.
    swapping = random.random() < 0.4
    faults = {
        "replicate": None,
        "failover": random.randint(0, 3),
        "flush": random.randint(0, 1),
        "evict": random.randint(0, 3),
        "forget": 0 if swapping else random.randint(0, 2),
        "tick": random.randint(0, 3),
        "swap": int(swapping),
        "again": random.randint(0, 2),
        "rebuild": random.randint(0, 2),
        "reconcile": random.randint(0, 2),
    }
    return Setting(
        scripts=tuple(_drawn_script(random, keys, now) for _ in range(1 + swapping)),
        keys=keys,
        buckets=buckets,
        shards=2,
        pushers=random.randint(2, 4),
        plans=random.randint(3, 8),
        now=now,
        ttl=random.choice((None, 0, 1, 3)),
        begun=random.random() < 0.5,
        stepwise=random.random() < 0.6,
        named=random.choice(((None,), (None, (0,), (1, 2)))),
        faults=tuple(faults.items()),
    )


def _drawn_script(random: Random, keys: int, days: int) -> tuple[Commit, ...]:
    script: list[Commit] = []
    last: dict[int, frozenset[int]] = {}
    while len(script) < random.randint(3, 8):
        day = random.randrange(days)
        of_day = frozenset(key for key in range(keys) if random.random() < 0.6)
        if last.get(day) != of_day:
            script.append((day, of_day))
            last[day] = of_day
    return tuple(script)


def shortened(setting: Setting, rules: Rules, found: Counterexample) -> Counterexample:
    """The counterexample without the events that it does not need."""
    shorter = True
    while shorter:
        shorter = False
        for at in reversed(range(len(found.history))):
            less = replay(setting, rules, (*found.history[:at], *found.history[at + 1 :]))
            if less is not None:
                found, shorter = less, True
                break
    return found


def many_at_random(
    seed: int, histories: int, rules: Rules = SHIPPED, length: int = 90
) -> Counterexample | None:
    """The first counterexample of so many histories; every history has a seed of its own."""
    for n in range(histories):
        random = Random(f"{seed}:{n}")
        found = at_random(drawn_setting(random), rules, random, length)
        if found is not None:
            return found._replace(violation=f"{found.violation} (seed {seed}:{n})")
    return None


def main() -> int:
    """Explore as many histories as the command line says; 1 if one ends in a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6))
    parser.add_argument("--length", type=int, default=90)
    asked = parser.parse_args()
    found = many_at_random(asked.seed, asked.histories, length=asked.length)
    said = found or f"{asked.histories} histories from seed {asked.seed}: none ends in a violation."
    sys.stdout.write(f"{said}\n")
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main())
