"""The same steps on the tree of the catalog and on a real mount: one class for each."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from catalog.errors import CatalogError, NotSupported
from catalog.model.access import ADMIN
from catalog.model.fields import FIELDS
from catalog.model.tree import Entry, Folder
from catalog.rules import fields
from catalog.tree.namespace import Link
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import Upload
from imagefs.errors import to_errno

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Refused(Exception):
    """A step that was refused, with the errno a program would see."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, number))
        self.errno = number


class OpenUpload(Protocol):
    """An image that is being written."""

    def write(self, offset: int, data: bytes) -> None: ...
    def truncate(self, size: int) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...


class Tree(Protocol):
    """What every frontend offers.  Paths are absolute; each step may raise Refused."""

    def put(self, path: str, data: bytes) -> None:
        """Make a new image; EEXIST when the name is taken."""

    def upload(self, path: str) -> AbstractContextManager[OpenUpload]:
        """Write a new image step by step; the end of the context is the last close(2)."""

    def read(self, path: str) -> bytes: ...
    def remove(self, path: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def remove_folder(self, path: str) -> None: ...
    def names(self, path: str) -> set[str]: ...
    def get(self, path: str, name: str) -> str:
        """A field (`image.…`) or property (`property.…`); empty when it has no value."""

    def set(self, path: str, name: str, value: str) -> None: ...
    def path_of(self, image: str) -> str:
        """Where the image with that id is."""


_numbers = count()


def new_folders(tree: Tree) -> str:
    """Make a folder of a new name in both stores."""
    made = f"folder-{next(_numbers)}"
    for store in ("file", "other"):
        tree.make_folder(f"/{store}/{made}")
    return made


def _refusals(step: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    @wraps(step)
    def translated(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return step(*args, **kwargs)
        except OSError as error:
            raise Refused(error.errno or 0) from error
        except CatalogError as error:
            raise Refused(to_errno(error)) from error

    return translated


class MountTree:
    """A mount, by system calls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _at(self, path: str) -> str:
        return f"{self._path}{path}"

    @_refusals
    def put(self, path: str, data: bytes) -> None:
        with open(self._at(path), "xb") as file:
            file.write(data)

    @contextmanager
    def upload(self, path: str) -> Iterator[OpenUpload]:
        fd = os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            yield _Descriptor(fd)
        finally:
            os.close(fd)

    @_refusals
    def read(self, path: str) -> bytes:
        return Path(self._at(path)).read_bytes()

    @_refusals
    def remove(self, path: str) -> None:
        os.unlink(self._at(path))

    @_refusals
    def rename(self, source: str, target: str) -> None:
        os.rename(self._at(source), self._at(target))

    @_refusals
    def link(self, source: str, target: str) -> None:
        os.link(self._at(source), self._at(target))

    @_refusals
    def make_folder(self, path: str) -> None:
        os.mkdir(self._at(path))

    @_refusals
    def remove_folder(self, path: str) -> None:
        os.rmdir(self._at(path))

    @_refusals
    def names(self, path: str) -> set[str]:
        return set(os.listdir(self._at(path)))

    @_refusals
    def get(self, path: str, name: str) -> str:
        try:
            return os.getxattr(self._at(path), f"user.{name}").decode()
        except OSError as error:
            if error.errno == errno.ENODATA:
                return ""
            raise

    @_refusals
    def set(self, path: str, name: str, value: str) -> None:
        os.setxattr(self._at(path), f"user.{name}", value.encode())

    @_refusals
    def path_of(self, image: str) -> str:
        return os.readlink(self._at(f"/.by-id/{image}")).removeprefix("..")


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._fd, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)


class VfsTree:
    """The catalog's tree, by its methods."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs

    def _entry(self, path: str) -> Entry:
        node = self._vfs.resolve(path)
        if not isinstance(node, Entry):
            raise Refused(errno.EISDIR)
        return node

    @_refusals
    def put(self, path: str, data: bytes) -> None:
        with self.upload(path) as upload:
            upload.write(0, data)

    @contextmanager
    def upload(self, path: str) -> Iterator[OpenUpload]:
        entry = self._vfs.create(self._vfs.place(path), ADMIN)
        upload = self._vfs.uploads.start(entry.image.number)
        yield _Upload(upload)
        if self._vfs.is_temporary(entry):
            upload.finish()
        else:
            upload.commit()

    @_refusals
    def read(self, path: str) -> bytes:
        number = self._entry(path).image.number
        reader = self._vfs.open(number, ADMIN)
        try:
            return bytes(reader.read_at(0, reader.size))
        finally:
            reader.close()

    @_refusals
    def remove(self, path: str) -> None:
        self._vfs.remove(self._vfs.place(path), ADMIN)

    @_refusals
    def rename(self, source: str, target: str) -> None:
        try:
            self._vfs.rename(self._vfs.place(source), self._vfs.place(target), ADMIN)
        except NotSupported as error:
            raise Refused(errno.EXDEV) from error

    @_refusals
    def link(self, source: str, target: str) -> None:
        self._vfs.link(self._entry(source).image.number, self._vfs.place(target), ADMIN)

    @_refusals
    def make_folder(self, path: str) -> None:
        self._vfs.make_folder(self._vfs.place(path), ADMIN)

    @_refusals
    def remove_folder(self, path: str) -> None:
        self._vfs.remove_folder(self._vfs.place(path), ADMIN)

    @_refusals
    def names(self, path: str) -> set[str]:
        folder = self._vfs.resolve(path)
        assert isinstance(folder, Folder)
        return {node.name for node in self._vfs.members(folder.number)}

    @_refusals
    def get(self, path: str, name: str) -> str:
        details = self._vfs.catalog.details(self._entry(path).image.number)
        kind, _, name = name.partition(".")
        if kind == "property":
            return details.properties.get(name, "")
        return FIELDS[name].render(details) or ""

    @_refusals
    def set(self, path: str, name: str, value: str) -> None:
        fields.set_attributes(
            self._vfs.catalog, self._entry(path).image.number, {name: value}, ADMIN
        )

    @_refusals
    def path_of(self, image: str) -> str:
        link = self._vfs.resolve(f"/.by-id/{image}")
        assert isinstance(link, Link)
        return link.target.removeprefix("..")


class _Upload:
    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def write(self, offset: int, data: bytes) -> None:
        self._upload.write(offset, data)

    def truncate(self, size: int) -> None:
        self._upload.truncate(size)

    def read(self, offset: int, size: int) -> bytes:
        return self._upload.read_at(offset, size)
