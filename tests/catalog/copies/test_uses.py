"""Who uses an image, and what deletion does with that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.copies.uses import in_use
from catalog.errors import Conflict
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.model.tree import Place
from catalog.process import Process
from catalog.rules import presence
from catalog.tree.vfs import Vfs
from catalog.upkeep.scrub import scrub
from tests.kit.catalog import (
    begin,
    entry,
    image_at,
    link,
    new_catalog,
    put,
    remove,
    rename,
    settings_at,
)

QEMU = "qemu-system-x86 (pid 4711)"


@pytest.fixture
def eager(tmp_path: Path) -> Vfs:
    """A tree whose trash is emptied by every scrub."""
    return Vfs(new_catalog(settings_at(tmp_path, scrub_time=0)))


def _kept(vfs: Vfs) -> list[str]:
    return [str(each.problem) for each in scrub(vfs.catalog) if each.problem is not None]


def test_who_reads_is_told_until_it_closes(vfs: Vfs) -> None:
    """By name, with the host and since when."""
    number = put(vfs, "/file/a").number
    before = now()
    reader = vfs.open(number, ADMIN, QEMU)
    vfs.uses.publish()
    (use,) = in_use(vfs.catalog, number)
    assert use.user == QEMU
    assert before <= use.since <= now()
    reader.close()
    vfs.uses.publish()
    assert in_use(vfs.catalog, number) == []


def test_a_reader_without_a_user_is_no_use(vfs: Vfs) -> None:
    """What the catalog itself reads spares nothing."""
    number = put(vfs, "/file/a").number
    vfs.open(number, ADMIN)
    vfs.uses.publish()
    assert in_use(vfs.catalog, number) == []


def test_two_users_of_one_process(vfs: Vfs) -> None:
    """Each is told; the one that closes goes."""
    number = put(vfs, "/file/a").number
    first, second = vfs.open(number, ADMIN, QEMU), vfs.open(number, ADMIN, "cat (pid 5)")
    vfs.uses.publish()
    assert [use.user for use in in_use(vfs.catalog, number)] == [QEMU, "cat (pid 5)"]
    first.close()
    first.close()
    vfs.uses.publish()
    assert [use.user for use in in_use(vfs.catalog, number)] == ["cat (pid 5)"]
    second.close()


def test_what_was_used_lately_is_spared(eager: Vfs) -> None:
    """A guest that is shut off has nothing open: a day is the least, whatever scrub_time is."""
    number = put(eager, "/file/a").number
    eager.open(number, ADMIN, QEMU).close()
    remove(eager, "/file/a")
    (problem,) = _kept(eager)
    assert "was in use at" in problem
    with eager.catalog.write() as repository:
        repository.set_used([number], now() - timedelta(hours=25))
    assert _kept(eager) == []
    assert eager.catalog.image(number).status == "deleted"


def test_each_use_in_the_trash_spares_it_anew(vfs: Vfs) -> None:
    """For `scrub_time` after the last one; that is known at once."""
    number = put(vfs, "/file/a").number
    remove(vfs, "/file/a")
    with vfs.catalog.write() as repository:
        repository.set_image(number, deleted_at=now() - timedelta(days=30))
    vfs.open(number, ADMIN, QEMU).close()
    (problem,) = _kept(vfs)
    assert "is in use by" in problem
    vfs.uses.publish()
    (problem,) = _kept(vfs)
    assert "was in use at" in problem
    with vfs.catalog.write() as repository:
        repository.set_used([number], now() - timedelta(days=6))
    assert len(_kept(vfs)) == 1
    with vfs.catalog.write() as repository:
        repository.set_used([number], now() - timedelta(days=8))
    assert _kept(vfs) == []


def test_a_dry_run_tells_what_is_spared(eager: Vfs) -> None:
    """The same as the scrub itself would."""
    number = put(eager, "/file/a").number
    eager.open(number, ADMIN, QEMU).close()
    remove(eager, "/file/a")
    (found,) = scrub(eager.catalog, dry_run=True)
    assert isinstance(found.problem, Conflict)


def test_who_deletes_it_for_good_means_it(eager: Vfs) -> None:
    """`rm` in the trash does not ask for the last use."""
    number = put(eager, "/file/a").number
    eager.open(number, ADMIN, QEMU).close()
    remove(eager, "/file/a")
    remove(eager, "/file/.trash/a")
    assert eager.catalog.image(number).status == "deleted"


def test_what_is_open_here_is_not_deleted_for_good(eager: Vfs) -> None:
    """Not by the process that serves it either; it is known at once, and so is its end."""
    number = put(eager, "/file/a", b"data").number
    remove(eager, "/file/a")
    reader = eager.open(number, ADMIN, QEMU)
    with pytest.raises(Conflict, match=r"is in use by qemu-system-x86 \(pid 4711\)"):
        remove(eager, "/file/.trash/a")
    (problem,) = _kept(eager)
    assert "is in use by qemu" in problem
    assert bytes(reader.read_at(0, 9)) == b"data"
    assert image_at(eager, "/file/.trash/a").status == "pending_delete"
    reader.close()
    remove(eager, "/file/.trash/a")
    assert eager.catalog.image(number).status == "deleted"


def test_a_reader_that_is_just_closed_keeps_nothing(eager: Vfs) -> None:
    """A kernel, and a client of HTTP, does not wait for us when it closes a file."""
    number = put(eager, "/file/a").number
    remove(eager, "/file/a")
    reader = eager.open(number, ADMIN, QEMU)
    with eager.uses._lock:
        closing = threading.Thread(target=reader.close)
        deleting = threading.Thread(target=remove, args=(eager, "/file/.trash/a"))
        deleting.start()
        closing.start()
    closing.join()
    deleting.join()
    assert eager.catalog.image(number).status == "deleted"


def _replace(vfs: Vfs) -> None:
    begin(vfs, "/file/new.part", b"new").finish()
    rename(vfs, "/file/new.part", "/file/a")


def _copy(vfs: Vfs) -> None:
    put(vfs, "/file/b", b"other")
    place = entry(vfs, "/file/a")
    vfs.copy(entry(vfs, "/file/b"), Place(place.folder, place.name), ADMIN, replace=True)


def _move(vfs: Vfs) -> None:
    put(vfs, "/other/b", b"other")
    rename(vfs, "/other/b", "/file/a")


@pytest.mark.expect_log("in use by")
@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda vfs: remove(vfs, "/file/a"), "deleted"),
        (lambda vfs: rename(vfs, "/file/a", "/file/.trash/a"), "deleted"),
        (_replace, "replaced"),
        (_copy, "replaced"),
        (_move, "replaced"),
    ],
)
def test_what_takes_it_away_says_so(
    vfs: Vfs, act: Callable[[Vfs], object], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each way to delete or replace an image that is in use: one line, with who uses it."""
    image = put(vfs, "/file/a")
    reader = vfs.open(image.number, ADMIN, QEMU)
    with caplog.at_level(logging.WARNING):
        act(vfs)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"a ({image.id}) was {what} while in use by {QEMU} on ")
    assert ("by path" in line) == (what == "replaced")
    reader.close()


