"""A catalog of very many images, in folders of a thousand, written by a few statements.

They are as those of a real one: owners, visibilities, properties, tags, and as many as a tenth of
them in the trash.  Whatever their number, ten have 7 as their property `batch` and the tag
`batch-7`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, String, Table, cast, func, insert, literal, select, update

from catalog.catalog import Catalog
from catalog.model.clock import now
from catalog.model.image import GATE
from catalog.model.status import Status
from catalog.model.tree import FolderKind
from catalog.repository.tables import images, locations, members, properties, tags
from catalog.stores.base import Stat

SIZE = 600 * 1024 * 1024
_BASE = 1_000
"""The images of which all others are copies; and the images of a folder."""
_VISIBILITIES = ("public", "private", "private", "shared", "community")
_DISTROS = ("debian", "ubuntu", "rocky", "fedora")
_SPREAD, _RANGE = 2654435761, 1 << 32
"""Times the one, modulo the other, each number becomes another one: ids are in no order."""
_REST = "-0000-4000-8000-000000000000"


def name_of(number: int) -> str:
    """The name of an image."""
    return f"debian-12-generic-amd64-{number}"


def id_of(number: int) -> str:
    """Its id."""
    return f"{number * _SPREAD % _RANGE:08x}{_REST}"


def fill(catalog: Catalog, size: int) -> None:
    """So many images in folders of store `file`, numbered from 1000, and a tenth in its trash."""
    total = size + size // 10
    with catalog.write() as repository:
        root = repository.root()
        assert root is not None
        top = repository.folder_at(root.number, "file")
        assert top is not None
        trash = repository.folder_at(top.number, ".trash")
        assert trash is not None
        folders = [
            repository.add_folder(
                top.number, "file", f"folder-{number}", FolderKind.PLAIN, "root", False
            ).number
            for number in range(-(-total // _BASE))
        ]
        connection = repository.connection
        _add_base(connection, folders[0], now())
        count = _BASE
        while count < total:
            _copy(connection, count, min(count, total - count))
            count *= 2
        _mark(connection, size)
        _trash(connection, _BASE + size, trash.number)
        repository.counted(images, 10 * total)
        repository.recount()
    with catalog.write() as repository:
        if repository.connection.dialect.name == "postgresql":
            # A server that is in use has looked at its tables.
            repository.connection.exec_driver_sql("ANALYZE")


def pretend_data(catalog: Catalog) -> None:
    """Let store `file` say that it has the data of all images."""
    store: Any = catalog.store("file")

    def keys() -> Iterator[str]:
        with catalog.read() as repository:
            count = repository.count_locations("file")
        return (id_of(_BASE + number) for number in range(count))

    store.stat = lambda _url: Stat(SIZE, "")
    store.keys = keys


def _add_base(connection: Connection, folder: int, at: datetime) -> None:
    numbers = range(_BASE, 2 * _BASE)
    connection.execute(insert(images), [_image(number, at) for number in numbers])
    connection.execute(
        insert(locations),
        [
            {
                "number": number,
                "image": number,
                "store": "file",
                "url": f"file:///nowhere/{number}",
                "state": "active",
                "folder": folder,
                "name": name_of(number),
            }
            for number in numbers
        ],
    )
    values = [
        {"image": number, "name": name, "value": value}
        for number in numbers
        for name, value in (("os_distro", _DISTROS[number % 4]), ("batch", str(number)))
    ]
    connection.execute(insert(properties), values)
    connection.execute(
        insert(tags),
        [{"image": number, "tag": "lts" if number % 2 else "testing"} for number in numbers],
    )
    connection.execute(
        insert(members),
        [
            {"image": number, "member": "owner-7", "created_at": at}
            for number in numbers
            if number % 100 == 3
        ],
    )


def _image(number: int, at: datetime) -> dict[str, Any]:
    return {
        "number": number,
        "id": id_of(number),
        "name": name_of(number),
        "status": Status.ACTIVE,
        "owner": f"owner-{number // 5 % 100}",
        "visibility": _VISIBILITIES[number % 5],
        "disk_format": "qcow2",
        "container_format": "bare",
        "size": SIZE,
        "virtual_size": 4 * SIZE,
        "min_disk": 0,
        "min_ram": 0,
        "protected": False,
        "os_hidden": False,
        "os_hash_algo": "sha256",
        "os_hash_value": f"{number:064x}",
        "message": "",
        "mtime": 1_700_000_000_000_000_000,
        "created_at": at,
        "updated_at": at,
        "gate": GATE,
    }


def _copy(connection: Connection, more: int, count: int) -> None:
    """Copy the first `count` images, with numbers that are greater by `more`."""

    def copy(table: Table, key: str, **changed: Any) -> None:
        values = {column.name: changed.get(column.name, column) for column in table.columns}
        source = select(*values.values()).where(table.c[key] < _BASE + count)
        connection.execute(insert(table).from_select(list(values), source))

    number, of_location = images.c.number + more, locations.c.number + more
    name = literal("debian-12-generic-amd64-")
    copy(
        images,
        "number",
        number=number,
        id=_id(connection.dialect.name, number),
        name=name + cast(number, String(20)),
    )
    copy(
        locations,
        "number",
        number=of_location,
        image=of_location,
        folder=locations.c.folder + more // _BASE,
        name=name + cast(of_location, String(20)),
    )
    copy(
        properties,
        "image",
        image=properties.c.image + more,
        value=func.replace(
            properties.c.value,
            cast(properties.c.image, String(20)),
            cast(properties.c.image + more, String(20)),
        ),
    )
    copy(tags, "image", image=tags.c.image + more)


def _id(dialect: str, number: Any) -> Any:
    spread = number * _SPREAD % _RANGE
    match dialect:
        case "sqlite":
            return func.printf(f"%08x{_REST}", spread)
        case "postgresql":
            return func.lpad(func.to_hex(spread), 8, "0") + _REST
    return func.concat(func.lpad(func.lower(func.hex(spread)), 8, "0"), _REST)


def _mark(connection: Connection, size: int) -> None:
    """Ten images, all over the catalog."""
    marked = [_BASE + at * (size // 10) + 7 for at in range(10)]
    connection.execute(
        update(properties)
        .where(properties.c.name == "batch", properties.c.image.in_(marked))
        .values(value="7")
    )
    connection.execute(insert(tags), [{"image": number, "tag": "batch-7"} for number in marked])


def _trash(connection: Connection, first: int, trash: int) -> None:
    at = now()
    connection.execute(
        update(images)
        .where(images.c.number >= first)
        .values(
            status=Status.PENDING_DELETE,
            deleted_at=at,
            deleted_by="root",
            status_before_delete=Status.ACTIVE,
        )
    )
    connection.execute(
        update(locations)
        .where(locations.c.number >= first)
        .values(folder=trash, trashed_from=locations.c.folder, trashed_at=at)
    )
