"""What grows with the catalog: everyday operations among 1,000 and among 1,000,000 images.

IMAGEFS_TEST_DATABASE chooses the database, IMAGEFS_BENCH_IMAGES another number than a million.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import pytest

from catalog.catalog import Catalog
from catalog.model.access import ADMIN, Principal
from catalog.model.listings import ImageFilter, Sort
from catalog.model.status import Status
from catalog.tree import listings
from catalog.tree.search import search
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.scrub import scrub
from tests.bench.conftest import Table
from tests.kit import million
from tests.kit.catalog import folder_at, new_catalog, settings_at

SMALL = 1_000
LARGE = int(os.environ.get("IMAGEFS_BENCH_IMAGES", 1_000_000))
_MEMBER = Principal("owner-7")
_ROUNDS = 15


@contextmanager
def _filled(path: Path, size: int) -> Iterator[Vfs]:
    path.mkdir()
    catalog = new_catalog(settings_at(path))
    million.fill(catalog, size)
    catalog.close()
    catalog = new_catalog(settings_at(path))
    try:
        yield Vfs(catalog)
    finally:
        catalog.close()
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.timeout(3600)
def test_operations(tmp_path: Path, table: Table) -> None:
    """Each operation in both catalogs, in turns."""
    with _filled(tmp_path / "small", SMALL) as small, _filled(tmp_path / "large", LARGE) as large:
        works = [_operations(vfs) for vfs in (small, large)]
        for what in works[0]:
            each = _in_turns([work[what] for work in works])
            text = [f"{seconds * 1e3:.2f} ms" for seconds in reversed(each)]
            table.add(f"{what}: {LARGE:,} to {SMALL:,}", text, each[1] / each[0], "≤ 1.5")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [10_000, 100_000, LARGE])
def test_jobs(tmp_path: Path, table: Table, size: int) -> None:
    """Fsck and scrub: time for each 1,000 images, and what memory they add."""
    with _filled(tmp_path / "catalog", size) as vfs:
        million.pretend_data(vfs.catalog)
        for name, job in (
            ("fsck", lambda: list(fsck(vfs.catalog, repair=False))),
            ("scrub --dry-run", lambda: sum(1 for _ in scrub(vfs.catalog, dry_run=True))),
        ):
            before, start = getrusage(RUSAGE_SELF).ru_maxrss, time.perf_counter()
            found = job()
            took = (time.perf_counter() - start) * 1000 / size
            more = (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024
            table.note(f"{name}, {size:,} images", f"{took * 1e3:.0f} ms for 1,000, {more:.0f} MiB")
            assert name != "fsck" or found == []


def _in_turns(works: list[Callable[[], object]]) -> list[float]:
    times: list[list[float]] = [[] for _ in works]
    for _ in range(_ROUNDS):
        for work, found in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def _operations(vfs: Vfs) -> dict[str, Callable[[], object]]:
    """What is done, each time with another image."""
    catalog, number = vfs.catalog, iter(random.Random(1).sample(range(SMALL, 2 * SMALL), SMALL))
    folder = folder_at(vfs, "/file/folder-0")
    trash = folder_at(vfs, "/file/.trash")

    def name() -> str:
        return million.name_of(next(number))

    return {
        "lookup": lambda: _lookups(catalog, folder.number, [name() for _ in range(20)]),
        "id's beginning": lambda: _by_prefix(catalog, million.id_of(SMALL)[:7]),
        "list a folder of 1,000": lambda: _listed(catalog, folder.number),
        "create": lambda: [vfs.create(vfs.place(f"/file/new{time.time_ns()}"), ADMIN) for _ in "1"],
        "delete": lambda: vfs.remove(vfs.place(f"/file/folder-0/{name()}"), ADMIN),
        "list --property": lambda: search(
            catalog, [vfs.root], ImageFilter(properties=(("batch", "7"),))
        ),
        "list --tag": lambda: search(catalog, [vfs.root], ImageFilter(tags=("batch-7",))),
        "list --status --property": lambda: search(
            catalog,
            [vfs.root],
            ImageFilter(frozenset({Status.ACTIVE}), properties=(("batch", "7"),)),
        ),
        "page of a folder": lambda: _page(catalog, folder.number, ADMIN, Sort.NAME),
        "page of a folder, a member": lambda: _page(catalog, folder.number, _MEMBER, Sort.NAME),
        "page of the trash": lambda: _page(catalog, trash.number, ADMIN, Sort.DELETED_AT),
        "page of the trash, a member": lambda: _page(
            catalog, trash.number, _MEMBER, Sort.DELETED_AT
        ),
        "totals": lambda: listings.store_totals(catalog, ADMIN),
        "totals, a member": lambda: listings.store_totals(catalog, _MEMBER),
        "count by status": catalog.images_by_status,
    }


def _lookups(catalog: Catalog, folder: int, names: list[str]) -> None:
    with catalog.read() as repository:
        for name in names:
            repository.node_at(folder, name)


def _by_prefix(catalog: Catalog, prefix: str) -> None:
    with catalog.read() as repository:
        assert repository.images_by_prefix(prefix, 10)


def _listed(catalog: Catalog, folder: int) -> None:
    with catalog.read() as repository:
        assert repository.listed_in(folder)


def _page(catalog: Catalog, folder: int, principal: Principal, sort: Sort) -> None:
    with catalog.read() as repository:
        is_trash = sort is Sort.DELETED_AT
        repository.folder_page(folder, principal, sort=sort, descending=is_trash)
