"""What was told to whom: one document in the lake, so that every process knows the same.

`alerts/state/<number>.json`; the highest number counts. The next state is created under the next
number and only if there is none yet, which is how Delta commits too: of two processes that go on
from the same state one wins, and the other reads again. It needs no more of a store than tables do.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec

from lockstep.alerts.problem import Problem
from lockstep.stores.files import Place

FOLDER: Final = "alerts/state"
CLAIM: Final = timedelta(minutes=3)
"""How long others wait for a process that is telling something: longer than it takes."""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT: Final = 20  # states before the newest, for people

Stage: TypeAlias = Literal["open", "healed"]


@dataclass(frozen=True)
class Told:
    """What a receiver was told last of an episode, and when."""

    stage: Stage
    at: datetime


@dataclass(frozen=True)
class Episode:
    """One problem from when it was first seen until it was over.

    Attributes:
        problem: As it was seen when the state was last written.
        opened: When it was first seen.
        healed: When it was first seen to be over; None if it goes on.
        told: Receiver → what it was told.
        returned: Whether it was over shortly before it began, and so may soon be back again.
        gone: Of one that returned, since when it has not been seen; None while it is.
    """

    problem: Problem
    opened: datetime
    healed: datetime | None = None
    told: Mapping[str, Told] = field(default_factory=dict)
    returned: bool = False
    gone: datetime | None = None


@dataclass(frozen=True)
class Claim:
    """A process that is telling a receiver something, and until when others wait for it."""

    by: str
    until: datetime


@dataclass(frozen=True)
class Trouble:
    """A receiver that could not be told: since when, how often, and why the last time."""

    since: datetime
    times: int
    why: str


@dataclass(frozen=True)
class Retraining:
    """A training set that was requested because features drift.

    Attributes:
        feature_set: Whose features.
        features: `view:feature` of those that drift.
        view: The view whose entities are the spine.
        days: The windows over the limit when it was requested, or until it was written: ISO dates,
            ascending.
        like: The kept set whose combinations of keys are the spine; empty with one entity.
        written: Whether spine and request are in the lake.
        seen: Feature → the newest windows of its episode so far, whatever reruns made of them.
    """

    feature_set: str
    features: tuple[str, ...]
    view: str
    days: tuple[str, ...]
    written: bool = False
    like: str = ""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Everything that one look must know of the looks before it.

    Attributes:
        number: Of the document; 0 if there is none.
        at: When the newest look was made.
        episodes: Identity → episode: those that go on, and those that somebody is still to be told.
        waiting: Key of a problem that may pass by itself → when it was first seen.
        claims: Receiver and group → who is telling it.
        troubles: Receiver → why it could not be told.
        retraining: Name of a request → what was asked for.
        over: Key of a problem that was over a moment ago → when it was.
    """

    number: int = 0
    at: datetime = _NEVER
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    waiting: Mapping[str, datetime] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    retraining: Mapping[str, Retraining] = field(default_factory=dict)
    over: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class _Document:
    format: int
    writer: str
    state: State


class States:
    """The states in one lake."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def newest(self) -> State:
        """Return the state that counts; an empty one if there is none.

        One that cannot be read, such as a later release's, counts as empty: what is open is told
        again rather than never.
        """
        number = max(self._numbers(), default=0)
        content = self._place.read_if_exists(_name(number)) if number else None
        if content is None:
            return State(number)
        try:
            found = msgspec.json.decode(content, type=_Document)
        except msgspec.MsgspecError:
            return State(number)
        return replace(found.state, number=number) if found.format == 1 else State(number)

    def succeed(self, before: State, state: State) -> State | None:
        """Make a state the one that counts, after the one that it was made from.

        Returns:
            It with its number; None if somebody else was first, and nothing was written.

        Raises:
            StoreError: The store does not answer; whether it was written is not known.
        """
        number = before.number + 1
        made = replace(state, number=number)
        # Two writers of the same content would both be told that they won.
        content = msgspec.json.encode(_Document(1, uuid.uuid4().hex, made))
        if not self._place.write_if_absent(_name(number), content):
            return None
        numbers = self._numbers()
        if max(numbers) > number + _KEPT // 2:  # so late that its number was free again
            self._place.delete(_name(number))
            return None
        for old in [each for each in numbers if each < number - _KEPT]:
            self._place.delete(_name(old))
        return made

    def _numbers(self) -> list[int]:
        names = (info.path.rpartition("/")[2] for info in self._place.list(FOLDER))
        return [int(name.removesuffix(".json")) for name in names if name[:-5].isdigit()]


def _name(number: int) -> str:
    return f"{FOLDER}/{number:020d}.json"
