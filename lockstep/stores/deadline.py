"""How long a call may still take."""

import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a call that may take so many seconds in all.

    Attributes:
        seconds: What it was given.
        ends: When it is over, on the clock of `time.monotonic`.
    """

    seconds: float
    ends: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline of a call that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds that are left, more than none.

        Raises:
            TimeoutError: It is over.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
