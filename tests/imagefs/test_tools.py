"""Ordinary tools put an image in: each with its own way to write a file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import (
    MIB,
    assert_active,
    attempt,
    field,
    mode,
    python,
    run,
    settled,
    shell,
    some_bytes,
    status,
    trashed,
)

# -- cp --------------------------------------------------------------------------------------


def test_cp_makes_an_active_image(folder: Path, source: Path, data: bytes) -> None:
    """cp(1) uploads, and the image is active when it has ended."""
    run("cp", source, folder / "a")
    assert_active(folder / "a", data)
    assert mode(folder / "a") == 0o444


def test_cp_a_keeps_the_time(folder: Path, source: Path, data: bytes) -> None:
    """cp -a sets owner, mode and times after writing: all succeed, the time stays."""
    run("cp", "-a", source, folder / "a")
    assert_active(folder / "a", data)
    assert (folder / "a").stat().st_mtime_ns == source.stat().st_mtime_ns


def test_cp_a_takes_the_properties_along(folder: Path, source: Path, data: bytes) -> None:
    """cp -a of an image to another name gives it the same properties, and its own fields."""
    run("cp", source, folder / "a")
    os.setxattr(folder / "a", "user.property.os_distro", b"debian")
    run("cp", "-a", folder / "a", folder / "b")
    assert_active(folder / "b", data)
    assert os.getxattr(folder / "b", "user.property.os_distro") == b"debian"
    assert field(folder / "a", "id") != field(folder / "b", "id")


def test_cp_r_copies_a_tree(folder: Path, tmp_path: Path, data: bytes) -> None:
    """cp -r makes the folders and the images in them."""
    (tmp_path / "tree/deep/er").mkdir(parents=True)
    (tmp_path / "tree/deep/er/a").write_bytes(data)
    (tmp_path / "tree/b").write_bytes(b"b")
    run("cp", "-r", tmp_path / "tree", folder)
    assert_active(folder / "tree/deep/er/a", data)
    assert_active(folder / "tree/b", b"b")


@pytest.mark.parametrize("when", ["always", "never", "auto"])
def test_cp_sparse_keeps_the_content(folder: Path, tmp_path: Path, when: str) -> None:
    """cp --sparse leaves holes in front, in between and at the end; they read as zeros."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        for offset in (3 * MIB, 9 * MIB):
            file.seek(offset)
            file.write(some_bytes(MIB))
        file.truncate(12 * MIB)
    run("cp", f"--sparse={when}", source, folder / "a")
    assert_active(folder / "a", source.read_bytes())


def test_cp_onto_an_image_is_refused(folder: Path, source: Path, data: bytes) -> None:
    """An active image never changes: cp without -f fails, and the image stays."""
    run("cp", source, folder / "a")
    result = attempt("cp", "/etc/hostname", folder / "a")
    assert result.returncode == 1
    assert os.strerror(errno.EPERM) in result.stderr.decode()
    assert_active(folder / "a", data)


@pytest.mark.parametrize("option", ["-f", "--remove-destination"])
def test_cp_f_replaces_an_image(folder: Path, source: Path, data: bytes, option: str) -> None:
    """cp -f makes a new image; the old one is in the trash, and who has it open reads on."""
    (folder / "replaced").write_bytes(b"old")
    old_id = field(folder / "replaced", "id")
    with (folder / "replaced").open("rb") as reader:
        run("cp", option, source, folder / "replaced")
        assert reader.read() == b"old"
    assert_active(folder / "replaced", data)
    assert field(folder / "replaced", "id") != old_id
    in_trash = [p for p in trashed(folder / "x").parent.iterdir() if field(p, "id") == old_id]
    assert [status(path) for path in in_trash] == ["pending_delete"]


# -- mv, install, tar, touch -----------------------------------------------------------------


