"""A catalog for a test, and what tests do with it again and again, in the words of the tree."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from catalog.catalog import Catalog
from catalog.formats import gate
from catalog.formats.gate import Detected
from catalog.model.access import ADMIN, Principal, Role
from catalog.model.image import Image
from catalog.model.tree import Entry, Folder
from catalog.repository.engines.opening import kind_and_file
from catalog.rules import fields
from catalog.service.bootstrap import make_catalog
from catalog.settings import CatalogSettings, Settings
from catalog.stores.folder.store import FilesystemStoreSettings
from catalog.stores.memory import MemoryStoreSettings
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import Upload
from tests.kit.databases import url_at

ALICE = Principal("alice")
BOB = Principal("bob")
READER = Principal("alice", Role.READER)

FILE_STORES = ("file", "other")


def settings_at(path: Path, **catalog: object) -> Settings:
    """Two folders and a memory store below `path`, over a database of its own."""
    values: dict[str, object] = {
        "url": url_at(path),
        "staging": path / "staging",
        **catalog,
    }
    stores = {name: FilesystemStoreSettings(path=path / name) for name in FILE_STORES}
    memory = MemoryStoreSettings(capacity=1 << 24)
    return Settings("test", CatalogSettings.model_validate(values), {**stores, "memory": memory})


def new_catalog(settings: Settings) -> Catalog:
    """As `make_catalog`, several times as fast: the migrations are done once a process."""
    kind, path = kind_and_file(settings.catalog.url)
    if kind == "sqlite" and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_empty_database(tuple(sorted(settings.stores))))
    return make_catalog(settings)


@cache
def _empty_database(stores: tuple[str, ...]) -> bytes:
    """The file of a catalog with the folders of these stores, and nothing else."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.db"
        values = {"url": f"sqlite:///{path}", "staging": Path(folder) / "staging"}
        each = dict.fromkeys(stores, MemoryStoreSettings(capacity=1))
        make_catalog(Settings("test", CatalogSettings.model_validate(values), each)).close()
        # The journal of it is gone: its last user has closed it.
        return path.read_bytes()


def some_bytes(size: int, seed: int = 0) -> bytes:
    """Random bytes, the same for each `seed`."""
    return random.Random(seed).randbytes(size)


def begin(vfs: Vfs, path: str, data: bytes = b"", who: Principal = ALICE) -> Upload:
    """Create an image and write to it; it stays `saving`."""
    entry = vfs.create(vfs.place(path), who)
    upload = vfs.uploads.start(entry.image.number)
    if data:
        upload.write(0, data)
    return upload


def put(vfs: Vfs, path: str, data: bytes = b"some data", who: Principal = ALICE) -> Image:
    """Create an image, write it and commit."""
    upload = begin(vfs, path, data, who)
    upload.commit()
    return vfs.catalog.image(upload.image.number)


def put_as_before(vfs: Vfs, path: str, data: bytes = b"some data", who: Principal = ALICE) -> Image:
    """As `put`, of any name: an earlier version let an image be called so."""
    place = vfs.place(path)
    above, _, _ = path.rpartition("/")
    put(vfs, f"{above}/put as before", data, who)
    old = entry(vfs, f"{above}/put as before")
    with vfs.catalog.write() as repository:
        repository.move_entry(old.location, place.folder, place.name)
        repository.set_image(old.image.number, name=place.name)
    return image_at(vfs, path)


def put_by_older(
    vfs: Vfs, path: str, data: bytes, disk_format: str = "raw", virtual_size: int | None = None
) -> Image:
    """As `put`, of anything: an earlier version's format gate took it for `disk_format`."""
    found = Detected(disk_format, virtual_size or len(data))
    with patch.object(gate, "inspect_file", lambda *_: found):
        number = put(vfs, path, data).number
    with vfs.catalog.write() as repository:
        repository.set_image(number, gate=None)
    return vfs.catalog.image(number)


def read(vfs: Vfs, path: str, who: Principal = ADMIN) -> bytes:
    """All data of the image at `path`."""
    return read_image(vfs, entry(vfs, path).image.number, who)


def read_image(vfs: Vfs, number: int, who: Principal = ADMIN) -> bytes:
    """All data of an image."""
    reader = vfs.open(number, who)
    try:
        return bytes(reader.read_at(0, reader.size))
    finally:
        reader.close()


def entry(vfs: Vfs, path: str) -> Entry:
    """The entry at `path`."""
    node = vfs.resolve(path)
    assert isinstance(node, Entry)
    return node


def image_at(vfs: Vfs, path: str) -> Image:
    """The image at `path`."""
    return entry(vfs, path).image


def folder_at(vfs: Vfs, path: str) -> Folder:
    """The folder at `path`."""
    node = vfs.resolve(path)
    assert isinstance(node, Folder)
    return node


def names_in(vfs: Vfs, path: str) -> set[str]:
    """What a listing of the folder at `path` shows."""
    return {node.name for node in vfs.members(folder_at(vfs, path).number)}


def keys_in(vfs: Vfs, store: str = "file") -> set[str]:
    """What a store holds: ids of images."""
    return set(vfs.catalog.store(store).keys())


def rename(vfs: Vfs, source: str, target: str, who: Principal = ALICE, **options: bool) -> None:
    """mv(1)."""
    vfs.rename(vfs.place(source), vfs.place(target), who, **options)


def remove(vfs: Vfs, path: str, who: Principal = ALICE) -> None:
    """rm(1)."""
    vfs.remove(vfs.place(path), who)


def make_folder(vfs: Vfs, path: str, who: Principal = ALICE) -> Folder:
    """mkdir(1)."""
    return vfs.make_folder(vfs.place(path), who)


def link(vfs: Vfs, source: str, target: str, who: Principal = ALICE) -> Entry:
    """ln(1)."""
    return vfs.link(entry(vfs, source).image.number, vfs.place(target), who)


def set_fields(vfs: Vfs, path: str, who: Principal = ALICE, /, **values: str) -> None:
    """Set image fields."""
    named = {f"image.{name}": value for name, value in values.items()}
    fields.set_attributes(vfs.catalog, entry(vfs, path).image.number, named, who)


def staged_files(path: Path) -> list[str]:
    """Everything that is staged anywhere below `path`."""
    folders = [path / "staging", *(path / name / ".staging" for name in FILE_STORES)]
    return [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]
