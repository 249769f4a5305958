"""One message: everything that one receiver is told of one owner's problems of one kind."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from lockstep.alerts.fold import told_all
from lockstep.alerts.problem import TITLES, Kind, Problem, Severity, runbook
from lockstep.alerts.settings import AlertSettings, Receiver
from lockstep.alerts.state import Claim, Episode, Stage, State, Told

Standing: TypeAlias = Literal["new", "ongoing", "resolved"]

VERSION: Final = 1
"""Of the webhook's JSON; another one means that a receiver must be changed."""
_NAMED: Final = 3  # subjects in a title
_TOLD: Final[Mapping[Standing, Stage]] = {"new": "open", "ongoing": "open", "resolved": "healed"}


@dataclass(frozen=True)
class Item:
    """One problem in a message.

    Attributes:
        episode: Identity of its episode.
        standing: "new" and "resolved" are told for the first time, "ongoing" was told before.
        healed: When it was over; None if it goes on.
    """

    episode: str
    problem: Problem
    standing: Standing
    opened: datetime
    healed: datetime | None


@dataclass(frozen=True)
class Message:
    """What one receiver is told at once.

    Attributes:
        id: The same for the same news: who gets a message twice can tell by it.
        project: The project's name and environment.
        runbook: Where the page is that says what to do.
        at: When it was made.
        again: After how long it is told again, if it goes on.
        passed: Episodes that were over before this was told, and whose problem is in it: none of
            them is told by itself.
    """

    id: str
    project: str
    owner: str
    kind: Kind
    runbook: str
    at: datetime
    again: timedelta
    items: Sequence[Item]
    passed: Sequence[str] = ()

    @property
    def resolved(self) -> bool:
        """Whether nothing of it goes on."""
        return all(item.standing == "resolved" for item in self.items)

    @property
    def severity(self) -> Severity:
        """The highest of its problems that go on, or went on until now."""
        live = [item for item in self.items if item.standing != "resolved"] or self.items
        return "page" if any(item.problem.severity == "page" for item in live) else "ticket"

    @property
    def title(self) -> str:
        """What it is about, in a line."""
        live = [item for item in self.items if item.standing != "resolved"] or self.items
        subjects = [item.problem.subject for item in live]
        more = f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else ""
        word = "resolved" if self.resolved else self.severity
        return f"[{word}] {TITLES[self.kind]}: {', '.join(subjects[:_NAMED])}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return it as the webhook's JSON; docs/alert-message.schema.json describes it."""
        return {
            "version": VERSION,
            "id": self.id,
            "project": self.project,
            "status": "resolved" if self.resolved else "firing",
            "severity": self.severity,
            "owner": self.owner,
            "kind": self.kind,
            "title": self.title,
            "runbook": self.runbook,
            "sent_at": instant(self.at),
            "alerts": [_item_json(item) for item in self.items],
        }

    def text(self) -> str:
        """Return it as plain text."""
        lines = [self.title, f"Owner: {self.owner}. Project: {self.project}."]
        for item in self.items:
            lines += ["", *_lines(item)]
        return "\n".join([*lines, "", f"What to do: {self.runbook}", ""])


