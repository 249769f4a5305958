"""Drift → requests for training sets: exactly one per feature set and episode. Pure.

An episode of a feature goes on as long as the windows of a look share a day with those of the looks
before it, wherever reruns move its first day, and however long it grows.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from lockstep.alerts.problem import Drifting, Look, Problem
from lockstep.alerts.state import Retraining

LONGEST_NAME: Final = 63
"""Characters of a training set's name."""

REMEMBERED: Final = 200
"""Requests, besides those whose features drift still."""

SEEN: Final = 60
"""The newest windows of an episode by which it is known again: a streak ends with the newest."""


@dataclass(frozen=True)
class Model:
    """What a project declares of one feature set.

    Attributes:
        features: `view:feature`, in order.
        entities: The entities of their views.
        kept: The newest kept set of it, if it joins several entities and there is one.
    """

    name: str
    features: Collection[str]
    entities: Collection[str]
    kept: str = ""

    @property
    def has_spine(self) -> bool:
        """Whether it is known which entities belong together."""
        return len(self.entities) == 1 or bool(self.kept)


def requested(
    before: Mapping[str, Retraining], drifting: Iterable[Drifting], models: Collection[Model]
) -> dict[str, Retraining]:
    """Return the requests, with one more per feature set and episode that has none.

    A feature that drifts on days of another one's request takes part in that, if it is still to
    be written or was made of all those days. Of later days the set knows nothing.
    """
    requests = dict(before)
    live = set()
    for each in drifting:
        for model in models:
            if each.feature not in model.features or not model.has_spine:
                continue
            name = request_of(requests, model.name, each) or _shared(requests, model.name, each)
            if name is None:
                view = each.feature.partition(":")[0]
                name = _free_name(requests, model.name, each.days[0])
                requests[name] = Retraining(model.name, (), view, each.days, like=model.kept)
            requests[name] = _taking_part(requests[name], each)
            live.add(name)
    old = [name for name in requests if name not in live][:-REMEMBERED]
    return {name: known for name, known in requests.items() if name not in old}


def request_of(
    requests: Mapping[str, Retraining], feature_set: str, drifting: Drifting
) -> str | None:
    """Return the name of the request for an episode; None if there is none."""
    for name, known in reversed(list(requests.items())):
        if known.feature_set == feature_set and drifting.feature in known.features:
            # Documents of earlier releases say only what it was requested for.
            seen = known.seen.get(drifting.feature, known.days)
            if not set(seen).isdisjoint(drifting.days):
                return name
    return None


def _shared(requests: Mapping[str, Retraining], feature_set: str, drifting: Drifting) -> str | None:
    """Return the name of a request for other features that stands for these windows, too."""
    days = set(drifting.days)
    for name, known in reversed(list(requests.items())):
        if known.feature_set != feature_set or drifting.feature in known.features:
            continue
        if days <= set(known.days) or not (known.written or days.isdisjoint(known.days)):
            return name
    return None


def _taking_part(known: Retraining, drifting: Drifting) -> Retraining:
    feature = drifting.feature
    features = known.features if feature in known.features else (*known.features, feature)
    before = known.seen.get(feature, known.days if feature in known.features else ())
    return replace(
        known,
        features=features,
        days=known.days if known.written else _union(known.days, drifting.days),
        seen={**known.seen, feature: _union(before, drifting.days)},
    )


def _union(known: Collection[str], days: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted({*known, *days})[-max(SEEN, len(known)) :])


def _free_name(requests: Mapping[str, Retraining], feature_set: str, first_day: str) -> str:
    names = (request_name(feature_set, first_day, number) for number in count(1))
    return next(name for name in names if name not in requests)


def request_name(feature_set: str, first_day: str, number: int = 1) -> str:
    """Return what a request is called: the feature set, `drift`, and the episode's first day.

    Args:
        number: Which of those of that day, from 1 on; the first is called by the day alone.
    """
    end = f"_drift_{first_day.replace('-', '')}{f'_{number}' if number > 1 else ''}"
    room = LONGEST_NAME - len(end)
    if len(feature_set) <= room:
        return f"{feature_set}{end}"
    told_apart = hashlib.sha256(feature_set.encode()).hexdigest()[:6]
    return f"{feature_set[: room - 7]}_{told_apart}{end}"


def with_requests(
    found: Problem,
    look: Look,
    models: Collection[Model],
    requests: Mapping[str, Retraining],
) -> Problem:
    """Return the problem; one of drift says which training sets were requested because of it."""
    drifting = next((each for each in look.drifting if each.key == found.key), None)
    if drifting is None:
        return found
    using = [model for model in models if drifting.feature in model.features]
    asked = {model.name: request_of(requests, model.name, drifting) for model in using}
    names = [name for name in asked.values() if name is not None]
    said = f" Requested to train again: {', '.join(names)}." if names else ""
    mixed = [model.name for model in using if not (model.has_spine or asked[model.name])]
    if mixed:
        said += (
            f" No training set was requested for {', '.join(mixed)}: it joins several entities and "
            "no set of it is kept, so write a request with a spine of your own."
        )
    details = {**found.details, "training_sets": ", ".join(names)} if names else found.details
    return replace(found, sentence=f"{found.sentence}{said}", details=details)
