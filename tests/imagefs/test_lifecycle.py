"""The mount's own life: start, stop, crash, and what becomes of those who use it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from catalog.cli.session import Session
from catalog.errors import StoreUnavailable
from imagefs import cli
from tests.kit.daemon import COMMAND, Daemon, wait_until
from tests.kit.tools import assert_active, attempt, field, run, status

Make = Callable[..., Daemon]


@pytest.fixture
def own(daemon: Make) -> Daemon:
    """A mount of this test's own, running."""
    made = daemon()
    made.start()
    return made


def _is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def _writer(path: Path, data: bytes) -> subprocess.Popen[bytes]:
    """A program that has written `data` and waits for more on its standard input."""
    writer = subprocess.Popen(
        ["dd", f"of={path}", "bs=1"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdin is not None
    writer.stdin.write(data)
    writer.stdin.flush()
    wait_until(lambda: path.exists() and path.stat().st_size == len(data), "the data arrives")
    return writer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_it_stops_when_asked(own: Daemon, number: signal.Signals) -> None:
    """Unmounted, exit status 0, nothing unusual in the log; and it starts again."""
    (own.path / "file/a").write_bytes(b"data")
    assert own.process is not None
    own.process.send_signal(number)
    assert own.wait() == 0
    assert not _is_mounted(own.path)
    assert own.unusual() == []
    own.start()
    assert_active(own.path / "file/a", b"data")


def test_umount_ends_it(own: Daemon) -> None:
    """By the command, and by umount(8)."""
    own.command("umount", str(own.path))
    assert own.wait() == 0
    own.start()
    run("umount", own.path)
    assert own.wait() == 0
    assert own.unusual() == []


def test_umount_of_a_busy_mount_is_refused(own: Daemon) -> None:
    """An open file keeps it; the message says what to do."""
    writer = _writer(own.path / "file/a", b"one")
    result = attempt(*COMMAND, "--config", own.config, "umount", own.path)
    assert result.returncode != 0
    assert "is in use" in result.stderr.decode()
    assert writer.communicate(b"two")[1]
    assert_active(own.path / "file/a", b"onetwo")
    own.command("umount", str(own.path))
    assert own.wait() == 0


def test_mount_in_the_background(daemon: Make) -> None:
    """`imagefs mount` returns when the mount answers, and the mount lives on."""
    made = daemon()
    made.command("mount", str(made.path))
    (made.path / "file/a").write_bytes(b"data")
    assert_active(made.path / "file/a", b"data")
    made.command("umount", str(made.path))
    wait_until(lambda: not _is_mounted(made.path), "it is unmounted")


def test_a_second_mount_at_the_same_place_is_refused(own: Daemon) -> None:
    """One line, and the first goes on."""
    result = attempt(*COMMAND, "--config", own.config, "mount", own.path)
    assert result.returncode != 0
    assert "mounted there already" in result.stderr.decode()
    assert len(result.stderr.decode().splitlines()) == 1
    assert os.listdir(own.path / "file") is not None


@pytest.mark.parametrize("above", ["", "file", "../mnt/..", "catalog.db/.."])
def test_mounting_above_the_catalog_s_own_folders(daemon: Make, above: str) -> None:
    """The mount would wait for itself: refused in one line, and nothing is mounted."""
    made = daemon()
    result = attempt(*COMMAND, "--config", made.config, "mount", made.state / above)
    assert result.returncode == 5
    assert "lies below it: mount elsewhere" in result.stderr.decode()
    assert len(result.stderr.decode().splitlines()) == 1
    assert (made.state / "file").is_dir()


def test_the_catalog_s_own_folder_is_a_link_into_the_mount(daemon: Make) -> None:
    """Found out when it answers: refused in one line, and nothing stays mounted."""
    made = daemon()
    (made.path / "below").mkdir()
    (made.state / "link").symlink_to(made.path / "below")
    text = made.config.read_text()
    staging = re.search(r"^staging = .*$", text, re.MULTILINE)
    assert staging is not None
    made.config.write_text(text.replace(staging[0], f'staging = "{made.state / "link" / "new"}"'))
    result = attempt(*COMMAND, "--config", made.config, "mount", made.path)
    assert result.returncode == 5
    assert result.stderr.decode().count("\n") == 1
    assert "catalog.staging" in result.stderr.decode()
    assert "lies below it: mount elsewhere" in result.stderr.decode()
    assert not _is_mounted(made.path)


def test_a_mount_that_does_not_come_up(
    daemon: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that starts it in the background does not wait for ever."""
    made, slow = daemon(), tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setattr(cli, "_STARTING", 0.1)
    monkeypatch.setattr(sys, "executable", str(slow))
    with pytest.raises(StoreUnavailable, match="not mounted after"):
        cli._in_background(Session(made.config), made.path, ())


def test_mounting_on_what_is_no_folder(daemon: Make, source: Path) -> None:
    """A missing mount point, and a file."""
    made = daemon()
    for place in (made.state / "nothing", source):
        result = attempt(*COMMAND, "--config", made.config, "mount", place)
        assert result.returncode != 0
        assert len(result.stderr.decode().splitlines()) == 1


def test_sigterm_waits_for_uploads(own: Daemon) -> None:
    """What is being written is written to its end; nothing new is begun."""
    writer = _writer(own.path / "file/a", b"one")
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in own.log.read_text(), "it has begun to stop")
    result = attempt("dd", f"of={own.path / 'file/b'}", stdin=b"new")
    assert os.strerror(errno.EBUSY) in result.stderr.decode()
    writer.communicate(b"two")
    assert writer.returncode == 0
    assert own.wait() == 0
    assert own.unusual() == []
    own.start()
    assert_active(own.path / "file/a", b"onetwo")


def test_an_upload_that_does_not_end_is_given_up(daemon: Make) -> None:
    """After the drain time-out: told in the log, killed, and never active."""
    made = daemon(drain_timeout=1)
    made.start()
    writer = _writer(made.path / "file/a", b"one")
    assert made.stop() == 0
    assert any("not finished when the mount was stopped" in line for line in made.unusual())
    assert writer.communicate(b"two")
    assert writer.returncode != 0
    made.start()
    assert status(made.path / "file/a") == "killed"
    assert field(made.path / "file/a", "message")
    assert made.staged() == []


def test_a_crash_leaves_errors_not_hangs(own: Daemon) -> None:
    """kill -9: readers, writers and newcomers get an error at once."""
    (own.path / "file/a").write_bytes(b"data")
    writer = _writer(own.path / "file/b", b"one")
    reader = os.open(own.path / "file/a", os.O_RDONLY)
    own.kill()
    for use in (lambda: os.listdir(own.path), lambda: os.pread(reader, 1, 0)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
            use()
        assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError):  # noqa: PT011 - close(2) asks the dead process as well
        os.close(reader)
    writer.communicate(b"two")
    assert writer.returncode != 0


def test_a_dead_mount_is_cleaned_up_at_the_next_start(own: Daemon) -> None:
    """What was active is, byte for byte; what was being written is killed and says why."""
    (own.path / "file/a").write_bytes(b"data")
    writer = _writer(own.path / "file/b", b"one")
    temporary = _writer(own.path / "file/c.part", b"one")
    own.kill()
    for each in (writer, temporary):
        each.communicate()
    assert len(own.staged()) == 2
    own.start()
    assert_active(own.path / "file/a", b"data")
    for name in ("b", "c.part"):
        assert status(own.path / "file" / name) == "killed"
        assert "is gone" in field(own.path / "file" / name, "message")
    assert own.staged() == []
    assert len(own.unusual()) == 2
    assert all("its upload was cut off" in line for line in own.unusual())


def test_an_unexpected_exception_is_one_eio(daemon: Make) -> None:
    """A handler that breaks answers EIO, is logged once with its trace, and the mount lives."""
    script = """
from imagefs.tree import Tree

def broken(self):
    raise RuntimeError("a mistake in the program")

Tree.statfs = broken
from catalog.cli import main
main()
"""
    made = daemon()
    made.start(sys.executable, "-c", script)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        os.statvfs(made.path)
    assert caught.value.errno == errno.EIO
    (made.path / "file/a").write_bytes(b"data")
    assert_active(made.path / "file/a", b"data")
    log = made.log.read_text()
    # One line and its trace each; a `doctor` of another test may have asked this mount as well.
    asked = log.count("statfs failed unexpectedly")
    assert asked == log.count("Traceback") >= 1
    assert log.count("RuntimeError: a mistake in the program") == asked
    assert made.stop() == 0


def test_a_read_only_mount(daemon: Make, source: Path) -> None:
    """-o ro: the kernel refuses writes."""
    made = daemon()
    made.start(*COMMAND)
    (made.path / "file/a").write_bytes(b"data")
    assert made.stop() == 0
    made.command("mount", "-o", "ro", str(made.path))
    try:
        assert (made.path / "file/a").read_bytes() == b"data"
        result = attempt("cp", source, made.path / "file/b")
        assert os.strerror(errno.EROFS) in result.stderr.decode()
    finally:
        made.command("umount", str(made.path))
    wait_until(lambda: not _is_mounted(made.path), "it is unmounted")


@pytest.mark.parametrize("limit", ["staging_limit = 1000000", "max_image_size = 1000000"])
def test_limits_refuse_and_lose_nothing(daemon: Make, data: bytes, limit: str) -> None:
    """ENOSPC or EFBIG for the upload that is too large; others are untouched."""
    made = daemon(catalog=limit)
    made.start()
    (made.path / "file/a").write_bytes(data)
    result = attempt("dd", f"of={made.path / 'file/b'}", "bs=64k", stdin=bytes(1 << 21))
    expected = errno.ENOSPC if "staging" in limit else errno.EFBIG
    assert os.strerror(expected) in result.stderr.decode()
    assert status(made.path / "file/b") == "killed"
    assert field(made.path / "file/b", "message")
    assert_active(made.path / "file/a", data)
    assert made.staged() == []


def test_a_plain_copy_of_the_database(daemon: Callable[..., Daemon], data: bytes) -> None:
    """While a mount runs, its main file soon holds what was copied in: it is not empty."""
    mount = daemon()
    with mount.mounted():
        for number in range(5):
            (mount.path / f"file/{number}.raw").write_bytes(data)

        def copied() -> int:
            shutil.copy(mount.state / "catalog.db", mount.state / "copy.db")
            url = f"file:{mount.state / 'copy.db'}?immutable=1"
            with closing(sqlite3.connect(url, uri=True)) as database:
                return int(database.execute("SELECT count(*) FROM images").fetchone()[0])

        wait_until(lambda: copied() == 5, "the main file holds all images")