def instant(at: datetime) -> str:
    """Return an instant in RFC 3339, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _item_json(item: Item) -> dict[str, Any]:
    found = item.problem
    return {
        "key": found.key,
        "status": item.standing,
        "subject": found.subject,
        "severity": found.severity,
        "sentence": found.sentence,
        "since": instant(found.since),
        "resolved_at": None if item.healed is None else instant(item.healed),
        "fix": found.fix,
        "details": dict(found.details),
    }


def _lines(item: Item) -> Iterator[str]:
    found = item.problem
    if item.healed is not None:
        yield f"resolved: {found.subject}, after {_length(item.healed - found.since)}."
        yield f"  It was: {found.sentence}"
        return
    yield f"{item.standing}: {found.subject}, since {found.since:%Y-%m-%d %H:%M} UTC."
    yield f"  {found.sentence}"
    yield f"  Run: {found.fix}"


def _length(lasted: timedelta) -> str:
    minutes = max(0, round(lasted / timedelta(minutes=1)))
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def due(state: State, settings: AlertSettings, project: str, now: datetime) -> dict[str, Message]:
    """Return what is to be told now: claim → message, one per receiver, owner and kind.

    What somebody else is telling is left out. With what is new or over goes what goes on.
    """
    found = {}
    for receiver in settings.receivers:
        groups: dict[tuple[str, Kind], dict[str, Episode]] = {}
        for name, ep in state.episodes.items():
            if receiver.takes(ep.problem):
                group = (ep.problem.owner, ep.problem.kind)
                groups.setdefault(group, {})[name] = ep
        for (owner, kind), episodes in groups.items():
            claim = claim_of(receiver.name, owner, kind)
            taken = state.claims.get(claim)
            if taken is not None and taken.until > now:
                continue
            if _is_due(episodes, receiver, now):
                page = runbook(kind, settings.runbooks)
                found[claim] = _message(episodes, receiver, project, page, now)
    return found


def claim_of(receiver: str, owner: str, kind: str) -> str:
    """Return the name of a claim: one process tells one receiver of one group at a time."""
    return f"{receiver}|{kind}|{owner}"


def _is_due(episodes: Mapping[str, Episode], receiver: Receiver, now: datetime) -> bool:
    return any(
        not told_all(ep, receiver.name)
        or (ep.healed is None and ep.told[receiver.name].at + receiver.remind_after <= now)
        for ep in episodes.values()
    )


def _message(
    episodes: Mapping[str, Episode], receiver: Receiver, project: str, page: str, now: datetime
) -> Message:
    newest: dict[str, str] = {}
    known: set[str] = set()  # problems that it believes to go on
    for name, ep in episodes.items():
        if ep.healed is None or not told_all(ep, receiver.name):
            newest[ep.problem.key] = name
            known |= {ep.problem.key} if receiver.name in ep.told else set()
    items = [
        Item(name, ep.problem, _standing(ep, key in known), ep.opened, ep.healed)
        for key, name in newest.items()
        for ep in [episodes[name]]
    ]
    passed = [
        name
        for name, ep in episodes.items()
        if name not in newest.values() and not told_all(ep, receiver.name)
    ]
    order = ("new", "ongoing", "resolved")
    items.sort(key=lambda item: (order.index(item.standing), item.problem.subject))
    first = items[0].problem
    news = [
        (item.episode, item.standing, str(episodes[item.episode].told.get(receiver.name)))
        for item in items
    ]
    identity = hashlib.sha256(json.dumps([receiver.name, sorted(news)]).encode()).hexdigest()[:24]
    again = receiver.remind_after
    return Message(identity, project, first.owner, first.kind, page, now, again, items, passed)


def _standing(ep: Episode, known: bool) -> Standing:  # noqa: FBT001 - a truth about the episode
    if ep.healed is not None:
        return "resolved"
    return "ongoing" if known else "new"


def claimed(state: State, claims: Mapping[str, Message], by: str, until: datetime) -> State:
    """Return the state in which a process is telling those messages."""
    return replace(state, claims={**state.claims, **dict.fromkeys(claims, Claim(by, until))})


def delivered(state: State, claim: str, message: Message, receiver: str, by: str) -> State:
    """Return the state in which the receiver knows what the message says."""
    episodes = dict(state.episodes)
    stages = {item.episode: _TOLD[item.standing] for item in message.items}
    for name, stage in (stages | dict.fromkeys(message.passed, _TOLD["resolved"])).items():
        if name in episodes:
            told = {**episodes[name].told, receiver: Told(stage, message.at)}
            episodes[name] = replace(episodes[name], told=told)
    return replace(released(state, claim, by), episodes=episodes)


def released(state: State, claim: str, by: str) -> State:
    """Return the state in which a process is no longer telling a message."""
    mine = claim in state.claims and state.claims[claim].by == by
    claims = {name: held for name, held in state.claims.items() if not (mine and name == claim)}
    return replace(state, claims=claims)