def test_mv_in_and_out(folder: Path, source: Path, data: bytes, tmp_path: Path) -> None:
    """mv(1) from another file system uploads; back out it downloads and deletes."""
    time = source.stat().st_mtime_ns
    run("mv", source, folder / "a")
    assert not source.exists()
    assert_active(folder / "a", data)
    assert (folder / "a").stat().st_mtime_ns == time
    run("mv", folder / "a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mtime_ns == time
    assert not (folder / "a").exists()


def test_install(folder: Path, source: Path, data: bytes) -> None:
    """install(1) changes mode and owner after it has closed the file."""
    run("install", "-m", "0640", "-p", source, folder / "a")
    assert_active(folder / "a", data)
    assert (folder / "a").stat().st_mtime_ns == source.stat().st_mtime_ns


def test_tar_x(folder: Path, source: Path, data: bytes) -> None:
    """Tar unpacks folders and images with their times."""
    run("tar", "cf", source.parent / "x.tar", "-C", source.parent, source.name)
    run("tar", "xf", source.parent / "x.tar", "-C", folder)
    assert_active(folder / source.name, data)
    assert (folder / source.name).stat().st_mtime == int(source.stat().st_mtime)


def test_tar_xattrs_round_trip(folder: Path, source: Path, data: bytes) -> None:
    """tar --xattrs out of the mount and in again keeps the properties."""
    run("cp", source, folder / "a")
    os.setxattr(folder / "a", "user.property.os_distro", b"debian")
    archive = source.parent / "x.tar"
    xattrs = ("--xattrs", "--xattrs-include=user.*")
    run("tar", *xattrs, "-cf", archive, "-C", folder, "a")
    (folder / "again").mkdir()
    run("tar", *xattrs, "-xf", archive, "-C", folder / "again")
    assert_active(folder / "again/a", data)
    assert os.getxattr(folder / "again/a", "user.property.os_distro") == b"debian"


@pytest.mark.parametrize("script", ['touch "$1"', '> "$1"', ': >> "$1"'])
def test_an_empty_file_is_queued(folder: Path, script: str) -> None:
    """Touch and `> x` write nothing: the image waits for its data, and then takes it."""
    shell(script, folder / "a")
    assert status(folder / "a") == "queued"
    assert (folder / "a").stat().st_size == 0
    assert (folder / "a").read_bytes() == b""
    shell('echo data > "$1"', folder / "a")
    assert_active(folder / "a", b"data\n")


def test_touch_sets_the_time_of_an_image(folder: Path, source: Path, data: bytes) -> None:
    """Touch on an active image changes its time and nothing else."""
    run("cp", source, folder / "a")
    run("touch", "-d", "2001-02-03 04:05:06 UTC", folder / "a")
    assert_active(folder / "a", data)
    assert (folder / "a").stat().st_mtime == 981173106


# -- dd, cat, shells -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("bs=1M",),
        ("bs=1M", "conv=fsync"),
        ("bs=1M", "conv=fdatasync"),
        ("bs=777",),
        ("bs=4k", "oflag=sync"),
        ("bs=4k", "conv=sparse"),
    ],
    ids=" ".join,
)
def test_dd(folder: Path, source: Path, data: bytes, options: tuple[str, ...]) -> None:
    """Dd writes in blocks of any size, with and without fsync."""
    run("dd", f"if={source}", f"of={folder / 'a'}", *options)
    assert_active(folder / "a", data)


def test_dd_onto_an_image_is_refused(folder: Path, source: Path, data: bytes) -> None:
    """Neither dd nor dd conv=notrunc changes an active image."""
    run("cp", source, folder / "a")
    for options in ((), ("conv=notrunc",), ("oflag=append", "conv=notrunc")):
        result = attempt("dd", "if=/etc/hostname", f"of={folder / 'a'}", *options)
        assert os.strerror(errno.EPERM) in result.stderr.decode()
    assert_active(folder / "a", data)


def test_cat(folder: Path, source: Path, data: bytes) -> None:
    """The shell opens the file, forks, and closes its copies first: cat's data is whole."""
    shell('cat "$2" > "$1"', folder / "a", source)
    assert_active(folder / "a", data)


def test_a_group_of_commands_writes_one_image(folder: Path) -> None:
    """Three programs write to one descriptor; the image is what they wrote together."""
    shell('{ echo one; cat /dev/null; /bin/echo two; sh -c "echo three"; } > "$1"', folder / "a")
    assert_active(folder / "a", b"one\ntwo\nthree\n")


def test_appending_starts_only_a_new_image(folder: Path) -> None:
    """`>>` writes a new image, and is refused on one that is active."""
    shell('echo one >> "$1"', folder / "a")
    assert_active(folder / "a", b"one\n")
    result = attempt("sh", "-c", 'echo two >> "$1"', "sh", folder / "a")
    assert result.returncode != 0
    assert_active(folder / "a", b"one\n")


