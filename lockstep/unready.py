"""The mark of a view that is not ready online: why, and since when. JSON in Redis."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from lockstep.time import instant_of, micros


@dataclass(frozen=True)
class Mark:
    """Why a view is not to be trusted online, in a sentence, and since when."""

    reason: str
    since: datetime

    @property
    def text(self) -> str:
        """It as it lies in Redis."""
        return json.dumps({"reason": self.reason, "at_us": micros(self.since)})

    @classmethod
    def of(cls, text: str, otherwise: datetime = instant_of(0)) -> Self:  # noqa: B008 - a constant
        """Return what a mark says; of one that cannot be read only that it is there.

        Args:
            otherwise: Since when one is there that cannot be read.
        """
        try:
            found = json.loads(text)
            return cls(str(found["reason"]), instant_of(int(found["at_us"])))
        except (ValueError, KeyError, TypeError, OverflowError):
            return cls("It was marked not ready.", otherwise)
