"""The pace of a push: readers who wait slow it down at once, idle servers let it climb again."""

from dataclasses import dataclass, field

import pytest

from lockstep.throttle import NARROW, WIDE, Throttle

IDLE = 0.0001
SLOW = 0.02


@dataclass
class Clock:
    """Time that only passes when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def throttle(clock: Clock, **settings: float) -> Throttle:
    made = Throttle(clock, clock.sleep, **settings)
    made.begin([IDLE] * 5)
    return made


def test_rows_are_sent_no_faster_than_the_rate() -> None:
    clock = Clock()
    paced = throttle(clock, start_rate=1_000)

    for _ in range(11):
        paced.before(100)

    assert clock.now == pytest.approx(1.0)
    assert paced.waited == pytest.approx(1.0)


def test_time_that_passed_anyway_is_not_waited_again() -> None:
    clock = Clock()
    paced = throttle(clock, start_rate=1_000)

    paced.before(100)
    clock.now += 5
    paced.before(100)

    assert clock.slept == []


def test_a_slow_probe_lowers_the_rate_and_narrows_the_calls() -> None:
    paced = throttle(Clock(), start_rate=100_000)
    assert paced.chunk_rows == WIDE

    paced.saw(SLOW)

    assert paced.rate < 100_000
    assert paced.chunk_rows == NARROW


def test_the_rate_never_falls_to_nothing_and_never_exceeds_the_most() -> None:
    paced = throttle(Clock(), start_rate=100_000, most=150_000)

    for _ in range(100):
        paced.saw(SLOW)
    lowest = paced.rate
    for _ in range(100):
        paced.saw(IDLE)

    assert lowest > 0
    assert paced.rate == 150_000
    assert paced.slowest == lowest


def test_calls_widen_again_when_no_recent_probe_was_slow() -> None:
    paced = throttle(Clock())
    paced.saw(SLOW)

    for _ in range(8):
        paced.saw(IDLE)

    assert paced.chunk_rows == WIDE


def test_the_limit_follows_what_readers_waited_before_unless_it_is_given() -> None:
    clock = Clock()
    own, given = Throttle(clock, clock.sleep), Throttle(clock, clock.sleep, limit=0.005)

    own.begin([0.001, 0.002, 0.001])
    given.begin([0.001, 0.002, 0.001])

    assert own.limit == pytest.approx(0.002)
    assert given.limit == 0.005


def test_before_anything_was_probed_nothing_is_known_to_be_slow() -> None:
    clock = Clock()
    paced = Throttle(clock, clock.sleep)

    paced.saw(SLOW)

    assert paced.chunk_rows == WIDE
    assert paced.slowest >= paced.rate


def test_a_server_that_slows_down_above_a_rate_is_held_near_it() -> None:
    """Readers wait as soon as more than 50,000 rows a second arrive."""
    clock = Clock()
    paced = throttle(clock)
    sent, measured = 0, 0.0
    for step in range(2_000):
        began = clock.now
        paced.before(128)
        paced.saw(SLOW if paced.rate > 50_000 else IDLE)
        if step >= 200:
            sent, measured = sent + 128, measured + clock.now - began

    assert 25_000 < sent / measured < 60_000
