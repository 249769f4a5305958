"""What a run told so far, heard event by event; see `lockstep.progress`.

    {"event": "plan", "name": "txn_7d", "days": 60}
    {"event": "day", "name": "txn_7d", "day": "2026-11-21", "status": "committed", "message": ""}
    {"event": "push", "name": "txn_7d", "days": 60, "rows": 2469}
    {"event": "error", "message": "…"}   what no day's message says
    {"event": "done", "run_id": "…"}

Other events and other facts are ignored, so that either side may be newer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from lockstep.time import span

GOOD: Final = frozenset({"committed", "unchanged"})
_DAY: Final = "\0"


@dataclass(frozen=True)
class BadDay:
    """A day that is not certified, and why."""

    day: str
    status: str
    message: str


@dataclass
class ToldAsset:
    """What was heard of one source, snapshot or view, its push included.

    Attributes:
        planned: Days that the run means to build or push; 0 if it did not say.
        counts: Status → days; a pushed day counts as "pushed" too.
        rows: Rows pushed; None if there was no push.
    """

    planned: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[BadDay] = field(default_factory=list)
    rows: int | None = None

    @property
    def built(self) -> int:
        """Days that were to be built and that something has come of."""
        return self.finished - self.counts["pushed"]

    @property
    def finished(self) -> int:
        """Days that something has come of."""
        return self.counts.total()


@dataclass
class Told:
    """Everything heard of one run."""

    assets: dict[str, ToldAsset] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)

    def messages(self) -> list[str]:
        """Return why days are not certified, then what else went wrong.

        A sentence per reason: days of which the same is to be said are named together.
        """
        bad = [
            f"{name} {days} {status}: {message}"
            for name, asset in self.assets.items()
            for days, status, message in _together(asset.bad)
        ]
        return bad + self.errors

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Return which of the names nothing was heard of: what they read was not built."""
        return [name for name in names if name not in self.assets]

    def hear(self, event: Any) -> str | None:
        """Take in one event; return the asset it is about."""
        match event:
            case {"event": "plan", "name": str(name), "days": int(days)}:
                self._of(name).planned += days
            case {"event": "day", "name": str(name), "day": day, "status": str(status)}:
                asset = self._of(name)
                asset.counts[status] += 1
                if status not in GOOD:
                    asset.bad.append(BadDay(str(day), status, str(event.get("message", ""))))
            case {"event": "push", "name": str(name), "days": int(days), "rows": int(rows)}:
                asset = self._of(name)
                asset.counts["pushed"] += days
                asset.rows = (asset.rows or 0) + rows
            case {"event": "error", "message": str(message)}:
                self.errors.append(message)
                return None
            case {"event": "done", "run_id": str(run_id)}:
                self.run_ids.append(run_id)
                return None
            case _:
                return None
        return name

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "run_ids": self.run_ids,
            "assets": {
                name: {
                    "planned": asset.planned,
                    **asset.counts,
                    "rows_pushed": asset.rows,
                    "bad": [vars(day) for day in asset.bad],
                }
                for name, asset in self.assets.items()
            },
            "errors": self.errors,
        }

    def _of(self, name: str) -> ToldAsset:
        return self.assets.setdefault(name, ToldAsset())


def _together(bad: Iterable[BadDay]) -> Iterator[tuple[str, str, str]]:
    """Return days, status and message, in order; of days whose messages differ by the day alone."""
    alike: dict[tuple[str, str], list[str]] = {}
    for day in bad:
        alike.setdefault((day.status, day.message.replace(day.day, _DAY)), []).append(day.day)
    for (status, message), days in alike.items():
        named = _named(days)
        yield named, status, message.replace(_DAY, named)


def _named(days: list[str]) -> str:
    try:
        return span(date.fromisoformat(day) for day in days)
    except ValueError:  # told by another release
        return ", ".join(days)
