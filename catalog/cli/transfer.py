"""`imagefs add`, `export` and `replicate`: the commands that transfer an image's data."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from catalog.appearing import appearing
from catalog.cli.arguments import sources
from catalog.cli.arguments.assignments import field_options, given_fields, property_option
from catalog.cli.arguments.sources import Source
from catalog.cli.arguments.targets import absolute, find
from catalog.cli.console.output import (
    json_document,
    json_option,
    line,
    progress_bar,
    report,
    transfer_bar,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import (
    AlreadyExists,
    CatalogError,
    ImageTooLarge,
    InvalidImage,
    InvalidName,
    InvalidValue,
    IsAFolder,
    NotFound,
)
from catalog.model import names
from catalog.model.image import Image
from catalog.model.tree import Folder

if TYPE_CHECKING:
    from catalog.copies.progress import Progress
    from catalog.model.access import Principal
    from catalog.model.tree import Place
    from catalog.tree.vfs import Vfs
    from catalog.uploads.upload import Upload

_HOLE = bytes(64 * 1024)
"""A block of zeros; in an exported file it becomes a hole."""


@click.command()
@click.argument("source", metavar="FILE|URL|-")
@click.option("--store", help="The store to put it in; else the default store.")
@click.option("--name", help="Its name, perhaps with a folder; else the file's own.")
@property_option("Set a property.")
@field_options
@click.option("--sha256", metavar="HEX", help="Refuse data with another digest.")
@click.option("--replace", is_flag=True, help="The image of that name goes to the trash.")
@click.option("--as-is", is_flag=True, help="Unpack nothing.")
@json_option
@pass_session
def add(
    session: Session,
    /,
    source: str,
    store: str | None,
    name: str | None,
    properties: dict[str, str],
    sha256: str | None,
    replace: bool,
    as_is: bool,
    as_json: bool,
    **fields: object,
) -> None:
    """Add an image from a file, an http or https URL, or standard input (-).

    What is compressed with gzip, xz, zstd or bzip2 is unpacked, and the disk is taken out of an
    OVA; --sha256 may be the digest of either.  It has its name only once all of it is there:
    what fails leaves nothing behind.
    """
    vfs = session.vfs
    path = _new_path(session, source, store, name)
    _check_name(vfs, vfs.place(path), path, replace)
    attributes = {f"property.{key}": value for key, value in properties.items()}
    attributes |= {f"image.{key}": value for key, value in given_fields(fields).items()}
    expected = None if sha256 is None else _checked_sha256(sha256)
    with sources.opened(vfs.catalog, source) as data:
        if not (as_is or _is_meant(attributes)):
            data = sources.unpacked(data, source)
        if data.packed is not None and name is None:
            name = data.packed.name(path.rpartition("/")[2])
            path = _new_path(session, source, store, name)
            _check_name(vfs, vfs.place(path), path, replace)
        if expected is not None and data.packed is None:
            attributes["image.os_hash_value"] = expected
        place = vfs.place(path)
        with progress_bar(place.name, data.size) as progress:
            write = _Writing(vfs, data, progress, expected)
            image = _upload(vfs, write, place, attributes, session.principal, replace)
    for note in data.packed.notes if data.packed is not None else ():
        report(f"{place.name}: {note}")
    _tell(image, path, as_json)


@click.command()
@click.argument("image")
@click.argument("file", metavar="FILE|-", type=click.Path(dir_okay=False))
@pass_session
def export(session: Session, image: str, file: str) -> None:
    """Write IMAGE's data to FILE or standard output, verified while it is read.

    FILE appears, or is replaced, only once all of it is right.
    """
    from catalog.upkeep.verify import read_verified

    found = find(session.vfs, image).image
    data = read_verified(session.catalog, found, session.principal)
    with progress_bar(found.name, found.size) as progress:
        if file == "-":
            _to_stdout(data, progress)
        else:
            _to_file(data, Path(file), progress)
    if found.os_hash_value is None:
        report(f"{found.name}: written, but not verified: the image had no digest")


@click.command()
@click.argument("image")
@click.argument("store")
@click.option("--name", metavar="PATH", help="Its path in that store; else the image's name.")
@json_option
@pass_session
def replicate(session: Session, image: str, store: str, name: str | None, as_json: bool) -> None:
    """Copy IMAGE to another STORE as well, verified while it is copied."""
    vfs = session.vfs
    vfs.catalog.store(store)
    found = find(vfs, image).image
    place = vfs.place(absolute(f"{store}/{(name or found.name).strip('/')}"))
    with transfer_bar(found.name, found.size) as progress:
        entry = vfs.link(found.number, place, session.principal, progress=progress)
    _tell(entry.image, vfs.path(entry), as_json)


def _tell(image: Image, path: str, as_json: bool) -> None:
    if as_json:
        json_document({"path": path, "id": image.id})
    else:
        line(f"{image.id}  {path}")


def _new_path(session: Session, source: str, store: str | None, name: str | None) -> str:
    store = store or session.settings.catalog.default_store
    session.catalog.store(store)
    name = name or sources.name_of(source)
    if name is None:
        raise click.UsageError("what is added this way needs --name")
    return f"/{store}/{name.strip('/')}"


def _check_name(vfs: Vfs, place: Place, path: str, replace: bool) -> None:
    """Refuse a name before any data is transferred; the rename at the end checks it again."""
    if names.is_temporary(place.name):
        raise InvalidName(place.name, "is a temporary name, never an image's: give --name")
    with suppress(NotFound):
        present = vfs.lookup(place.folder, place.name)
        if isinstance(present, Folder):
            raise IsAFolder(path)
        if not replace:
            raise AlreadyExists(path, "already exists: give --name or --replace")


def _checked_sha256(value: str) -> str:
    from catalog.model.digests import hash_algorithm

    if hash_algorithm(value) != "sha256":
        raise InvalidValue("--sha256", "is 64 hexadecimal digits")
    return value


def _is_meant(attributes: Mapping[str, str]) -> bool:
    """Whether packed data is to stay packed: kernels, initrds, Glance's containers."""
    packed_by_nature = attributes.get("image.disk_format") in ("aki", "ari", "ami")
    return packed_by_nature or attributes.get("image.container_format", "bare") != "bare"


