"""Which processes of other hosts live: by their heartbeats, and by the database's clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from catalog.catalog import Catalog
from catalog.copies.recovery import recover
from catalog.copies.uses import in_use
from catalog.errors import CatalogError, Conflict, NotFound
from catalog.model import clock
from catalog.model.access import ADMIN
from catalog.model.activity import ServiceKind, Use
from catalog.model.status import Status
from catalog.process import Process, this_process
from catalog.rules import presence
from catalog.tree.vfs import Vfs
from catalog.upkeep.hosts import HostState, forget, host_called, hosts
from tests.kit.catalog import begin, put

FAR = Process("far", "another-boot/1", 4711, 1)
THIRD = Process("third", "a-third-boot/1", 4711, 1)


@pytest.fixture
def at() -> Iterator[list[datetime]]:
    """The database's clock, which goes on with the test and is moved by it."""
    shown = [datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)]
    clock.follow(shown[0])
    yield shown
    clock.follow_host()


def wait(shown: list[datetime], time: timedelta) -> None:
    """Move the database's clock."""
    shown[0] += time
    clock.follow(shown[0])


def register(catalog: Catalog, *processes: Process) -> None:
    """Let processes begin to serve."""
    for process in processes:
        presence.register(catalog, process, ServiceKind.MOUNT, "/srv/images", "1")


def pass_time(catalog: Catalog, at: list[datetime], time: timedelta, *alive: Process) -> None:
    """Let time go by, in which these processes send their heartbeats."""
    for _ in range(time // presence.HEARTBEAT):
        wait(at, presence.HEARTBEAT)
        for process in alive:
            assert presence.live(catalog, process)


def has_ended(catalog: Catalog, process: Process) -> bool:
    """Whether a process is taken to have ended."""
    return presence.have_ended(catalog)(process)


def test_a_silent_host_has_ended_after_a_stated_time(catalog: Catalog, at: list[datetime]) -> None:
    """As long as it is heard of, and a while longer, it lives."""
    register(catalog, this_process(), FAR)
    pass_time(catalog, at, presence.SILENCE, this_process(), FAR)
    assert not has_ended(catalog, FAR)
    pass_time(catalog, at, presence.SILENCE - presence.HEARTBEAT, this_process())
    assert not has_ended(catalog, FAR)
    pass_time(catalog, at, 2 * presence.HEARTBEAT, this_process())
    assert has_ended(catalog, FAR)


def test_nobody_has_ended_because_the_database_was_away(
    catalog: Catalog, at: list[datetime]
) -> None:
    """Nobody could be heard of: all get their time again."""
    register(catalog, this_process(), FAR, THIRD)
    pass_time(catalog, at, presence.SILENCE, this_process(), FAR, THIRD)
    wait(at, timedelta(hours=3))
    assert presence.live(catalog, this_process())
    assert not has_ended(catalog, FAR)
    pass_time(catalog, at, presence.SILENCE - presence.HEARTBEAT, this_process(), THIRD)
    assert not has_ended(catalog, FAR)
    pass_time(catalog, at, 2 * presence.HEARTBEAT, this_process(), THIRD)
    assert has_ended(catalog, FAR)
    assert not has_ended(catalog, THIRD)


def test_a_command_alone_takes_nobody_for_dead(catalog: Catalog, at: list[datetime]) -> None:
    """It has not listened for long enough."""
    register(catalog, FAR)
    wait(at, timedelta(days=1))
    assert not has_ended(catalog, FAR)


def test_who_never_registered_is_not_judged(catalog: Catalog, at: list[datetime]) -> None:
    """A command on another host sends no heartbeat of this kind."""
    register(catalog, this_process())
    pass_time(catalog, at, 3 * presence.SILENCE, this_process())
    assert not has_ended(catalog, FAR)


def test_an_upload_of_a_dead_host_is_given_up(vfs: Vfs, at: list[datetime]) -> None:
    """With the reason in its message; what the host had open counts as closed."""
    image = put(vfs, "/file/read there")
    upload = begin(vfs, "/file/cut off", b"half")
    with vfs.catalog.write() as repository:
        record = repository.upload(upload.image.number)
        assert record is not None
        repository.add_upload(replace(record, process=FAR))
        use = Use(FAR, "qemu", at[0], at[0])
        repository.set_leases(FAR, [image.number], at[0], {image.number: [use]})
    register(vfs.catalog, this_process(), FAR)
    assert [str(use) for use in in_use(vfs.catalog, image.number)] == ["qemu on far"]
    assert recover(vfs.catalog) == []
    pass_time(vfs.catalog, at, presence.SILENCE + presence.HEARTBEAT, this_process())
    assert [killed.id for killed in recover(vfs.catalog)] == [upload.image.id]
    found = vfs.catalog.image(upload.image.number)
    assert found.status is Status.KILLED
    assert "far" in found.message
    assert "not heard of for 5 minutes" in found.message
    assert in_use(vfs.catalog, image.number) == []
    assert [host.name for host in hosts(vfs.catalog)] == [this_process().host]
    # Its writer, if it lives after all, cannot publish any more.
    with pytest.raises(CatalogError):
        upload.commit()


def test_two_hosts_of_one_name(catalog: Catalog, at: list[datetime]) -> None:
    """The later one is told; neither takes the other's processes for those of an earlier boot."""
    twin = replace(FAR, host=this_process().host)
    register(catalog, twin)
    others = presence.register(catalog, this_process(), ServiceKind.MOUNT, "/mnt", "1")
    assert [other.process for other in others] == [twin]
    assert not has_ended(catalog, twin)
    pass_time(catalog, at, 4 * presence.HEARTBEAT, this_process())
    assert has_ended(catalog, twin)


def test_forgetting_a_host(vfs: Vfs, at: list[datetime]) -> None:
    """Not one that lives, unless it is forced; it registers again when it is back."""
    upload = begin(vfs, "/file/cut off", b"half")
    with vfs.catalog.write() as repository:
        record = repository.upload(upload.image.number)
        assert record is not None
        repository.add_upload(replace(record, process=FAR))
    register(vfs.catalog, this_process(), FAR)
    assert host_called(vfs.catalog, "far").state is HostState.ALIVE
    with pytest.raises(Conflict, match="alive"):
        forget(vfs.catalog, "far", ADMIN)
    assert len(forget(vfs.catalog, "far", ADMIN, force=True)) == 1
    assert "given up the host far" in vfs.catalog.image(upload.image.number).message
    with pytest.raises(NotFound):
        host_called(vfs.catalog, "far")
    assert not presence.live(vfs.catalog, FAR)
    upload.cancel("lost")
