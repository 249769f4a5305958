"""The circuit breaker, second by second."""

import pytest

from lockstep.serving.breaker import Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=3, cool_down=0.5)
    for _ in range(3):
        breaker.failed(at)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(threshold=3, cool_down=0.5)

    breaker.failed(0)
    breaker.failed(0)
    before = (breaker.state, breaker.allows(0))
    breaker.failed(0)

    assert ("closed", True) == before
    assert ("open", False) == (breaker.state, breaker.allows(0))


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(threshold=3, cool_down=0.5)

    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()

    assert ("closed", 0) == (breaker.state, breaker.failures)


def test_after_the_cool_down_one_probe_may_pass() -> None:
    breaker = opened()

    assert [False, True, False] == [breaker.allows(at) for at in (0.49, 0.5, 0.51)]
    assert "half-open" == breaker.state


def test_a_successful_probe_closes_it() -> None:
    breaker = opened()
    breaker.allows(0.5)

    breaker.succeeded()

    assert ("closed", True, True) == (breaker.state, breaker.allows(0.5), breaker.allows(0.5))


def test_a_failed_probe_opens_it_for_another_cool_down() -> None:
    breaker = opened()
    breaker.allows(0.5)

    breaker.failed(0.55)

    assert "open" == breaker.state
    assert [False, True] == [breaker.allows(at) for at in (1.04, 1.05)]


def test_a_probe_that_never_reports_back_blocks_nothing() -> None:
    breaker = opened()

    assert [True, False, True] == [breaker.allows(at) for at in (0.5, 0.9, 1.0)]


def test_failures_that_arrive_late_do_not_put_off_the_next_probe() -> None:
    breaker = opened()

    breaker.failed(0.4)

    assert breaker.allows(0.5)


def test_an_answer_that_arrives_late_closes_it() -> None:
    breaker = opened()

    breaker.succeeded()

    assert breaker.allows(0.0)


@pytest.mark.parametrize("back_at", [10.0, 10.001, 10.25, 10.49])
def test_a_store_that_is_back_is_used_again_within_a_second(back_at: float) -> None:
    breaker, clock = opened(), 0.0
    while clock < 20:
        if breaker.allows(clock):
            if clock >= back_at:
                breaker.succeeded()
                break
            breaker.failed(clock)
        clock += 0.01

    assert "closed" == breaker.state
    assert clock - back_at < 1
