"""What the last look at the online store saw, so that the next one sees what changed since.

Kept in a small file, so that a look from the command line notices what happened since the sensor's,
and beside it in memory what is costly to compute again. All of it is a cache: without it a look
still finds what is wrong now, only not that a seal is older than it was.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

import msgspec

from lockstep.errors import StoreError
from lockstep.lake import Lake
from lockstep.layout import ServerInfo
from lockstep.sampling import LOSS, Sample, draw, valid_days
from lockstep.stores.causes import answering
from lockstep.stores.day_index import Head
from lockstep.stores.delta import DayTable
from lockstep.stores.delta_log import log_file
from lockstep.stores.redis import OnlineStore
from lockstep.view import FeatureView

_MAX_ROWS: Final = 500_000  # of all samples together; about 200 bytes each


@dataclass(frozen=True)
class Servers:
    """Who answered: a change means that rows may be gone.

    Attributes:
        who: Changes when a server restarts or another one takes its place.
        evicted: Keys that they dropped for lack of memory since they started.
    """

    who: str = ""
    evicted: int = 0

    @classmethod
    def of(cls, nodes: Iterable[ServerInfo]) -> Self:
        """What the masters say about themselves."""
        found = list(nodes)
        who = sorted(f"{node.run_id} {node.replid}" for node in found)
        digest = sha256("\n".join(who).encode()).hexdigest()[:16]
        return cls(digest, sum(node.evicted_keys for node in found))


@dataclass(frozen=True)
class Seen:
    """What the last look saw of one view.

    Attributes:
        table_id: The Delta table of its seals, when every bucket had one.
        version: The oldest version that a bucket was sealed at then; never goes down.
        servers: Who answered.
        pending: What may pass by itself, such as another's push; empty if nothing.
        since_us: When that was seen first without any progress, microseconds since 1970 UTC.
    """

    table_id: str = ""
    version: int = -1
    servers: Servers = Servers()
    pending: str = ""
    since_us: int = 0


@dataclass(frozen=True)
class _File:
    of: str
    views: dict[str, Seen]


class Memory:
    """What looks remember: in a file what was seen, in this process tables and samples.

    Args:
        file: Where it is kept; None keeps it in this process only.
        of: Names the online store and its namespace; what was seen of another one is forgotten.
    """

    def __init__(self, file: Path | None, of: str) -> None:
        self._file = file
        self._of = of
        self._tables: dict[str, tuple[DayTable, Head | None]] = {}
        self._samples: OrderedDict[tuple[object, ...], Sample] = OrderedDict()
        self._views: dict[str, Seen] = {}
        self._saved: Mapping[str, Seen] = {}

    @classmethod
    def of_store(cls, state: Path, online: OnlineStore) -> Self:
        """The memory of one project's looks at its online store."""
        return cls(state / "reconcile.json", f"{online.address} {online.names.namespace}")

    def load(self) -> None:
        """Take what the last look saved, if it was at the same store; else know nothing."""
        if self._file is None:
            return
        self._views = {}
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode(self._file.read_bytes(), type=_File)
            self._views = found.views if found.of == self._of else {}
        self._saved = dict(self._views)

    def save(self) -> None:
        """Keep what was seen for the next look, whole or not at all.

        Raises:
            StoreError: The file cannot be written.
        """
        if self._file is None or self._views == self._saved:
            return
        temporary = self._file.with_suffix(f".{uuid4().hex}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(_File(self._of, self._views)))
            temporary.replace(self._file)
        except OSError as error:
            raise StoreError(
                f"{self._file} could not be written.",
                got=f"{type(error).__name__}: {error.strerror}",
                fix="Check the disk's free space and the folder's permissions.",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._saved = dict(self._views)

    def seen(self, view: str) -> Seen:
        """What the last look saw of a view; nothing if it was never looked at."""
        return self._views.get(view, Seen())

    def remember(self, view: str, seen: Seen) -> None:
        """Keep what this look saw of a view."""
        self._views[view] = seen

    def head(self, lake: Lake, view: FeatureView) -> Head | None:
        """What is committed now, None if nothing; opens the table only after a new commit."""
        table, known = self._tables.get(view.name) or (lake.table(view), None)
        if known is None or not _unchanged(table, known):
            known = table.head_or_none()
        self._tables[view.name] = table, known
        return known

    def sample(
        self, lake: Lake, view: FeatureView, head: Head, at: datetime, *, loss: float = LOSS
    ) -> Sample:
        """The sample of what is valid at the instant; drawn again after a commit, and every day."""
        days = valid_days(lake, view, head, at)
        key = (view.name, head.table_id, head.version, days, at.date(), loss)
        if key not in self._samples:
            for other in [each for each in self._samples if each[0] == view.name]:
                if other[-1] == loss:
                    del self._samples[other]
            seed = secrets.randbits(32)
            self._samples[key] = draw(lake, view, head, at, loss=loss, seed=seed)
        self._samples.move_to_end(key)
        found = self._samples[key]
        while sum(map(len, self._expected())) > _MAX_ROWS and len(self._samples) > 1:
            self._samples.popitem(last=False)
        return found

    def _expected(self) -> Iterable[Mapping[bytes, bytes]]:
        return (sample.expected for sample in self._samples.values())


def _unchanged(table: DayTable, known: Head) -> bool:
    """Whether the newest commit is still the one that was seen, by two small reads."""
    with answering(f"The table {table.uri}"):
        if table.place.read_if_exists(log_file(known.version + 1)) is not None:
            return False
        newest = table.place.read_if_exists(log_file(known.version))
    return newest is not None and sha256(newest).hexdigest() == known.digest
