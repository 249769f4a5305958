"""Drift → training set: a spine and a request, written once into the lake for the sensor to build.

Nobody knows the labels, so the spine has none (see `lockstep.alerts.spines`), and whoever trains
joins them by keys and event_timestamp.
"""

import io
from dataclasses import replace
from typing import Final

import yaml

from lockstep.alerts.deliver import change
from lockstep.alerts.spines import spine_for
from lockstep.alerts.state import Retraining, State, States
from lockstep.errors import LockstepError
from lockstep.store import Store
from lockstep.training.request import FOLDER, LAKE, SUFFIX

SPINES: Final = "spines/drift"


def write_requests(store: Store, states: States, state: State) -> dict[str, str]:
    """Write the spines and requests that a state wants and that are not written yet.

    Written twice, at once or after a crash, they are the same files: what is there stays.

    Returns:
        Name → why it could not be written; the next call tries again.
    """
    failed: dict[str, str] = {}
    for name, wanted in state.retraining.items():
        if wanted.written:
            continue
        try:
            _write(store, name, wanted)
        except LockstepError as error:
            failed[name] = str(error)
            continue
        change(states, lambda newest, name=name: _marked(newest, name))  # type: ignore[misc]
    return failed


def _marked(state: State, name: str) -> State:
    if name not in state.retraining:
        return state
    written = replace(state.retraining[name], written=True)
    return replace(state, retraining={**state.retraining, name: written})


def _write(store: Store, name: str, wanted: Retraining) -> None:
    place = store.lake.place
    request, spine = f"{FOLDER}/{name}{SUFFIX}", f"{SPINES}/{name}.parquet"
    if place.exists(request):
        return
    if not place.exists(spine):
        content = io.BytesIO()
        spine_for(store.lake, store.catalog.view(wanted.view), wanted.like).write_parquet(content)
        place.write_if_absent(spine, content.getvalue())
    place.write_if_absent(request, request_text(store, wanted, f"{LAKE}{spine}").encode())


def request_text(store: Store, wanted: Retraining, spine: str) -> str:
    """Return the request file: what an analyst would have written."""
    chosen = store.catalog.feature_set(wanted.feature_set)
    said = {
        "spine": spine,
        "feature_set": wanted.feature_set,
        "mode": "event",
        **({"owner": chosen.owner} if chosen.owner else {}),
        "description": f"{', '.join(wanted.features)} drifted on {wanted.days[0]} to "
        f"{wanted.days[-1]}. Without labels: join yours by keys and event_timestamp.",
    }
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1000)
    return text
