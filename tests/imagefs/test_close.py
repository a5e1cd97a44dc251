"""close(2): which of them makes an image active.

Source: docs/semantics.md#writing-a-file-uploads-an-image.
"""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import assert_active, attempt, field, python, run, shell, status


def test_a_duplicate_keeps_it_open(folder: Path) -> None:
    """dup(2): only the last of the copies commits."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
copy = os.dup(fd)
os.write(fd, b"one")
os.close(fd)
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.write(copy, b"two")
os.close(copy)
assert os.getxattr(sys.argv[1], "user.image.status") == b"active"
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"onetwo")


def test_a_child_that_ends_closes_only_its_copy(folder: Path) -> None:
    """fork(2): the child's exit does not publish what the parent goes on to write."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"parent ")
child = os.fork()
if child == 0:
    os.write(fd, b"child ")
    os._exit(0)
os.waitpid(child, 0)
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.write(fd, b"parent")
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"parent child parent")


def test_a_child_goes_on_after_its_parent(folder: Path) -> None:
    """The parent closes first: the image waits for the child."""
    script = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"parent ")
ready, go = os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    os.write(fd, b"child")
    os._exit(0)
os.close(fd)
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.write(go, b"x")
os.wait()
"""
    python(script, folder / "a")
    wait_until(lambda: status(folder / "a") == "active", "the child's close commits")
    assert_active(folder / "a", b"parent child")


def test_a_shell_holds_it_over_several_commands(folder: Path) -> None:
    """`exec 3>`: the programs in between come and go; `exec 3>&-` commits."""
    script = """
exec 3> "$1"
echo one >&3
/bin/echo two >&3
getfattr --only-values -n user.image.status "$1"
exec 3>&-
getfattr --only-values -n user.image.status "$1"
"""
    assert shell(script, folder / "a") == "savingactive"
    assert_active(folder / "a", b"one\ntwo\n")


def test_a_background_job_holds_it(folder: Path) -> None:
    """The shell ends, its background job writes on: active only after the job."""
    job = subprocess.Popen(
        ["sh", "-c", '{ echo one; read x; echo two; } > "$1"', "sh", folder / "a"],
        stdin=subprocess.PIPE,
    )
    wait_until(lambda: (folder / "a").exists() and (folder / "a").stat().st_size == 4, "one")
    assert status(folder / "a") == "saving"
    job.communicate(b"x\n")
    assert_active(folder / "a", b"one\ntwo\n")


def test_nothing_written_commits_nothing(folder: Path) -> None:
    """Opening, closing, syncing an empty image leaves it queued."""
    script = """
import os, sys
for _ in range(3):
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.fsync(fd)
    os.write(fd, b"")
    os.close(fd)
"""
    python(script, folder / "a")
    assert status(folder / "a") == "queued"


@pytest.mark.mount_says("vmdk")
def test_the_writer_sees_the_refusal(folder: Path, tmp_path: Path) -> None:
    """The format gate answers at close(2): cp fails, and the image says why."""
    run(
        "qemu-img",
        "create",
        "-f",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        tmp_path / "y.vmdk",
        "1M",
    )
    result = attempt("cp", tmp_path / "y.vmdk", folder / "a")
    assert result.returncode == 1
    assert os.strerror(errno.EINVAL) in result.stderr.decode()
    assert status(folder / "a") == "killed"
    assert "vmdk" in field(folder / "a", "message")


@pytest.mark.mount_says("bytes, but 10 were announced")
def test_an_announced_size_is_verified(folder: Path) -> None:
    """Fewer bytes than announced are not an image."""
    shell(': > "$1"', folder / "a")
    os.setxattr(folder / "a", "user.image.size", b"10")
    assert attempt("sh", "-c", 'echo 123 | dd of="$1"', "sh", folder / "a").returncode == 1
    assert status(folder / "a") == "killed"
    assert "announced" in field(folder / "a", "message")


@pytest.mark.mount_says("was announced")
def test_an_announced_digest_is_verified(folder: Path, source: Path, data: bytes) -> None:
    """The right digest makes an active image, a wrong one none."""
    digest = run("sha256sum", source).split()[0]
    for name, value in (("right", digest), ("wrong", "0" * 64)):
        shell(': > "$1"', folder / name)
        os.setxattr(folder / name, "user.image.os_hash_value", value.encode())
        attempt("dd", f"if={source}", f"of={folder / name}")
    assert_active(folder / "right", data)
    assert status(folder / "wrong") == "killed"
    assert digest in field(folder / "wrong", "message")


@pytest.mark.parametrize("flags", ["os.O_WRONLY", "os.O_RDWR", "os.O_WRONLY | os.O_APPEND"])
def test_the_writer_may_open_it_again(folder: Path, flags: str) -> None:
    """The process that committed an image writes more, as qemu-img convert does."""
    script = f"""
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"header")
os.close(fd)
assert os.getxattr(sys.argv[1], "user.image.status") == b"active"
fd = os.open(sys.argv[1], {flags})
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.lseek(fd, 6, 0)
os.write(fd, b" and data")
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"header and data")


