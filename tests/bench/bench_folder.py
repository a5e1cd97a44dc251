"""A folder of very many images, against the same names in a folder of the disk."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from catalog.catalog import Catalog
from catalog.image import FolderKind, Visibility, now
from catalog.models import images, locations
from catalog.status import Status
from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import MIB
from tests.crash.mounted import Mounted

SIZES = (1_000, 10_000, 100_000)
_LOOKUPS = 500


def test_folders(mounted: Mounted, tmp_path: Path, table: Table) -> None:
    """Listings of the largest folder, and a lookup in each."""
    catalog = mounted.catalog()
    for size in SIZES:
        _fill(catalog, size)
        plain = tmp_path / str(size)
        plain.mkdir()
        for number in range(size):
            (plain / _name(number)).touch()
    catalog.close()
    mounted.stop()
    mounted.start()
    for size in SIZES:
        _lookups(mounted.path / "file" / str(size), tmp_path / str(size), size, table)
    _listings(mounted.path / "file" / str(size), tmp_path / str(size), size, table)
    peak = mounted.peak_memory()
    table.note(f"peak memory, {size:,} images listed", f"{peak / MIB:.0f} MiB", "< 200")


def _listings(ours: Path, plain: Path, size: int, table: Table) -> None:
    for command in (("ls", "-f"), ("ls", "-l"), ("find",)):
        works: dict[str, Callable[[], object]] = {
            "ours": partial(measure.run, *command, ours),
            "plain": partial(measure.run, *command, plain),
        }
        times = measure.in_turns(works, rounds=3, before=lambda: measure.drop_caches(2))
        each = [f"{times[it]:.2f} s" for it in ("ours", "plain")]
        what = f"{' '.join(command)} of {size:,} images, cold, to ext4 (time)"
        table.add(what, each, times["ours"] / times["plain"])


def _lookups(ours: Path, plain: Path, size: int, table: Table) -> None:
    measure.drop_caches(2)
    each = [_time_of_lookups(folder, size) for folder in (ours, plain)]
    text = [f"{seconds * 1e6:.0f} µs" for seconds in each]
    table.add(f"stat of a new name among {size:,}, to ext4 (time)", text, each[0] / each[1])


def _time_of_lookups(folder: Path, size: int) -> float:
    names = [_name(number) for number in random.Random(size).sample(range(size), _LOOKUPS)]
    start = time.perf_counter()
    for name in names:
        os.stat(folder / name)
    return (time.perf_counter() - start) / len(names)


def _name(number: int) -> str:
    return f"debian-12-generic-amd64-{number:06}.qcow2"


def _fill(catalog: Catalog, size: int) -> None:
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
                "name": _name(number),
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
