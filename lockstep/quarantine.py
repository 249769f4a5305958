"""Where what failed goes: frames and landed files, with the reason. Only people read it.

`quarantine/<name>/<item>/why.json` marks an item; beside it `frame.parquet` for a frame,
`released.json` once a person certified it, `closed.json` once it no longer matters.
"""

import getpass
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal

import polars as pl

from lockstep.errors import UnknownNameError
from lockstep.stores.files import Place


@dataclass(frozen=True)
class Quarantined:
    """One frame of a view, or one landed file of a source, that failed.

    Attributes:
        name: The view or source.
        item: What `show` and `release` take: a day (and hash) of a view, or a file.
        reason: One sentence.
        days: The days concerned; None if they can't be told (a file).
        details: Verdicts, head revision, inputs, code version (a frame); path and stamp (a file).
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
        """Write the marker, and reopen an item that was closed."""
        if self._place.exists(f"{_folder(item)}/closed.json"):
            self._place.delete(f"{_folder(item)}/closed.json")
        body = {k: v for k, v in asdict(item).items() if k not in ("released", "closed")}
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
            for mark in ("released", "closed"):
                if f"{folder}/{mark}.json" in present:
                    said = json.loads(self._place.read(f"{folder}/{mark}.json"))
                    item = replace(item, **{mark: said})
            yield item

    def find(self, name: str, item: str) -> Quarantined:
        """Return one item by name and (the beginning of) its item text.

        Raises:
            UnknownNameError: None or several begin like that.
        """
        matching = [found for found in self.items(name) if found.item.startswith(item)]
        if len(matching) == 1:
            return matching[0]
        raise UnknownNameError(
            f"{len(matching)} quarantined items of {name} begin with {item!r}.",
            expected=f"one of {[found.item for found in self.items(name)]}",
        )

    def frame(self, item: Quarantined) -> pl.DataFrame:
        """Return the quarantined rows: keys, event_timestamp, features."""
        return pl.read_parquet(io.BytesIO(self._place.read(f"{_folder(item)}/frame.parquet")))

    def released_hashes(self, view: str) -> dict[tuple[date, str], Mapping[str, str]]:
        """Return (day, content hash) → who certified it and why."""
        return {
            (day, str(item.details["content_hash"])): item.released
            for item in self.items(view)
            if item.kind == "frame" and item.released is not None
            for day in item.touches
        }

    def mark_released(self, item: Quarantined, reason: str, now: datetime) -> Mapping[str, str]:
        """Record that a person certifies the item, by name and with a reason; return the record."""
        said = {"by": getpass.getuser(), "reason": reason, "at": now.isoformat()}
        self._place.write(f"{_folder(item)}/released.json", json.dumps(said).encode())
        return said

    def close(self, item: Quarantined, reason: str, now: datetime) -> None:
        """Record that the item no longer matters; its data is kept."""
        said = {"reason": reason, "at": now.isoformat()}
        self._place.write(f"{_folder(item)}/closed.json", json.dumps(said).encode())


def frame_item(day: date, content_hash: str) -> str:
    """Return what names a quarantined frame: its day, and the beginning of its content's hash."""
    return f"{day}-{content_hash[:8]}"


def _folder(item: Quarantined) -> str:
    return f"{item.name}/{item.item}"
