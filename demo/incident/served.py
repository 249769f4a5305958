"""What a model server is answered at an instant, through the client that it uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from demo.incident.night import Night
from lockstep.online import CellStatus
from lockstep.serving.client import Client

_DEADLINE: Final = 5.0
"""Seconds; many times what a service waits, because the story may share its machine."""


@dataclass(frozen=True)
class Served:
    """One cell as it was answered.

    Attributes:
        age: How long ago its row was valid from; None if there is no row.
        not_ready: Why the view is not ready; empty if it is.
    """

    at: datetime
    feature: str
    value: Any
    status: CellStatus
    age: timedelta | None
    not_ready: str = ""

    @property
    def words(self) -> str:
        """The answer in a few words."""
        value = f"{self.value:,.2f}" if isinstance(self.value, float) else f"{self.value}"
        shown = value if self.status == "present" else self.status
        return shown if self.age is None else f"{shown}, {self.age / timedelta(hours=1):.1f} h old"


def served(night: Night, entity: Mapping[str, int], feature: str) -> Served:
    """Ask for one feature of one entity, as a model server that has just looked at the seals.

    Raises:
        OnlineError: The online store does not answer.
    """
    (found,) = _asked(night, [entity], feature)
    return found


def served_to_all(night: Night, feature: str) -> dict[tuple[int, ...], Served]:
    """Return what is answered for every entity that the view has committed of late, by key.

    Raises:
        OnlineError: The online store does not answer.
    """
    view = night.view(feature.partition(":")[0])
    newest = sorted(night.store.committed(view))[-1:]
    keys = night.store.view(view.name).scan(newest).select(view.contract.keys).collect()
    entities = list(keys.iter_rows(named=True))
    answers = _asked(night, entities, feature)
    return dict(zip(keys.iter_rows(), answers, strict=True))


def _asked(night: Night, entities: Sequence[Mapping[str, int]], feature: str) -> list[Served]:
    store = night.store
    client = Client(
        store.catalog,
        store.project.redis_url or "",
        namespace=store.project.namespace,
        deadline=_DEADLINE,
        now=night.clock,
    )
    try:
        client.look()
        found = client.fetch([feature], entities, on_missing="null")
    finally:
        client.close()
    view = feature.partition(":")[0]
    (values,), (cells,) = found.columns, found.cells
    return [
        Served(
            found.at,
            feature,
            value,
            cell,
            None if seconds is None else timedelta(seconds=seconds),
            found.not_ready.get(view, ""),
        )
        for value, cell, seconds in zip(values, cells, found.age_seconds(view), strict=True)
    ]