def test_the_writer_may_begin_again(folder: Path) -> None:
    """With O_TRUNC as well."""
    script = """
import os, sys
for data in (b"longer than", b"this"):
    with open(sys.argv[1], "wb") as file:
        file.write(data)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"this")


@pytest.mark.mount_says("killed by signal 9")
def test_a_writer_killed_after_it_opened_it_again(folder: Path) -> None:
    """What it had committed is gone as well: the image is not whole."""
    script = """
import os, signal, sys
with open(sys.argv[1], "wb") as file:
    file.write(b"header")
fd = os.open(sys.argv[1], os.O_WRONLY)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert attempt("python3", "-c", script, folder / "a").returncode == -9
    assert status(folder / "a") == "killed"


def test_nobody_else_may_open_it_again(folder: Path, source: Path, data: bytes) -> None:
    """Once another process has read the image, its writer has lost the right."""
    script = """
import os, subprocess, sys
with open(sys.argv[1], "wb") as file:
    file.write(b"data")
subprocess.run(["cat", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
try:
    os.open(sys.argv[1], os.O_WRONLY)
except PermissionError:
    print("refused")
"""
    assert python(script, folder / "a") == "refused\n"
    assert_active(folder / "a", b"data")


def test_a_temporary_name_is_never_published(folder: Path, data: bytes) -> None:
    """It stays saving after close, may be opened again, and its rename publishes."""
    for name in (".a.X8d3kk", "a.part", "a.PARTIAL", "a.filepart", "a.crdownload", "a.tmp"):
        (folder / name).write_bytes(data)
        assert status(folder / name) == "saving"
        shell('printf more >> "$1"', folder / name)
        assert (folder / name).read_bytes() == data + b"more"
        (folder / name).rename(folder / "a")
        assert_active(folder / "a", data + b"more")
        (folder / "a").unlink()


def test_a_folder_with_a_temporary_name_publishes_nothing(folder: Path, data: bytes) -> None:
    """Whatever is below `.name` is not finished, until it leaves."""
    (folder / ".parts").mkdir()
    (folder / ".parts/a").write_bytes(data)
    assert status(folder / ".parts/a") == "saving"
    (folder / ".parts/a").rename(folder / "a")
    assert_active(folder / "a", data)


def test_fsync_makes_nothing_visible(folder: Path) -> None:
    """fsync(2) in the middle of a write does not commit."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"one")
os.fsync(fd)
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.write(fd, b"two")
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"onetwo")


def test_the_same_inode_in_another_mount(folder: Path, daemon: Callable[[], Daemon]) -> None:
    """Two catalogs give the same numbers: a file open in one does not hold up the other."""
    other = daemon()
    other.start()
    (folder / "a").touch()
    for number in itertools.count():
        same = other.path / "file" / str(number)
        same.touch()
        if same.stat().st_ino == (folder / "a").stat().st_ino:
            break
    with same.open("wb") as file:
        file.write(b"held")
        file.flush()
        run("dd", "if=/etc/hostname", f"of={folder / 'a'}")
        assert status(folder / "a") == "active"
    assert other.stop() == 0


@pytest.mark.mount_says("a: the upload was aborted")
def test_close_of_an_aborted_upload_fails(mount: Daemon, folder: Path) -> None:
    """`imagefs abort` by another process: whoever wrote it is told, and it is killed."""
    image = folder / "a"
    fd = os.open(image, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"half of it")
    mount.command("abort", f"/{image.relative_to(mount.path)}")
    wait_until(lambda: "the upload was aborted" in mount.log.read_text(), "the mount gives it up")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        os.close(fd)
    assert caught.value.errno == errno.EIO
    assert status(image) == "killed"
    assert field(image, "message") == "aborted by root"
    assert mount.staged() == []
    image.unlink()
