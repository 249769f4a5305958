"""The training sets that the lake keeps: `training_sets/<name>/`, and what pins their versions.

A set is there when its manifest is: data and spine come first, the manifest last. On a local disk
all appear by one rename; on S3 the files carry their content's hash in their names, and the
manifest is created only if absent. What a build that ended early left has no manifest and is no
set; what one left that another was faster than, no manifest names, and gc removes it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lockstep.errors import InputError, UnknownNameError
from lockstep.lake import Lake
from lockstep.schema import NAME
from lockstep.set_folder import MANIFEST, SETS, in_set, names_with
from lockstep.stores.files import Place
from lockstep.training.manifest import Manifest
from lockstep.training.workspace import Workspace, reporting

if TYPE_CHECKING:
    from lockstep.training.pins import Pinned

PROFILE: Final = "profile.json"
_OTHER: Final = "other features, mode, timestamp column or time zone"


@dataclass(frozen=True)
class KeptSets:
    """The kept sets of one lake, by name."""

    lake: Lake

    @property
    def _place(self) -> Place:
        return self.lake.place

    def names(self) -> list[str]:
        """Return the names of the kept sets, sorted."""
        return sorted(names_with(self._place))

    def exists(self, name: str) -> bool:
        """Return whether the lake keeps a set of that name."""
        return self._place.exists(in_set(name, MANIFEST))

    def has_file(self, manifest: Manifest, file: str) -> bool:
        """Return whether "data" or "spine" of a kept set is where its manifest says."""
        name = manifest.files.get(file)
        return name is not None and self._place.exists(in_set(manifest.name or "", name))

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of a kept set.

        Raises:
            UnknownNameError: There is no such set.
            InputError: Its manifest was changed since it was written.
        """
        found = self.find(name)
        if found is None:
            raise UnknownNameError(
                f"The lake keeps no training set named {name!r}.",
                expected=f"one of {self.names()}",
                effect="Nothing was read.",
            )
        return found

    def find(self, name: str) -> Manifest | None:
        """Return the manifest of a kept set, or None if there is no such set."""
        if not NAME.match(name):
            return None
        file = in_set(name, MANIFEST)
        content = self._place.read_if_exists(file)
        return None if content is None else Manifest.from_bytes(content, self._place.path(file))

    def all(self) -> Iterator[Manifest]:
        """Return the manifests of all kept sets, by name."""
        return (self.manifest(name) for name in self.names())

    def path(self, manifest: Manifest, file: str) -> str | None:
        """Return where "data" or "spine" of a kept set is: a path or an s3:// URI; None if not."""
        name = manifest.files.get(file)
        return self._place.path(in_set(manifest.name or "", name)) if name else None

    def profile(self, manifest: Manifest) -> bytes | None:
        """Return the profile that was kept with a set, as JSON."""
        name, found = manifest.name or "", None
        if self._place.remote:
            found = self._place.read_if_exists(in_set(name, manifest.profile_file))
        return found or self._place.read_if_exists(in_set(name, PROFILE))

    def remove(self, name: str) -> Manifest | None:
        """Remove a kept set and free what it pins; return its manifest, None if it is damaged.

        What was written elsewhere stays.

        Raises:
            UnknownNameError: There is no such set.
        """
        found: Manifest | None = None
        with suppress(InputError):
            found = self.manifest(name)
        self._place.delete(in_set(name, MANIFEST))  # no manifest, no set
        self._place.delete_all(f"{SETS}/{name}")
        folder = Path(self._place.path(f"{SETS}/{name}"))
        if not self._place.remote and folder.is_dir():
            folder.rmdir()
        return found

    def keep(self, workspace: Workspace, manifest: Manifest, profile: bytes) -> bool:
        """Keep what is in a workspace under the manifest's name; False if the name is taken."""
        name = _checked(manifest.name)
        if self._place.remote:
            return self._upload(name, workspace, manifest, profile)
        extra = {PROFILE: profile, MANIFEST: manifest.to_bytes()}
        return self._rename(name, workspace, manifest, extra)

    def _rename(
        self, name: str, workspace: Workspace, manifest: Manifest, extra: Mapping[str, bytes]
    ) -> bool:
        staged, target = workspace.folder / "kept", Path(self._place.path(f"{SETS}/{name}"))
        with reporting(target):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            for file in own_files(manifest):
                (workspace.folder / file).replace(staged / file)
            for file, content in extra.items():
                (staged / file).write_bytes(content)
            for path in staged.iterdir():
                _flush(path)
            if target.is_dir() and not (target / MANIFEST).exists():
                shutil.rmtree(target)  # what an interrupted removal left
            try:
                staged.rename(target)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                for file in own_files(manifest):
                    (staged / file).replace(workspace.folder / file)
                return False
            _flush(target.parent)
        return True

    def _upload(self, name: str, workspace: Workspace, manifest: Manifest, profile: bytes) -> bool:
        place = self._place.join(f"{SETS}/{name}")
        if place.exists(MANIFEST):
            return False
        for local, file in zip(("data.parquet", "spine.parquet"), ("data", "spine"), strict=True):
            if file in manifest.files:
                place.upload(manifest.files[file], workspace.reading(local))
        place.write(manifest.profile_file, profile)
        return place.write_if_absent(MANIFEST, manifest.to_bytes())

    def file_names(self, *, data: bool, output: str, spine: str) -> dict[str, str]:
        """Return how the files of a set are to be called.

        Args:
            data: Whether the lake keeps the data too.
            output: Hash of the data.
            spine: Hash of the spine.
        """
        remote = self._place.remote
        names = {"spine": f"spine-{spine[:16]}.parquet" if remote else "spine.parquet"}
        if data:
            names["data"] = f"data-{output[:16]}.parquet" if remote else "data.parquet"
        return names