def _upload(
    vfs: Vfs,
    write: _Writing,
    place: Place,
    attributes: Mapping[str, str],
    principal: Principal,
    replace: bool,
) -> Image:
    """Upload under a temporary name and publish by a rename; a failed image is removed."""
    from catalog.model.tree import Place
    from catalog.rules import fields

    temporary = Place(place.folder, _temporary_name(place.name))
    image = vfs.create(temporary, principal).image
    try:
        fields.set_attributes(vfs.catalog, image.number, attributes, principal)
        write(image, principal)
        with _uninterrupted():
            vfs.rename(temporary, place, principal, replace=replace)
    except BaseException as error:
        _give_up(vfs, image, temporary, principal, error)
        if isinstance(error, CatalogError) and error.subject == temporary.name:
            error.subject = place.name
        raise
    return image


def _temporary_name(name: str) -> str:
    """A temporary name that shows the final one, in case of a crash; at most 255 bytes."""
    return f".{name.encode()[:200].decode(errors='ignore')}.{token_hex(4)}"


@dataclass(frozen=True, slots=True)
class _Writing:
    """Writes the data of a source to a new image."""

    vfs: Vfs
    source: Source
    progress: Progress
    expected: str | None
    """The sha256 of the image, or of the packed data."""

    def __call__(self, image: Image, principal: Principal) -> None:
        upload = self.vfs.uploads.start(image.number)
        self._copy(upload, self._largest(image))
        size = self.source.size
        if self.source.packed is None and size is not None and upload.size < size:
            upload.truncate(size)  # it ends with a hole
        if upload.size == 0:
            raise InvalidImage(image.name, "there is no data")
        if self.source.packed is not None:
            self._tell_source(image, self.source.packed.source_sha256(), principal)
        upload.finish()

    def _copy(self, upload: Upload, largest: int | None) -> None:
        taken = 0
        for offset, data in self.source.blocks:
            if largest is not None and offset + len(data) > largest:
                reason = f"unpacked it has more than {largest} bytes, all that its store has"
                raise ImageTooLarge(upload.image.name, reason)
            upload.write(offset, data)
            packed = self.source.packed
            self.progress(len(data) if packed is None else packed.taken - taken)
            taken = taken if packed is None else packed.taken

    def _largest(self, image: Image) -> int | None:
        """The limit for an unpacked image: zeros need no space, so no full disk would stop them."""
        if self.source.packed is None:
            return None
        entry = self.vfs.entries_of(image.number)[0]
        return self.vfs.catalog.store(entry.store).usage().total

    def _tell_source(self, image: Image, sha256: str, principal: Principal) -> None:
        from catalog.rules import fields

        values = {"property.source_sha256": sha256}
        if self.expected not in (None, sha256):
            # If it is not the digest of the packed data, it must be that of the image; the
            # commit compares it.
            values["image.os_hash_value"] = str(self.expected)
        fields.set_attributes(self.vfs.catalog, image.number, values, principal)


def _give_up(
    vfs: Vfs, image: Image, temporary: Place, principal: Principal, error: BaseException
) -> None:
    from catalog.rules import fields
    from catalog.uploads.upload import reason_of

    reason = str(error) if isinstance(error, OSError) else reason_of(error)
    with suppress(CatalogError):
        upload = vfs.uploads.get(image.number)
        if upload is not None:
            upload.cancel(reason)
        # `--protected` was meant for the complete image; this one has to be removed.
        fields.set_attributes(vfs.catalog, image.number, {"image.protected": "false"}, principal)
        vfs.remove(temporary, principal)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay signals during a commit: it is short, and must not be interrupted half-way."""
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _to_stdout(data: Iterator[bytes], progress: Progress) -> None:
    if sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal: redirect it, or give a FILE")
    out = sys.stdout.buffer
    for chunk in data:
        out.write(chunk)
        progress(len(chunk))
    out.flush()


def _to_file(data: Iterator[bytes], file: Path, progress: Progress) -> None:
    if file.exists() and not file.is_file():
        # The rename at the end would replace /dev/null or a disk by a file.
        raise click.UsageError(f"{file} is not a regular file: give - and redirect")
    with appearing(file) as part, part.open("xb", buffering=0) as out:
        for chunk in data:
            _write_sparse(out.fileno(), chunk)
            progress(len(chunk))
        out.truncate()
        os.fsync(out.fileno())


def _write_sparse(fd: int, chunk: bytes) -> None:
    """Write at the file's position; for zeros, only move the position, which leaves a hole."""
    view = memoryview(chunk)
    for start in range(0, len(chunk), len(_HOLE)):
        block = view[start : start + len(_HOLE)]
        if block == _HOLE[: len(block)]:
            os.lseek(fd, len(block), os.SEEK_CUR)
        else:
            while block:
                block = block[os.write(fd, block) :]
