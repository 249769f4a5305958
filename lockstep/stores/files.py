"""Files of the lake: the same few operations on a local folder and on an s3:// prefix.

`open_place("lake")` and `open_place("s3://bucket/lake")` return a `Place`. S3 is configured by the
standard AWS environment variables (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`) or by `options` of the same
names; Delta and Polars get the very same options, so the three never talk to different stores.
"""

import os
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from lockstep.errors import ConfigError, StoreError

AWS_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ALLOW_HTTP",
)
_TEMPORARY: Final = ".lockstep-tmp-"

# Bounds how long a store that does not answer holds up a run; the defaults are 3 minutes and more.
_DELTA_WAITS: Final = {"connect_timeout": "5s", "timeout": "30s", "retry_timeout": "60s"}
_POLARS_WAITS: Final = {"connect_timeout": "5s", "timeout": "30s", "retry_timeout_ms": 30_000}


@dataclass(frozen=True)
class FileInfo:
    """One file: `path` relative to the place it was listed from, with `/`; `size` in bytes.

    `modified_ns` is nanoseconds since 1970, locally the later of mtime and ctime, so that a file
    moved into the folder with an old mtime counts as new. `etag` is None locally.
    """

    path: str
    size: int
    modified_ns: int
    etag: str | None


Files: TypeAlias = list[FileInfo]


class Place(ABC):
    """A folder or prefix. Paths are relative, with `/`; one that would leave the place is refused.

    Every method raises StoreError, naming the file, when the store refuses or does not answer.
    """

    uri: str
    options: dict[str, str]

    @property
    def remote(self) -> bool:
        """Whether reading costs a round trip each time."""
        return bool(self.options)

    @property
    def delta_options(self) -> dict[str, str] | None:
        """What Delta takes to reach this place."""
        return {**self.options, **_DELTA_WAITS} if self.options else None

    @property
    def polars_options(self) -> dict[str, Any] | None:
        """What Polars takes to reach this place."""
        return {**self.options, **_POLARS_WAITS} if self.options else None

    def path(self, name: str) -> str:
        """Return what Delta and Polars call that file or folder: a local path or an s3:// URI."""
        return f"{self.uri}/{checked(name)}"

    @abstractmethod
    def join(self, name: str) -> "Place":
        """Return the place one or more folders below."""

    @abstractmethod
    def list(self, folder: str = "") -> list[FileInfo]:
        """Return every file at any depth below `folder`, by path; a missing folder holds none."""

    def unfinished(self, folder: str = "") -> Files:  # noqa: ARG002 - S3 has none
        """Return what writers that were killed left of files below `folder`; `list` has none."""
        return []

    @abstractmethod
    def read_if_exists(self, name: str) -> bytes | None:
        """Return the content of one file, or None when there is no such file."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Replace or create a file, whole or not at all, and flush it to the disk."""

    @abstractmethod
    def write_if_absent(self, name: str, data: bytes) -> bool:
        """Create a file whole, if it does not exist; True if it now holds `data`.

        Of several writers of different data exactly one gets True. A file that already holds
        exactly `data` also gives True, because an answer lost on the way looks the same.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name (a folder is not a file)."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; one that is already gone is fine."""

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises:
            StoreError: There is no such file, or the store does not answer.
        """
        data = self.read_if_exists(name)
        if data is None:
            raise StoreError(f"The file {self.path(name)} does not exist.")
        return data

    def upload(self, name: str, file: Path) -> None:
        """Replace or create a file with the content of a local one, whole or not at all."""
        self.write(name, file.read_bytes())

    def download(self, name: str, file: Path) -> None:
        """Write the content of one file to a local one.

        Raises:
            StoreError: There is no such file, or the store does not answer.
        """
        file.write_bytes(self.read(name))

    def delete_all(self, folder: str) -> None:
        """Delete every file below a folder."""
        for info in self.list(folder):
            self.delete(info.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"


def open_place(uri: str, options: Mapping[str, str] | None = None) -> Place:
    """Return the place at a local path or `s3://bucket/prefix`; nothing is created or contacted.

    Args:
        uri: A local path (relative ones are taken from the working directory) or an s3:// URI.
        options: AWS settings by their environment names; they win over the environment.

    Raises:
        ConfigError: Another scheme, no bucket, or a setting that would lose commits.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _LocalPlace(Path(uri))
    if scheme != "s3" or not rest.strip("/"):
        raise ConfigError(
            f"The location {uri!r} cannot be used.",
            expected="a local path or s3://bucket/prefix",
            fix="Change `root` under [tool.lockstep].",
        )
    from lockstep.stores.s3 import s3_place

    bucket, _, prefix = rest.strip("/").partition("/")
    return s3_place(bucket, prefix, _aws_options(options or {}))


