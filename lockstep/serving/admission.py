"""How many requests are answered at once, how many may wait, and which are shed."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

Shed: TypeAlias = Literal["queue_full", "deadline"]
_SMOOTHING: Final = 0.1


class Admission:
    """A bounded number of places and a bounded queue for them, of one event loop.

    A request is shed when the queue is full, or when by the pace at which places were given back
    lately its turn would come later than it may wait: it costs nothing yet, and the caller can ask
    another instance in time.

    Args:
        places: Requests that are answered at once.
        queue: Requests that may wait.
        patience: Seconds that one may wait.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self, places: int, queue: int, patience: float, clock: Callable[[], float]
    ) -> None:
        self.in_flight = 0
        self.shed: dict[Shed, int] = {"queue_full": 0, "deadline": 0}
        self._places: Final = places
        self._room: Final = queue
        self._patience: Final = patience
        self._clock: Final = clock
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._pace = 0.0
        self._left_at = 0.0

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter_now(self) -> bool:
        """Take a place if one is free and nobody waits for it; return whether it was."""
        if self.in_flight < self._places and not self._waiting:
            self.in_flight += 1
            return True
        return False

    async def enter(self) -> bool:
        """Take a place, waiting for it; return False if the request is shed instead."""
        if self.enter_now():
            return True
        if len(self._waiting) >= self._room:
            self.shed["queue_full"] += 1
            return False
        if (len(self._waiting) + 1) * self._pace > self._patience:
            self.shed["deadline"] += 1
            return False
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(self._patience, self._give_up, turn)
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give the place back: to the one that waits longest, if somebody does."""
        busy = self.in_flight >= self._places
        now = self._clock()
        if busy and self._left_at:
            self._pace += _SMOOTHING * (now - self._left_at - self._pace)
        elif not busy:
            self._pace = 0.0
        self._left_at = now if busy else 0.0
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.in_flight -= 1

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            turn.set_result(False)
            self.shed["deadline"] += 1
            self._waiting.remove(turn)