def own_files(manifest: Manifest) -> list[str]:
    """Return the names of the files that the lake keeps beside a manifest."""
    return [manifest.files[file] for file in ("data", "spine") if file in manifest.files]


def require_name(name: str) -> None:
    """Return if a set can have the name.

    Raises:
        InputError: It can't.
    """
    _checked(name)


def _checked(name: str | None) -> str:
    if name is None or not NAME.match(name):
        raise InputError(
            f"{name!r} can't name a training set.",
            expected="lower-case letters, digits and underscores, a letter first, at most 63",
            fix="Choose another name.",
            effect="Nothing was joined.",
        )
    return name


def name_for(file: str, made: Manifest) -> str:
    """Return the name under which the lake pins a set that was written to a file elsewhere.

    Args:
        file: The file's absolute path: two files never share a name, nor do two questions.
        made: What was written.
    """
    said = [file, made.output.hash, made.spine.hash, made.mode, made.timestamp, made.time_zone]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    stem = Path(file).stem.lower()
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in stem)
    return f"set_{plain[:40]}_{digest[:12]}"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_same_question(there: Manifest | None, name: str, asked: "Pinned") -> None:
    """Return if a kept set may be the answer to what is asked for.

    Raises:
        InputError: It can't be: something else was asked for under that name.
    """
    if there is not None and question(there) != question(asked):
        raise _taken(name, _OTHER, "Nothing was joined.")


def require_same_answer(there: Manifest, made: Manifest) -> None:
    """Return if a kept set is the very one that was made again.

    Raises:
        InputError: Something else was asked for, or it has another content.
    """
    if there.spine.hash != made.spine.hash:
        what = "another spine"
    elif question(there) != question(made):
        what = _OTHER
    elif not there.output.equals(made.output):
        what = "other values"
    else:
        return
    raise _taken(made.name or "", what, "The kept set is as it was; no file was written.")


def question(of: "Manifest | Pinned") -> tuple[object, ...]:
    """Return what was asked of a spine, and of whatever was committed then."""
    return of.features, of.mode, of.timestamp, of.time_zone


def _taken(name: str, got: str, effect: str) -> InputError:
    return InputError(
        f"The lake keeps another training set named {name!r}.",
        expected="the very same content",
        got=got,
        fix=f"Choose another name, or remove it: lockstep training-sets remove {name}.",
        effect=effect,
    )