def test_tee_writes_two_images(folder: Path, data: bytes) -> None:
    """One process writes two images at once."""
    run("tee", folder / "a", folder / "b", stdin=data)
    assert_active(folder / "a", data)
    assert_active(folder / "b", data)


# -- curl, Python ----------------------------------------------------------------------------


@contextmanager
def _web_server(root: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def test_curl_o(folder: Path, source: Path, data: bytes) -> None:
    """curl -o downloads into an image."""
    with _web_server(source.parent) as url:
        run("curl", "-fsS", "-o", folder / "a", f"{url}/{source.name}")
    assert_active(folder / "a", data)


def test_python_with_close(folder: Path) -> None:
    """open('wb') that is closed makes the image before the program goes on."""
    script = """
import os, sys
with open(sys.argv[1], "wb") as file:
    file.write(b"data" * 100000)
print(os.getxattr(sys.argv[1], "user.image.status").decode())
"""
    assert python(script, folder / "a").strip() == "active"
    assert_active(folder / "a", b"data" * 100000)


def test_python_without_close(folder: Path) -> None:
    """A program that ends well without closing its file has written it."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"data" * 100000)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"data" * 100000)


@pytest.mark.mount_says("exited with status 3 without closing the file")
def test_a_program_that_fails_without_closing_publishes_nothing(folder: Path) -> None:
    """Exit status 3 with the file still open: the image is killed, and says why."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"data" * 100000)
os._exit(3)
"""
    assert attempt("python3", "-c", script, folder / "a").returncode == 3
    assert status(folder / "a") == "killed"
    assert "exited with status 3" in field(folder / "a", "message")


# -- two writers -----------------------------------------------------------------------------


def test_a_second_writer_is_refused(folder: Path) -> None:
    """While one process writes, another gets EBUSY for the name; the first's image is whole."""
    first = subprocess.Popen(["dd", f"of={folder / 'a'}", "bs=1"], stdin=subprocess.PIPE)
    assert first.stdin is not None
    first.stdin.write(b"first")
    first.stdin.flush()
    while (folder / "a").exists() is False or (folder / "a").stat().st_size < 5:
        pass
    for options in ((), ("conv=notrunc",)):
        result = attempt("dd", "if=/etc/hostname", f"of={folder / 'a'}", *options)
        assert os.strerror(errno.EBUSY) in result.stderr.decode()
    first.communicate(b" image")
    assert first.returncode == 0
    assert_active(folder / "a", b"first image")


def test_a_stopped_writer_is_no_dead_one(folder: Path) -> None:
    """SIGSTOP and SIGCONT in the middle do no harm."""
    writer = subprocess.Popen(["dd", f"of={folder / 'a'}", "bs=1"], stdin=subprocess.PIPE)
    assert writer.stdin is not None
    writer.stdin.write(b"one ")
    writer.stdin.flush()
    writer.send_signal(signal.SIGSTOP)
    writer.send_signal(signal.SIGCONT)
    writer.communicate(b"two")
    assert_active(folder / "a", b"one two")


def test_many_at_once(mount: Daemon, folder: Path, data: bytes) -> None:
    """Sixteen programs write sixteen images at the same time."""
    writers = [
        subprocess.Popen(["dd", f"of={folder / str(n)}", "bs=10k"], stdin=subprocess.PIPE)
        for n in range(16)
    ]
    for number, writer in enumerate(writers):
        assert writer.stdin is not None
        writer.stdin.write(data + bytes([number]))
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0] * 16
    for number in range(16):
        assert_active(folder / str(number), data + bytes([number]))


def test_two_that_begin_at_once(folder: Path, tmp_path: Path) -> None:
    """Whichever comes first: the image is what one of them wrote, and never a mixture."""
    contents = [bytes([letter]) * 200_000 for letter in b"AB"]
    for letter, content in zip("AB", contents, strict=True):
        (tmp_path / letter).write_bytes(content)
    refused = 0
    for number in range(20):
        target = folder / str(number)
        writers = [
            subprocess.Popen(
                ["dd", f"if={tmp_path / letter}", f"of={target}", "bs=4k"],
                stderr=subprocess.DEVNULL,
            )
            for letter in "AB"
        ]
        codes = [writer.wait() for writer in writers]
        assert 0 in codes
        refused += codes != [0, 0]
        assert target.read_bytes() in contents
        assert settled(target) == "active"
    assert refused
