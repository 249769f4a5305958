"""The intermediate files of one build: a folder of the lake, or of this machine alone."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockstep.errors import StoreError
from lockstep.stores.files import Place


class Workspace:
    """A folder in which large files are written and read as local ones.

    On a remote store a file is written here and uploaded when it is `done`; whoever needs it on
    another machine fetches it.

    Args:
        root: The lake; None is a temporary folder, deleted when nobody refers to this object.
        name: The folder, relative to the lake.
    """

    def __init__(self, root: Place | None, name: str = "") -> None:
        self._root, self.name = root, name
        self.remote = root is not None and root.remote
        if root is None or self.remote:
            self.folder = Path(tempfile.mkdtemp(prefix="lockstep-set-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        else:
            self.folder = Path(root.path(name))

    def writing(self, name: str) -> Path:
        """Return where to write a file; nobody reads it before it is `done`."""
        with reporting(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".lockstep-tmp-{name}"

    def done(self, name: str) -> Path:
        """Give what was written its name, whole; return where it is on this machine."""
        file = self.folder / name
        with reporting(file):
            self.writing(name).replace(file)
        if self.remote and self._root is not None:
            self._root.upload(f"{self.name}/{name}", file)
        return file

    def reading(self, name: str) -> Path:
        """Return a file that is done as a local one, fetched if it is elsewhere.

        Raises:
            StoreError: There is no such file.
        """
        file = self.folder / name
        if self.remote and self._root is not None and not file.exists():
            self._root.download(f"{self.name}/{name}", self.writing(name))
            with reporting(file):
                self.writing(name).replace(file)
        if not file.exists():
            raise StoreError(
                f"The intermediate file {file} is gone.",
                fix="Start the build again; `lockstep gc` removes what an older one left.",
                effect="No set was made.",
            )
        return file

    def clear(self) -> None:
        """Delete everything."""
        if self.remote and self._root is not None:
            self._root.delete_all(self.name)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the file.

    Raises:
        StoreError: The system refused.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} could not be read or written.",
            got=f"{type(error).__name__}: {error.strerror or error}",
            fix="Check the disk's free space and the folder's permissions.",
            effect="No set was made.",
        ) from error