def probe_conditional_put(uri: str, options: Mapping[str, str] | None = None) -> None:
    """Return if the store at `uri` refuses to create the same object twice; else raise.

    Two Delta commits of the same version differ only in which of them came first. A store that
    ignores If-None-Match acknowledges both and keeps one. The probe object is deleted again.

    Raises:
        StoreError: The store accepted the second creation, or did not answer.
    """
    place = open_place(uri, options)
    name = f"_lockstep_probe_{uuid.uuid4().hex}"
    place.write_if_absent(name, b"first")
    try:
        both = place.write_if_absent(name, b"second")
    finally:
        place.delete(name)
    if both:
        raise StoreError(
            f"The store of {uri} ignores If-None-Match, so concurrent commits would be lost.",
            expected="the second conditional PUT of one object to be refused (412)",
            got="200 OK",
            fix="Use a store with conditional writes, or switch them on (S3 and MinIO: on by "
            "default; a proxy in between must pass the header If-None-Match).",
            effect="Nothing was written.",
        )


def checked(name: str) -> str:
    """Return the relative path, if it stays below the place it is joined to.

    Raises:
        StoreError: It is absolute, or has an empty, '.' or '..' part, or a NUL.
    """
    parts = name.split("/")
    if "\0" in name or any(part in {"", ".", ".."} for part in parts):
        raise StoreError(
            f"The path {name!r} is refused.",
            expected="a relative path without empty, '.' and '..' parts",
            effect="Nothing was read or written.",
        )
    return name


def _aws_options(given: Mapping[str, str]) -> dict[str, str]:
    found = {key: os.environ[key] for key in AWS_VARIABLES if os.environ.get(key)}
    if "AWS_ACCESS_KEY_ID" in given:
        found.pop("AWS_SESSION_TOKEN", None)  # belongs to the environment's own key
    found.update(given)
    for_s3 = found.pop("AWS_ENDPOINT_URL_S3", None)
    if for_s3 and "AWS_ENDPOINT_URL" not in given:
        found["AWS_ENDPOINT_URL"] = for_s3
    found.setdefault("AWS_REGION", found.pop("AWS_DEFAULT_REGION", "us-east-1"))
    if os.environ.get("AWS_S3_LOCKING_PROVIDER") or "AWS_S3_LOCKING_PROVIDER" in found:
        raise ConfigError(
            "AWS_S3_LOCKING_PROVIDER is set, but the Delta library no longer locks through it.",
            fix="Unset it: commits are made safe by conditional PUT alone, which is probed.",
        )
    plain = found.get("AWS_ENDPOINT_URL", "").startswith("http://")
    if plain and found.get("AWS_ALLOW_HTTP", "").lower() not in {"true", "1"}:
        raise ConfigError(
            f"AWS_ENDPOINT_URL is {found['AWS_ENDPOINT_URL']}, which is not encrypted.",
            fix="Use https://, or set AWS_ALLOW_HTTP=true (on the S3 resource: use_ssl=False) if "
            "the network is yours alone.",
        )
    return found


class _LocalPlace(Place):
    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links
        self.uri = str(self._root)
        self.options = {}

    def join(self, name: str) -> Place:
        return _LocalPlace(self._root / checked(name))

    def list(self, folder: str = "") -> list[FileInfo]:
        return self._walk(folder, temporary=False)

    def unfinished(self, folder: str = "") -> Files:
        return self._walk(folder, temporary=True)

    def _walk(self, folder: str, *, temporary: bool) -> Files:
        top = self._root / checked(folder) if folder else self._root
        found = []
        for parent, _, names in os.walk(top):
            for name in names:
                info = self._info(Path(parent, name))
                if info is not None and name.startswith(_TEMPORARY) == temporary:
                    found.append(info)
        return sorted(found, key=lambda info: info.path)

    def _info(self, path: Path) -> FileInfo | None:
        try:
            status = path.stat()
        except FileNotFoundError:  # deleted since its folder was read
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        relative = path.relative_to(self._root).as_posix()
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        return FileInfo(relative, status.st_size, changed, None)

    def read_if_exists(self, name: str) -> bytes | None:
        with self._reporting(name):
            try:
                return (self._root / checked(name)).read_bytes()
            except FileNotFoundError:
                return None
        return None

    def write(self, name: str, data: bytes) -> None:
        with self._reporting(name), self._temporary(name, data) as temporary:
            temporary.replace(self._root / name)

    def write_if_absent(self, name: str, data: bytes) -> bool:
        with self._reporting(name), self._temporary(name, data) as temporary:
            try:
                os.link(temporary, self._root / name)
            except FileExistsError:
                return self.read_if_exists(name) == data
        return True

    def exists(self, name: str) -> bool:
        return (self._root / checked(name)).is_file()

    def delete(self, name: str) -> None:
        with self._reporting(name):
            (self._root / checked(name)).unlink(missing_ok=True)

    @contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[Path]:
        folder = (self._root / checked(name)).parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The file {self._root / name} could not be read or written.",
                got=f"{type(error).__name__}: {error.strerror}",
                fix="Check the disk's free space and the folder's permissions.",
                effect="The file is as it was before.",
            ) from error
