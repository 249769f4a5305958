"""A training set anew from its manifest: the same bits, or the reason why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lockstep.erasure.files import require_not_voided
from lockstep.errors import InputError, LockstepError, StoreError, first_line
from lockstep.hashing import content_hash
from lockstep.serving.plan import Features, compile_plan
from lockstep.time import zone_named
from lockstep.training.column_hash import BLOCK, ColumnHashes
from lockstep.training.kept_sets import KeptSets
from lockstep.training.libraries import versions
from lockstep.training.manifest import Contents, Manifest, Mode, ViewPin
from lockstep.training.memory import budget
from lockstep.training.order import Order
from lockstep.training.parts import block_count
from lockstep.training.pins import Pinned, PinnedView
from lockstep.training.plan import Progress, build
from lockstep.training.set_file import exporting, require_kind
from lockstep.training.spine import AnySpine, open_spine, require_spine
from lockstep.training.training_set import SetInFile, TrainingSet
from lockstep.training.widths import widths_of

if TYPE_CHECKING:
    from lockstep.store import Store

_REFUSED = "Nothing was rebuilt."


@dataclass(frozen=True)
class Rebuilt:
    """A set that was rebuilt and is, bit for bit, the one of its manifest.

    Attributes:
        training: The set.
        data_checked: Whether the data that the lake keeps was compared too.
    """

    manifest: Manifest
    training: TrainingSet
    data_checked: bool


def rebuild_set(
    store: "Store",
    manifest: Manifest,
    *,
    spine: AnySpine | None = None,
    out: Path | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Rebuilt:
    """Join the spine again with what was pinned, and compare every column.

    Args:
        spine: The spine, if the lake does not keep it.
        out: Where to write the set, and the manifest beside it; None writes nothing.
        memory: Bytes that the work may take; 60 % of what is free if not given.

    Raises:
        StoreError: A version, a day or its content is gone or damaged, or the result differs.
            If only the data that the lake keeps is damaged, the file was written.
        InputError: The spine is not there or was changed, or the file can't be written.
    """
    if out is not None:
        require_kind(out)
    require_not_voided(store.lake, manifest.name, manifest.to_json())
    kept = KeptSets(store.lake).path(manifest, "spine")
    found = open_spine(
        _kept_spine(store, manifest, kept) if spine is None else spine,
        store.lake.place,
        {key: dtype for pin in manifest.views.values() for key, dtype in pin.keys.items()},
        manifest.timestamp,
    )
    views = tuple(_still_there(store, pin, manifest) for pin in manifest.views.values())
    pinned = _pinned(manifest, views)
    require_spine(
        found.schema, manifest.timestamp, manifest.time_zone, pinned.keys, pinned.features
    )
    asked = Order(found, pinned, None, None, budget(memory), stated=memory is not None)
    training = build(store, asked, progress, in_file=out is not None)
    _require_equal_spine(manifest, training.manifest)
    _require_equal_output(store, manifest, training.manifest, views)
    if out is not None and isinstance(training, SetInFile):
        with exporting(Path(training.data), out) as put:
            put(manifest)
    return Rebuilt(manifest, training, _check_kept_data(store, manifest, out))


def _pinned(manifest: Manifest, views: tuple[ViewPin, ...]) -> Pinned:
    return Pinned(
        created_at=manifest.created_at,
        feature_set=manifest.feature_set,
        features=manifest.features,
        mode=manifest.mode,
        timestamp=manifest.timestamp,
        time_zone=manifest.time_zone,
        partition_zone=manifest.partition_zone,
        views=views,
    )


def pinned_like(
    store: "Store",
    manifest: Manifest,
    features: Features,
    *,
    timestamp: str,
    time_zone: str | None,
) -> Pinned:
    """Return the versions that a set read, for another look at the same features.

    Raises:
        InputError: The set has other features.
        StoreError: The lake no longer has what it pins.
    """
    asked = compile_plan(store.catalog, features).features
    if asked != manifest.features:
        raise InputError(
            "The manifest is that of a set with other features.",
            expected=", ".join(asked),
            got=", ".join(manifest.features),
            effect="Nothing was compared.",
        )
    views = tuple(_still_there(store, pin, manifest) for pin in manifest.views.values())
    return replace(_pinned(manifest, views), timestamp=timestamp, time_zone=time_zone)


def _kept_spine(store: "Store", manifest: Manifest, path: str | None) -> str:
    if path is None or not KeptSets(store.lake).has_file(manifest, "spine"):
        raise InputError(
            "The spine of the manifest is not kept."
            if path is None
            else f"The spine {path} is gone.",
            expected="the rows that the set was made of",
            fix="Pass them: --spine FILE. Sets that are made with a name or a file keep theirs.",
            effect=_REFUSED,
        )
    return path


def _still_there(store: "Store", pin: ViewPin, manifest: Manifest) -> ViewPin:
    """Return the pin if the lake still has what it names.

    Raises:
        StoreError: It has not; the message says which version, day and revision.
    """
    if pin.version is None:
        return pin
    view = PinnedView(pin, store.lake, zone_named(manifest.partition_zone))
    try:
        history = view.reader.history
    except LockstepError as error:
        raise StoreError(
            f"The training set can't be rebuilt: version {pin.version} of {pin.view} is gone. "
            f"{error.culprit}",
            expected=error.expected,
            got=error.got,
            fix="Restore the table from a backup.",
            effect=_REFUSED,
        ) from error
    there: dict[date, list[tuple[int, str]]] = {
        day: [(record.revision, record.content_hash) for record in records]
        for day, records in _records(history, manifest.mode).items()
    }
    for day, revisions in pin.days.items():
        for revision, digest in revisions:
            if (revision, digest) not in there.get(day, ()):
                raise StoreError(
                    f"The training set can't be rebuilt: revision {revision} of {day} of {pin.view}"
                    f" is not in version {pin.version}.",
                    expected=f"content {digest}",
                    got=str(there.get(day) or "no such day"),
                    fix="Restore the table's log from a backup.",
                    effect=_REFUSED,
                )
    largest = max((record.rows for record in history.current.values()), default=0)
    return replace(pin, largest=largest, widths=widths_of(view.table, history, pin.features))


def _records(history: Any, mode: Mode) -> Mapping[date, Sequence[Any]]:
    if mode == "event":
        return {day: (record,) for day, record in history.current.items()}
    days: Mapping[date, Sequence[Any]] = history.days
    return days


def _require_equal_spine(manifest: Manifest, made: Manifest) -> None:
    if made.spine.hash == manifest.spine.hash:
        return
    differing = _differing(manifest.spine.columns, made.spine.columns)
    raise InputError(
        "The spine is not the one that the set was made of.",
        expected=f"{manifest.spine.rows:,} rows with hash {manifest.spine.hash}",
        got=f"{made.spine.rows:,} rows with hash {made.spine.hash}"
        + (f"; {', '.join(differing)} differ" if differing else ""),
        fix="Pass the right one: --spine FILE; or restore it from a backup.",
        effect=_REFUSED,
    )


def _require_equal_output(
    store: "Store", manifest: Manifest, made: Manifest, views: Sequence[ViewPin]
) -> None:
    if made.output.equals(manifest.output):
        return
    differing = _differing(manifest.output.columns, made.output.columns)
    damaged = [
        sentence
        for pin in views
        if any(name.startswith(f"{pin.view}:") for name in differing)
        for sentence in _damaged(store, pin, manifest)
    ]
    now = versions()
    changed = [
        f"{name} was {then} and is {now.get(name)}"
        for name, then in manifest.libraries.items()
        if now.get(name) != then
    ]
    raise StoreError(
        f"The rebuilt set differs from its manifest in {', '.join(differing) or 'its columns'}.",
        expected=f"the hash {manifest.output.hash}",
        got=made.output.hash,
        fix=" ".join(damaged) or f"Other libraries were in use: {'; '.join(changed)}."
        if damaged or changed
        else "The manifest's own hash may have been changed: compare it with the kept one.",
        effect=_REFUSED,
    )


def _damaged(store: "Store", pin: ViewPin, manifest: Manifest) -> list[str]:
    """Return a sentence per revision whose stored rows are not those that were certified."""
    if pin.version is None:
        return []
    reader = PinnedView(pin, store.lake, zone_named(manifest.partition_zone)).reader
    columns = [name for name in reader.schema if name not in {"known_at", "day"}]
    said = []
    for day, revisions in pin.days.items():
        for revision, digest in revisions:
            frame = reader.rows(day, revision, columns)
            # A revision of before a rebuild had other columns: its hash is that of those.
            if set(frame.columns) == set(columns) and content_hash(frame) != digest:
                said.append(
                    f"The rows of {pin.view} for {day}, revision {revision}, are damaged: restore "
                    "the day's file from a backup."
                )
    return said


def _check_kept_data(store: "Store", manifest: Manifest, out: Path | None) -> bool:
    """Compare the data that the lake keeps with the manifest; False if it keeps none.

    Raises:
        StoreError: It was changed, or can't be read.
    """
    sets = KeptSets(store.lake)
    path = sets.path(manifest, "data")
    if path is None or not sets.has_file(manifest, "data"):
        return False
    try:
        scan = pl.scan_parquet(path, glob=False, storage_options=store.lake.place.polars_options)
        hashes = ColumnHashes(scan.collect_schema())
        for number in range(block_count(manifest.rows)):
            hashes.update(scan.slice(number * BLOCK, BLOCK).collect())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        got = first_line(error)
        raise _spoilt(manifest, f"The kept data {path} can't be read.", got, out) from error
    if Contents(hashes.rows, hashes.total, hashes.columns).equals(manifest.output):
        return True
    differing = ", ".join(_differing(manifest.output.columns, hashes.columns)) or "its rows"
    said = f"The kept data {path} was changed: {differing} differ."
    raise _spoilt(manifest, said, hashes.total, out)


def _spoilt(manifest: Manifest, said: str, got: str, out: Path | None) -> StoreError:
    return StoreError(
        said,
        expected=f"the hash {manifest.output.hash}",
        got=got,
        fix=f"Rebuild it: lockstep rebuild {manifest.name} --out FILE, and put the file in place."
        if out is None
        else f"Put {out} in its place.",
        effect="The rebuilt set itself is the one of the manifest"
        + ("." if out is None else f", and is in {out}."),
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in dict.fromkeys([*one, *other])
        if dict(one.get(name, {})) != dict(other.get(name, {}))
    ]
