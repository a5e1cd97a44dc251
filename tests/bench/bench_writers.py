"""Fifty writers on one catalog: the changes that its one lock carries, in each database.

The peer is a bare transaction in the same run: a row inserted under the same lock, and committed.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.activity import ChangeKind
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.tree.vfs import Vfs
from tests.kit.catalog import settings_at
from tests.servers.databases import STARTS, home

SECONDS = 8.0
HOSTS = 5
WRITERS_A_HOST = 10


def _write(url: str, folder: str, host: int, bare: bool, begin: Barrier, out: Queue[int]) -> None:
    vfs = Vfs(open_catalog(settings_at(Path(folder), url=url)))
    counts = [0] * WRITERS_A_HOST
    begin.wait()
    end = time.monotonic() + SECONDS

    def run(writer: int) -> None:
        while time.monotonic() < end:
            if bare:
                with vfs.catalog.write() as repository:
                    repository.tell(ChangeKind.ENTRY, folder=1, name="x")
            else:
                name = f"{host}-{writer}-{counts[writer]}"
                vfs.make_folder(vfs.place(f"/file/{name}"), ADMIN)
            counts[writer] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WRITERS_A_HOST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(sum(counts))
    vfs.close()


def _changes_a_second(url: str, folder: Path, *, bare: bool) -> float:
    context = multiprocessing.get_context("spawn")
    begin, out = context.Barrier(HOSTS), context.Queue()
    hosts = [
        context.Process(target=_write, args=(url, str(folder), host, bare, begin, out))
        for host in range(HOSTS)
    ]
    for host in hosts:
        host.start()
    total = sum(out.get() for _ in hosts)
    for host in hosts:
        host.join()
    return total / SECONDS


@pytest.mark.parametrize("kind", ["sqlite", *sorted(STARTS)])
def test_changes_of_many_writers(kind: str, tmp_path: Path) -> None:
    """New folders, by five hosts with ten writers each."""
    if kind == "sqlite":
        _measure(kind, f"sqlite:///{tmp_path / 'catalog.db'}", tmp_path)
        return
    with home() as folder, STARTS[kind](folder / "server") as server:
        _measure(kind, server.database("catalog"), tmp_path)


def _measure(kind: str, url: str, folder: Path) -> None:
    make_catalog(settings_at(folder, url=url)).close()
    found = _changes_a_second(url, folder, bare=False)
    peer = _changes_a_second(url, folder, bare=True)
    print(f"{kind}: {found:.0f} changes/s, {found / peer:.2f} of {peer:.0f} bare transactions/s")  # noqa: T201
