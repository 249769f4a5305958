"""Where what failed goes: frames and landed files, with the reason. Only people read it.

`quarantine/<name>/<item>/why.json` marks an item; beside it `frame.parquet` for a frame,
`releasing.json` from a person's word to the commit, `released.json` once a person certified it,
`closed.json` once it no longer matters.
"""

import getpass
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final, Literal

import polars as pl

from lockstep.errors import InputError, UnknownNameError
from lockstep.stores.files import Place

_MARKS: Final = ("releasing", "released", "closed")


@dataclass(frozen=True)
class Quarantined:
    """One frame of a view, or one landed file of a source, that failed.

    Attributes:
        name: The view or source.
        item: What `show` and `release` take: a day (and hash) of a view, or a file.
        reason: One sentence.
        days: The days concerned; None if they can't be told (a file).
        details: Verdicts, head revision, inputs, code version (a frame); path and stamp (a file).
        releasing: Who wants a frame committed, and why; it counts while the item is open.
    """

    kind: Literal["frame", "file"]
    name: str
    item: str
    reason: str
    days: list[str] | None
    found_at: str
    details: Mapping[str, Any] = field(default_factory=dict)
    released: Mapping[str, str] | None = None
    closed: Mapping[str, str] | None = None
    releasing: Mapping[str, str] | None = None

    @property
    def open(self) -> bool:
        """Whether it still waits for a fix or a person."""
        return self.released is None and self.closed is None

    @property
    def touches(self) -> frozenset[date]:
        """The days concerned, as dates."""
        return frozenset(date.fromisoformat(day) for day in self.days or ())


class Quarantine:
    """Reads and writes the quarantine of one lake."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def put_frame(self, frame: pl.DataFrame, item: Quarantined) -> None:
        """Write the frame, then the marker: a crash between leaves nothing that counts."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self._place.write(f"{_folder(item)}/frame.parquet", buffer.getvalue())

    def put(self, item: Quarantined) -> None:
        """Write the marker, and reopen an item that was closed, whatever was wanted of it then."""
        if self._place.exists(f"{_folder(item)}/closed.json"):
            self.take_back(item)
            self._place.delete(f"{_folder(item)}/closed.json")
        body = {k: v for k, v in asdict(item).items() if k not in _MARKS}
        self._place.write(f"{_folder(item)}/why.json", json.dumps(body, indent=2).encode())

    def items(self, name: str | None = None) -> list[Quarantined]:
        """Return every marked item, closed ones included, by name and item."""
        files = {info.path for info in self._place.list(name or "")}
        return list(self._read(sorted(files)))

    def open_items(self) -> list[Quarantined]:
        """Return what still waits, by name and item; what is released or closed is not read."""
        files = sorted(info.path for info in self._place.list())
        marks = ("/released.json", "/closed.json")
        over = {path.rpartition("/")[0] for path in files if path.endswith(marks)}
        return list(self._read([path for path in files if path.rpartition("/")[0] not in over]))

    def _read(self, files: list[str]) -> Iterator[Quarantined]:
        present = set(files)
        for path in files:
            folder, _, file = path.rpartition("/")
            if file != "why.json":
                continue
            item = Quarantined(**json.loads(self._place.read(path)))
            for mark in _MARKS:
                if f"{folder}/{mark}.json" in present:
                    said = json.loads(self._place.read(f"{folder}/{mark}.json"))
                    item = replace(item, **{mark: said})
            yield item

    def find(self, name: str, item: str) -> Quarantined:
        """Return one item by name and (the beginning of) its item text.

        Raises:
            UnknownNameError: None or several begin like that.
        """
        known = self.items(name)
        if not known:
            raise UnknownNameError(
                f"Nothing of {name} has ever been quarantined.",
                fix="See what was: lockstep quarantine list --all",
            )
        matching = [found for found in known if found.item.startswith(item)]
        if len(matching) == 1:
            return matching[0]
        raise UnknownNameError(
            f"{len(matching)} quarantined items of {name} begin with {item!r}.",
            expected=f"one of {[found.item for found in matching or known]}",
        )

    def frame(self, item: Quarantined) -> pl.DataFrame:
        """Return the quarantined rows: keys, event_timestamp, features."""
        return pl.read_parquet(io.BytesIO(self._place.read(f"{_folder(item)}/frame.parquet")))

    def released_hashes(self, view: str) -> dict[tuple[date, str], Mapping[str, str]]:
        """Return (day, content hash) → who certified it and why.

        So does what a person wants committed, while the item is open: a run completes it.
        """
        return {
            (day, str(item.details["content_hash"])): said
            for item in self.items(view)
            if item.kind == "frame"
            and (said := item.released or (item.releasing if item.open else None))
            for day in item.touches
        }

    def intend(self, item: Quarantined, reason: str, now: datetime) -> Mapping[str, str]:
        """Record that a person wants a frame committed, by name and with a reason; return it."""
        said = _said(reason, now)
        self._place.write(f"{_folder(item)}/releasing.json", json.dumps(said).encode())
        return said

    def take_back(self, item: Quarantined) -> None:
        """Forget that a person wanted a frame committed: it was not."""
        self._place.delete(f"{_folder(item)}/releasing.json")

    def mark_released(
        self, item: Quarantined, reason: str, now: datetime, said: Mapping[str, str] | None = None
    ) -> None:
        """Record that a person certified the item, by name and with a reason; the first one counts.

        Args:
            said: What was recorded when a person wanted it; it counts instead of the reason.

        Raises:
            InputError: Somebody else certified it before. Nothing is changed.
        """
        said = said or _said(reason, now)
        file = f"{_folder(item)}/released.json"
        if not self._place.write_if_absent(file, json.dumps(dict(said)).encode()):
            raise released_already(item, json.loads(self._place.read(file)))
        self.take_back(item)

    def settle(self, item: Quarantined, content_hash: str, reason: str, now: datetime) -> None:
        """Record what came of an open frame whose day is certified with this content now.

        It is released if a person wanted this very content; else it no longer matters.
        """
        said = item.releasing
        if said is not None and item.details["content_hash"] == content_hash:
            data = json.dumps(dict(said)).encode()
            self._place.write_if_absent(f"{_folder(item)}/released.json", data)
            self.take_back(item)
        else:
            self.close(item, reason, now)

    def close(self, item: Quarantined, reason: str, now: datetime) -> None:
        """Record that the item no longer matters; its data is kept."""
        said = {"reason": reason, "at": now.isoformat()}
        self._place.write(f"{_folder(item)}/closed.json", json.dumps(said).encode())


def frame_item(day: date, content_hash: str) -> str:
    """Return what names a quarantined frame: its day, and the beginning of its content's hash."""
    return f"{day}-{content_hash[:8]}"


def released_already(item: Quarantined, said: Mapping[str, str]) -> InputError:
    """Return the error about an item that a person has certified before."""
    return InputError(
        f"{item.name} {item.item} was released already, by {said['by']}: {said['reason']}",
        fix=f"See who and when: lockstep quarantine show {item.name} {item.item}",
        effect="Nothing was changed.",
    )


def _said(reason: str, now: datetime) -> dict[str, str]:
    return {"by": getpass.getuser(), "reason": reason, "at": now.isoformat()}


def _folder(item: Quarantined) -> str:
    return f"{item.name}/{item.item}"