def test_nothing_is_told_of_what_stays_or_is_not_used(
    vfs: Vfs, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused deletion, a copy of several, an image that nobody has open."""
    number = put(vfs, "/file/a").number
    link(vfs, "/file/a", "/other/a")
    reader = vfs.open(number, ADMIN, QEMU)
    with caplog.at_level(logging.WARNING):
        remove(vfs, "/other/a")
        reader.close()
        remove(vfs, "/file/a")
    assert caplog.records == []


@pytest.mark.expect_log("in use by")
def test_many_users_are_counted(vfs: Vfs, caplog: pytest.LogCaptureFixture) -> None:
    """One line stays one line."""
    number = put(vfs, "/file/a").number
    for pid in range(120):
        vfs.open(number, ADMIN, f"qemu (pid {pid})")
    remove(vfs, "/file/a")
    assert "and 95 more" in caplog.records[0].message


@pytest.mark.expect_log("in use by pid 7")
def test_a_lease_of_an_older_program(vfs: Vfs) -> None:
    """Without users it names the process that serves the image."""
    number = put(vfs, "/file/a").number
    presence.beat(vfs.catalog, Process("far", "boot/1", 7, 1), [number])
    (use,) = in_use(vfs.catalog, number)
    assert str(use) == "pid 7 on far"
    remove(vfs, "/file/a")
    with pytest.raises(Conflict, match="in use by pid 7 on far"):
        remove(vfs, "/file/.trash/a")
    assert image_at(vfs, "/file/.trash/a").number == number


def test_what_is_gone_is_not_noted(vfs: Vfs) -> None:
    """An image deleted for good between its use and the publication stops nothing."""
    number = put(vfs, "/file/a").number
    with vfs.catalog.write() as repository:
        repository.set_used(range(number, number + 40_000), now())
        assert repository.used_at(number + 100) is None
        assert repository.used_at(number) is not None
