"""A folder of very many images, made in one transaction; for the tests and the benchmarks."""

from __future__ import annotations

import time
import uuid

from catalog.catalog import Catalog
from catalog.model.clock import now
from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.model.tree import FolderKind
from catalog.repository.tables import images, locations

MIB = 1024 * 1024


def name_of(number: int) -> str:
    """The name of one of them."""
    return f"debian-12-generic-amd64-{number:06}.qcow2"


def fill(catalog: Catalog, size: int) -> None:
    """A folder called `size` with so many images that are active; they have no data."""
    at = now()
    with catalog.write() as repository:
        root = repository.root()
        assert root is not None
        store = repository.folder_at(root.number, "file")
        assert store is not None
        folder = repository.add_folder(
            store.number, "file", str(size), FolderKind.PLAIN, "root", False
        )
        first = size * 10
        image_rows = [
            {
                "number": first + number,
                "id": str(uuid.uuid4()),
                "name": name_of(number),
                "status": Status.ACTIVE,
                "owner": "root",
                "visibility": Visibility.PUBLIC,
                "disk_format": "qcow2",
                "container_format": "bare",
                "size": 600 * MIB,
                "virtual_size": 2048 * MIB,
                "min_disk": 0,
                "min_ram": 0,
                "protected": False,
                "os_hidden": False,
                "os_hash_algo": "sha256",
                "os_hash_value": f"{number:064x}",
                "message": "",
                "mtime": time.time_ns(),
                "created_at": at,
                "updated_at": at,
            }
            for number in range(size)
        ]
        location_rows = [
            {
                "image": row["number"],
                "store": "file",
                "url": f"file:///nowhere/{row['id']}",
                "state": "active",
                "folder": folder.number,
                "name": row["name"],
            }
            for row in image_rows
        ]
        repository.connection.execute(images.insert(), image_rows)
        repository.connection.execute(locations.insert(), location_rows)
