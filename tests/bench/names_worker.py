"""What `bench_names` runs in the version that it measures, with that version's own packages.

names_worker.py fill CONFIG      a folder of 1,000 images, in an existing catalog
names_worker.py measure FOLDER   seconds for each operation of the library, as JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from catalog.errors import NotFound
from catalog.model.tree import Place
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, folder_at, new_catalog, put, settings_at
from tests.kit.large_folder import fill, name_of

SIZE = 1000
_CREATED = 200


def _time(work: Callable[[int], object], count: int) -> float:
    work(count)
    start = time.perf_counter()
    for number in range(count):
        work(number)
    return (time.perf_counter() - start) / count


def measure(path: Path) -> dict[str, float]:
    """Seconds for each operation, one after the other."""
    catalog = new_catalog(settings_at(path))
    fill(catalog, SIZE)
    vfs = Vfs(catalog)
    folder = folder_at(vfs, f"/file/{SIZE}").number
    first = SIZE * 10

    def miss(number: int) -> None:
        with suppress(NotFound):
            vfs.lookup(folder, f"nobody {number}")

    found = {
        "lookup": _time(lambda n: vfs.lookup(folder, name_of(n % SIZE)), SIZE),
        "lookup of an absent name": _time(miss, SIZE),
        "path of three names": _time(
            lambda n: vfs.find(f"/file/{SIZE}/{name_of(n % SIZE)}", ALICE), SIZE
        ),
        "show": _time(lambda n: catalog.details(first + n % SIZE), SIZE),
        "list of 1,000": _time(lambda _: vfs.page(folder), 20),
        "create": _time(lambda n: vfs.create(Place(folder, f"new {n}"), ALICE), _CREATED),
        "create with 4 KiB": _time(
            lambda n: put(vfs, f"/file/{SIZE}/put {n}", bytes(4096)), _CREATED
        ),
    }
    catalog.close()
    return found


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        opened = open_catalog(load(Path(sys.argv[2])))
        fill(opened, SIZE)
        opened.close()
    else:
        print(json.dumps(measure(Path(sys.argv[2]))))  # noqa: T201
