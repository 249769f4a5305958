"""How fast a push may go: as many rows per second as readers do not notice.

What a reader waits is probed while the push runs. Above the limit the rate falls by a third and
calls become small; below it the rate climbs again by a fifth per probe. Both steps multiply: from
the least rate to the most takes 38 probes, and one probe too slow undoes two or three good ones.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, sleep
from typing import Final

WIDE: Final = 128
"""Rows in one call of the push function when readers do not notice."""
NARROW: Final = 16
"""Rows in one call when they do: a reader waits at most for the call that runs."""

_DECREASE: Final = 0.66
_CLIMB: Final = 1.2
_LEAST_RATE: Final = 2_000.0
_MOST_RATE: Final = 2_000_000.0
_WINDOW: Final = 8
_PROBE_EVERY: Final = 0.002
_LEAST_LIMIT: Final = 0.0005


@dataclass
class Throttle:
    """Paces one push. Not shared between threads.

    Args:
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
        limit: Seconds a reader may wait; None is twice what it waited before the push began, and
            at least half a millisecond.
        start_rate: Rows per second to begin with.
        most: Rows per second never to exceed.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    limit: float | None = None
    start_rate: float = 100_000.0
    most: float = _MOST_RATE
    waited: float = 0.0
    slowest: float = _MOST_RATE
    _rate: float = field(default=0.0, init=False)
    _due: float = field(default=0.0, init=False)
    _probed: float = field(default=-1.0, init=False)
    _seen: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW), init=False)

    def __post_init__(self) -> None:
        self._rate = min(self.start_rate, self.most)
        self._due = self.clock()

    def begin(self, idle: list[float]) -> None:
        """Take what readers wait before the push; it sets the limit unless one was given."""
        if self.limit is None and idle:
            self.limit = max(2 * median(idle), _LEAST_LIMIT)

    @property
    def rate(self) -> float:
        """Rows per second that are allowed now."""
        return self._rate

    @property
    def chunk_rows(self) -> int:
        """Rows that one call of the push function should carry now."""
        return NARROW if self._pressed else WIDE

    def before(self, rows: int) -> None:
        """Wait until so many more rows may be sent."""
        now = self.clock()
        if self._due > now:
            self.sleep(self._due - now)
            self.waited += self._due - now
        self._due = max(self._due, now) + rows / self._rate

    @property
    def wants_probe(self) -> bool:
        """Whether the last probe is long enough ago."""
        return self.clock() - self._probed >= _PROBE_EVERY

    def saw(self, latency: float) -> None:
        """Take what a probe waited, in seconds, and adapt the rate."""
        self._probed = self.clock()
        if self.limit is None:
            return
        self._seen.append(latency)
        if latency > self.limit:
            self._rate = max(_LEAST_RATE, self._rate * _DECREASE)
        else:
            self._rate = min(self.most, self._rate * _CLIMB)
        self.slowest = min(self.slowest, self._rate)

    @property
    def _pressed(self) -> bool:
        """Whether a recent probe waited too long."""
        return self.limit is not None and any(latency > self.limit for latency in self._seen)


def paced() -> Throttle:
    """Return a throttle for one push, by this machine's clock."""
    return Throttle(monotonic, sleep)
