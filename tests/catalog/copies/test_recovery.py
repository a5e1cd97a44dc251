"""After a process was killed: nothing half done is ever taken for whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.catalog import Catalog
from catalog.copies.recovery import give_up_dead, recover
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.tree import LocationState
from catalog.process import Process, is_gone, start_time, this_process
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import (
    begin,
    image_at,
    keys_in,
    link,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    settings_at,
    staged_files,
)

Kill = Callable[[str], None]

# What a process does before it is killed: `stop()` does not return.
PREAMBLE = """
import os, signal, sys
from pathlib import Path
from catalog.service.bootstrap import open_catalog
from catalog.rules import copies, uploads
from catalog.stores.folder.writer import FilesystemWriter
from catalog.tree.vfs import Vfs
from tests.kit.catalog import *

def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[1])
vfs = Vfs(open_catalog(settings_at(path)))
"""


@pytest.fixture
def kill(tmp_path: Path, vfs: Vfs) -> Kill:
    """Run a script in a process of its own, which kills itself."""

    def run(script: str) -> None:
        command = [sys.executable, "-c", PREAMBLE + script, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


def check_clean(catalog: Catalog, path: Path) -> None:
    """Nothing staged, nothing noted, nothing for fsck to find."""
    assert staged_files(path) == []
    with catalog.read() as repository:
        assert repository.uploads() == []
        assert repository.lease_holders() == []
    assert list(fsck(catalog, repair=False)) == []


@pytest.mark.parametrize("store", ["file", "other"])
@pytest.mark.parametrize(
    "then",
    [
        "stop()",
        "upload.finish(); stop()",
        # The data is in the store already, and the catalog does not know it.
        "uploads.finish_upload = stop; upload.commit()",
        "upload.finish(); upload.write(3, b'x'); stop()",
    ],
)
def test_a_killed_upload_is_killed(
    kill: Kill, vfs: Vfs, tmp_path: Path, store: str, then: str
) -> None:
    """At whichever moment: the image tells why it has no data, and nothing is left of it."""
    put(vfs, f"/{store}/before", b"untouched")
    kill(f"upload = begin(vfs, '/{store}/a', bytes(100_000)); {then}")
    assert image_at(vfs, f"/{store}/a").status == "saving"
    killed = recover(vfs.catalog)
    image = image_at(vfs, f"/{store}/a")
    assert [each.id for each in killed] == [image.id]
    assert image.status == "killed"
    assert "is gone" in image.message
    assert read(vfs, f"/{store}/before") == b"untouched"
    check_clean(vfs.catalog, tmp_path)
    assert recover(vfs.catalog) == []


def _remove(vfs: Vfs) -> None:
    remove(vfs, "/file/a")
    assert "a" not in names_in(vfs, "/file")


def _replace(vfs: Vfs) -> None:
    put(vfs, "/file/b", b"another")
    rename(vfs, "/file/b", "/file/a")
    assert read(vfs, "/file/a") == b"another"


@pytest.mark.parametrize("then", [_remove, _replace])
def test_upload_of_a_process_that_nobody_reaped(
    vfs: Vfs, tmp_path: Path, then: Callable[[Vfs], None]
) -> None:
    """What a dead process was uploading can be removed and replaced at once."""
    script = PREAMBLE + "begin(vfs, '/file/a', bytes(100_000)); stop()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command) as child:
        # Not reaped: it stays as a zombie.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        then(vfs)
        check_clean(vfs.catalog, tmp_path)


def test_a_killed_reopen_is_killed(kill: Kill, vfs: Vfs, tmp_path: Path) -> None:
    """An image that was being written again is neither the old nor the new one."""
    image = put(vfs, "/file/a", b"header")
    kill("vfs.uploads.reopen(image_at(vfs, '/file/a').number).write(0, b'x'); stop()")
    recover(vfs.catalog)
    assert image_at(vfs, "/file/a").status == "killed"
    assert not (tmp_path / "file" / image.id).exists()
    check_clean(vfs.catalog, tmp_path)


@pytest.mark.parametrize(
    "then",
    [
        "vfs.link(number, vfs.place('/other/a'), ALICE, progress=stop)",
        # The copy is complete, and the catalog does not know it.
        "copies.finish_copy = stop; vfs.link(number, vfs.place('/other/a'), ALICE)",
        "copies.finish_copy = stop; rename(vfs, '/file/a', '/other/b')",
    ],
)
@pytest.mark.parametrize("is_repeated", [True, False])
def test_a_killed_copy_is_no_entry(
    kill: Kill, vfs: Vfs, tmp_path: Path, then: str, is_repeated: bool
) -> None:
    """The image stays active with what it had, and can be copied again, or never."""
    put(vfs, "/file/a", b"data" * 1000)
    kill(f"number = image_at(vfs, '/file/a').number; {then}")
    assert recover(vfs.catalog) == []
    assert read(vfs, "/file/a") == b"data" * 1000
    assert names_in(vfs, "/other") == set()
    if is_repeated:
        link(vfs, "/file/a", "/other/a")
        assert read(vfs, "/other/a") == b"data" * 1000
    else:
        give_up_dead(vfs.catalog)
        assert keys_in(vfs, "other") == set()
    check_clean(vfs.catalog, tmp_path)


def test_a_killed_move_is_finished(kill: Kill, vfs: Vfs, tmp_path: Path) -> None:
    """Once the new copy is the entry, the old data goes."""
    image = put(vfs, "/file/a", b"data")
    kill(
        "import catalog.copies.replicate as r; r.let_go = stop\nrename(vfs, '/file/a', '/other/a')"
    )
    recover(vfs.catalog)
    assert read(vfs, "/other/a") == b"data"
    assert not (tmp_path / "file" / image.id).exists()
    check_clean(vfs.catalog, tmp_path)


@pytest.mark.parametrize("moment", ["store.delete = stop", "removal._finish = stop"])
def test_a_killed_purge_is_finished(kill: Kill, vfs: Vfs, tmp_path: Path, moment: str) -> None:
    """What `rm` in the trash began, the next start ends."""
    image = put(vfs, "/file/a")
    remove(vfs, "/file/a")
    kill(
        f"from catalog.copies import removal; store = vfs.catalog.store('file'); {moment};"
        "remove(vfs, '/file/.trash/a')"
    )
    recover(vfs.catalog)
    assert not (tmp_path / "file" / image.id).exists()
    assert names_in(vfs, "/file/.trash") == set()
    check_clean(vfs.catalog, tmp_path)


def test_leases_of_a_killed_process_end(kill: Kill, vfs: Vfs, tmp_path: Path) -> None:
    """What it held open no longer keeps an image from being deleted."""
    put(vfs, "/file/a")
    kill(
        "from catalog.rules import presence; from catalog.process import this_process;"
        "presence.beat(vfs.catalog, this_process(), [image_at(vfs, '/file/a').number]); stop()"
    )
    recover(vfs.catalog)
    check_clean(vfs.catalog, tmp_path)


def test_what_was_committed_is_never_touched(kill: Kill, vfs: Vfs, tmp_path: Path) -> None:
    """An image reported active is whole, however soon after that the process dies."""
    kill("put(vfs, '/file/a', b'data'); stop()")
    assert recover(vfs.catalog) == []
    assert read(vfs, "/file/a") == b"data"
    check_clean(vfs.catalog, tmp_path)


def test_uploads_of_the_living_go_on(vfs: Vfs) -> None:
    """Recovery at the start of one mount leaves the uploads of another alone."""
    upload = begin(vfs, "/file/a", b"data")
    assert recover(vfs.catalog) == []
    upload.commit()
    assert read(vfs, "/file/a") == b"data"


def test_another_host_s_uploads_are_its_own(vfs: Vfs) -> None:
    """Nobody here can tell whether that process lives."""
    upload = begin(vfs, "/file/a", b"data")
    elsewhere = Process("another-host", "boot/1", 1, 1)
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(upload.image.number, elsewhere, "", now(), now()))
    assert recover(vfs.catalog) == []
    assert image_at(vfs, "/file/a").status == "saving"


@pytest.mark.parametrize("away", ["unmounted", "no longer configured"])
def test_a_store_that_is_away_stops_no_recovery(
    kill: Kill, settings: Settings, vfs: Vfs, tmp_path: Path, away: str
) -> None:
    """The others are recovered; its own uploads wait until it is back."""
    kill("begin(vfs, '/other/a', b'x'); begin(vfs, '/file/b', b'x'); stop()")
    (tmp_path / "other").rename(tmp_path / "unmounted")
    stores = {k: v for k, v in settings.stores.items() if k != "other" or away == "unmounted"}
    reduced = Settings(settings.source, settings.catalog, stores)
    catalog = open_catalog(reduced)
    assert [image.name for image in recover(catalog)] == ["b"]
    catalog.close()
    (tmp_path / "unmounted").rename(tmp_path / "other")
    assert [image.name for image in recover(vfs.catalog)] == ["a"]
    check_clean(vfs.catalog, tmp_path)


def test_a_note_without_anything_to_do_is_dropped(vfs: Vfs, tmp_path: Path) -> None:
    """A record of a dead process on an image that is active already does not stay for ever."""
    image = put(vfs, "/file/a", b"data")
    here = this_process()
    gone = Process(here.host, here.boot, here.pid, here.started + 1)
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(image.number, gone, "", now(), now()))
    recover(vfs.catalog)
    assert read(vfs, "/file/a") == b"data"
    check_clean(vfs.catalog, tmp_path)


def test_a_killed_temporary_name_can_be_used_again(kill: Kill, vfs: Vfs) -> None:
    """rsync starts anew on the name its killed predecessor left."""
    kill("begin(vfs, '/file/.a.Xy12', b'half').finish(); stop()")
    recover(vfs.catalog)
    remove(vfs, "/file/.a.Xy12")
    upload = begin(vfs, "/file/.a.Xy12", b"whole")
    upload.finish()
    rename(vfs, "/file/.a.Xy12", "/file/a")
    assert read(vfs, "/file/a") == b"whole"


# Which processes are gone


def test_this_process_is_not_gone() -> None:
    """It is told by its host, boot, pid and start."""
    assert not is_gone(this_process())
    assert this_process().pid == os.getpid()


def test_who_is_gone() -> None:
    """An earlier boot, and a pid that now is another process; never another host's."""
    here = this_process()
    boot, _, namespace = here.boot.partition("/")
    assert is_gone(Process(here.host, here.boot, here.pid, here.started + 1))
    assert is_gone(Process(here.host, f"another/{namespace}", here.pid, here.started))
    # Of a container there is no such process any more: who sees all of this kernel can tell.
    sees_all = namespace == "4026531836"
    assert is_gone(Process(here.host, f"{boot}/1", here.pid, here.started + 1)) is sees_all
    assert not is_gone(Process("another-host", here.boot, here.pid, here.started + 1))


def test_a_process_that_ended_has_no_start_time() -> None:
    """Neither while it was never there nor after it was waited for."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_time(child.pid) is not None
    child.communicate(b"\n")
    assert start_time(child.pid) is None


def test_opening_again_after_a_kill(kill: Kill, tmp_path: Path, vfs: Vfs) -> None:
    """A catalog whose last user was killed opens as any other: SQLite replays its log."""
    vfs.catalog.close()
    kill("put(vfs, '/file/a', b'data'); begin(vfs, '/file/b', b'x'); stop()")
    again = new_catalog(settings_at(tmp_path))
    recover(again)
    assert read(Vfs(again), "/file/a") == b"data"
    with again.read() as repository:
        assert repository.locations_in_state(LocationState.DELETING) == []
    again.close()
