"""Fifty hosts follow the change feed of one database: what they cost it, idle and while one writes.

Each host does what a mount does when nobody uses it.  The server's processor time is the kernel's
count for its processes; its peer is the same server with nobody connected.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.activity import ServiceKind
from catalog.process import Process
from catalog.rules import presence
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import settings_at
from tests.servers.databases import STARTS, DatabaseServer, home

HOSTS = 50
SECONDS = 20.0
CHANGES_A_SECOND = 5


def _processor_seconds(server: DatabaseServer) -> float:
    """Of all of the server's processes so far, also of those that have ended."""
    ticks = 0
    for pid in _family(server.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


class Fleet:
    """Hosts that do what a mount does when nobody uses it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.looks = [0] * HOSTS
        """Looks at the feed, by host."""
        self.late: list[float] = []
        """Seconds after which the first host has seen each change."""
        self._threads = [threading.Thread(target=self._follow, args=(n,)) for n in range(HOSTS)]

    def start(self) -> None:
        """Start, and wait until all are connected, and their statements are prepared."""
        for thread in self._threads:
            thread.start()
        while min(self.looks) < 10:
            time.sleep(1)

    def stop(self) -> None:
        """Stop all hosts."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _follow(self, host: int) -> None:
        catalog = open_catalog(self._settings)
        process = Process(f"host{host}", f"boot{host}/1", 1, 1)
        presence.register(catalog, process, ServiceKind.MOUNT, "/srv", "1")
        seen, beat_at = catalog.last_change(), time.monotonic()
        while not self._stop.is_set():
            catalog.wait_for_change(1.0)
            time.sleep(0.05)
            for change in catalog.changes(seen, 500):
                seen = change.number
                self._note(host, change.name or "")
            self.looks[host] += 1
            if time.monotonic() > beat_at:
                presence.live(catalog, process)
                beat_at = time.monotonic() + presence.HEARTBEAT.total_seconds()
        catalog.close()

    def _note(self, host: int, name: str) -> None:
        if host == 0 and name.startswith("at-"):
            self.late.append(time.time() - float(name[3:]))


@pytest.mark.parametrize("kind", sorted(STARTS))
def test_fifty_hosts_follow_the_feed(kind: str, tmp_path: Path) -> None:
    """Idle, and while another one makes five changes a second."""
    with home() as folder, STARTS[kind](folder / "server") as server:
        settings = settings_at(tmp_path, url=server.database("catalog"))
        writer = Vfs(make_catalog(settings))
        fleet = Fleet(settings)
        alone = _cost(server, lambda: time.sleep(SECONDS))
        fleet.start()
        looks = sum(fleet.looks)
        idle = _cost(server, lambda: time.sleep(SECONDS))
        idle_looks = (sum(fleet.looks) - looks) / SECONDS

        def write() -> None:
            for _ in range(int(SECONDS * CHANGES_A_SECOND)):
                writer.make_folder(writer.place(f"/file/at-{time.time()}"), ADMIN)
                time.sleep(1 / CHANGES_A_SECOND)

        looks = sum(fleet.looks)
        busy = _cost(server, write)
        busy_looks = (sum(fleet.looks) - looks) / SECONDS
        fleet.stop()
        writer.close()
    late = sorted(fleet.late)
    print(  # noqa: T201
        f"{kind}: alone {alone:.1%}; {HOSTS} hosts idle {idle:.1%} of a processor,"
        f" {idle_looks:.0f} looks/s; with {CHANGES_A_SECOND} changes/s {busy:.1%},"
        f" {busy_looks:.0f} looks/s; seen after {late[len(late) // 2]:.2f} s (median),"
        f" {late[-1]:.2f} s (longest)"
    )


def _cost(server: DatabaseServer, work: Callable[[], None]) -> float:
    """The server's processor time while `work` runs, as a part of one processor."""
    before, at = _processor_seconds(server), time.monotonic()
    work()
    return (_processor_seconds(server) - before) / (time.monotonic() - at)
