"""A circuit breaker: after some failures in a row, a dead store costs nothing until it is back."""

from threading import Lock
from typing import Final, Literal, TypeAlias

BreakerState: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """Decides whether a call may be tried. It asks no clock: every method is passed its seconds.

    Closed, every call may. After `threshold` failures in a row it opens, and none may. From
    `cool_down` seconds later on (half-open) one call per `cool_down` may, as a probe; the first
    success closes it. A probe that never reports back therefore blocks nothing.

    Args:
        threshold: Failures in a row that open it.
        cool_down: Seconds between probes.
    """

    def __init__(self, threshold: int = 5, cool_down: float = 0.5) -> None:
        self.threshold: Final = threshold
        self.cool_down: Final = cool_down
        self.failures = 0
        self._state: BreakerState = "closed"
        self._next_probe = 0.0
        self._lock: Final = Lock()

    @property
    def state(self) -> BreakerState:
        """Closed, open, or half-open while a probe is under way."""
        return self._state

    def allows(self, clock: float) -> bool:
        """Whether a call may be tried now; if the breaker is not closed, it is the probe."""
        if self._state == "closed":
            return True
        with self._lock:
            if clock < self._next_probe:
                return False
            self._next_probe = clock + self.cool_down
            self._state = "half-open"
        return True

    def succeeded(self) -> None:
        """Note that a call was answered."""
        if self.failures or self._state != "closed":
            with self._lock:
                self.failures = 0
                self._state = "closed"

    def failed(self, clock: float) -> None:
        """Note that a call was not answered, or not in time."""
        with self._lock:
            self.failures += 1
            if self.failures >= self.threshold:
                if self.state != "open":
                    self._next_probe = clock + self.cool_down
                self._state = "open"
