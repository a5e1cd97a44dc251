"""rsync(1) to a mount: temporary names, times, partial files."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.tools import MIB, assert_active, attempt, field, run, some_bytes, status, trashed


@pytest.fixture
def tree(tmp_path: Path, data: bytes) -> Path:
    """A local folder with images in it and below it."""
    folder = tmp_path / "tree"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.qcow2", "b.img", "deep/c.raw"]):
        (folder / name).write_bytes(data + bytes([number]))
        os.utime(folder / name, ns=(10**18, 10**18 + 123_456_789 + number))
    return folder


def _literal(stats: str) -> int:
    found = re.search(r"Literal data: ([\d,]+) bytes", stats)
    assert found is not None, stats
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize(
    "options",
    [("-a",), ("-a", "--inplace"), ("-a", "-X"), ("-a", "--delay-updates"), ("-rt", "-S")],
    ids=" ".join,
)
def test_a_second_run_sends_nothing(
    folder: Path, tree: Path, data: bytes, options: tuple[str, ...]
) -> None:
    """What rsync has put in is complete and has its time: the next run finds it unchanged."""
    first = run("rsync", *options, "--stats", f"{tree}/", folder)
    assert _literal(first) == 3 * (len(data) + 1)
    for number, name in enumerate(["a.qcow2", "b.img", "deep/c.raw"]):
        assert_active(folder / name, data + bytes([number]))
        assert (folder / name).stat().st_mtime_ns == (tree / name).stat().st_mtime_ns
    second = run("rsync", *options, "--stats", "--itemize-changes", f"{tree}/", folder)
    assert _literal(second) == 0
    # `.f`: only an attribute, `>f`: a file is sent.
    assert not re.search(r"^[<>]f", second, re.MULTILINE), second
    assert sorted(p.name for p in folder.iterdir()) == ["a.qcow2", "b.img", "deep"]


def test_rsync_replaces_what_changed(folder: Path, tree: Path) -> None:
    """A changed source becomes a new image under the name; the old one is in the trash."""
    run("rsync", "-a", f"{tree}/", folder)
    old_id = field(folder / "b.img", "id")
    (tree / "b.img").write_bytes(b"changed")
    run("rsync", "-a", f"{tree}/", folder)
    assert_active(folder / "b.img", b"changed")
    in_trash = [field(path, "id") for path in trashed(folder / "b.img").parent.iterdir()]
    assert old_id in in_trash


def test_rsync_inplace_does_not_change_an_image(folder: Path, tree: Path, data: bytes) -> None:
    """--inplace onto an active image fails, and the image stays as it is."""
    run("rsync", "-a", f"{tree}/", folder)
    (tree / "b.img").write_bytes(b"changed")
    result = attempt("rsync", "-a", "--inplace", f"{tree}/", folder)
    assert result.returncode != 0
    assert os.strerror(errno.EPERM) in result.stderr.decode()
    assert_active(folder / "b.img", data + b"\1")


def test_rsync_x_keeps_properties(folder: Path, source: Path, data: bytes) -> None:
    """-X from image to image takes the properties along; a second run has nothing to do.

    The fields of an active image are its own, and no list of attributes names them.
    """
    run("cp", source, folder / "a")
    os.setxattr(folder / "a", "user.property.os_distro", b"debian")
    (folder / "to").mkdir()
    run("rsync", "-aX", folder / "a", folder / "to/")
    assert_active(folder / "to/a", data)
    assert os.getxattr(folder / "to/a", "user.property.os_distro") == b"debian"
    assert field(folder / "to/a", "id") != field(folder / "a", "id")
    assert _literal(run("rsync", "-aX", "--stats", folder / "a", folder / "to/")) == 0


def test_rsync_out_of_the_mount(folder: Path, source: Path, tmp_path: Path, data: bytes) -> None:
    """Images are a source like any files."""
    run("cp", "-a", source, folder / "a")
    run("rsync", "-a", f"{folder}/", tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == data
    assert _literal(run("rsync", "-a", "--stats", f"{folder}/", tmp_path / "out")) == 0


def _interrupt(
    folder: Path,
    source: Path,
    options: list[str],
    number: signal.Signals,
    *,
    preserve: str = "-a",
    target: str = "",
) -> None:
    """Stop an rsync midway and wait until its uploads have ended.

    It is stopped as by Ctrl-C: all of its processes get the signal.
    """
    source.write_bytes(some_bytes(8 * MIB))
    rsync = subprocess.Popen(
        ["rsync", preserve, *options, "--bwlimit=2M", source, target or folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: any(p.stat().st_size > MIB for p in folder.iterdir()), "data arrives")
    os.killpg(rsync.pid, number)
    assert rsync.wait() != 0
    wait_until(lambda: _has_ended(rsync.pid), "rsync's other processes end")


def _has_ended(session: int) -> bool:
    found = attempt("pgrep", "-s", session)
    return found.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_rsync_leaves_nothing(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Stopped midway, rsync removes its temporary file; the next run is whole."""
    source = tmp_path / "big.img"
    _interrupt(folder, source, [], number)
    assert list(folder.iterdir()) == []
    run("rsync", "-a", source, folder)
    assert_active(folder / "big.img", source.read_bytes())


@pytest.mark.mount_says("rsync was interrupted: the file is not whole")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_rsync_partial_publishes_nothing(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """What --partial would keep under the image's name is refused; the next run is whole."""
    source = tmp_path / "big.img"
    _interrupt(folder, source, ["--partial"], number)
    assert not (folder / "big.img").exists()
    run("rsync", "-a", source, folder)
    assert_active(folder / "big.img", source.read_bytes())


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.mount_says("rsync was interrupted: the file is not whole")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("option", ["-P", "--partial", "--partial-dir=kept"])
def test_an_interrupted_rsync_without_times_publishes_nothing(
    folder: Path, tmp_path: Path, option: str, number: signal.Signals
) -> None:
    """No time then marks what --partial keeps: the writer was stopped, and that is known."""
    (folder / "big.img").write_bytes(b"the good old image")
    source = tmp_path / "big.img"
    _interrupt(folder, source, [option], number, preserve="-v")
    assert_active(folder / "big.img", b"the good old image")
    assert not any(path.is_file() for path in (folder / "kept").glob("*"))
    run("rsync", option, source, folder)
    assert_active(folder / "big.img", source.read_bytes())


@pytest.mark.mount_says("rsync was interrupted: the file is not whole")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_an_interrupted_rsync_over_a_pipe_publishes_nothing(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As over ssh: the receiver is `rsync --server`, which loses its peer or gets the signal."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    options = ["-P", "-e", str(shell)]
    target = f"there:{folder}"
    _interrupt(folder, tmp_path / "big.img", options, number, preserve="-v", target=target)
    assert not (folder / "big.img").exists()


@pytest.mark.mount_says("dd was interrupted: the file is not whole")
def test_what_an_interrupted_writer_left_is_not_published_by_mv(
    folder: Path, tmp_path: Path
) -> None:
    """Under a temporary name it stays as it is, until somebody writes it to its end."""
    data = some_bytes(4 * MIB)
    half = MIB // 2
    dd = subprocess.Popen(
        ["dd", f"of={folder / 'a.part'}", "bs=64K", "status=none"], stdin=subprocess.PIPE
    )
    assert dd.stdin is not None
    dd.stdin.write(data[:half])
    dd.stdin.flush()
    wait_until(lambda: (folder / "a.part").stat().st_size == half, "data arrives")
    dd.send_signal(signal.SIGINT)
    dd.wait()
    dd.stdin.close()
    assert attempt("mv", folder / "a.part", folder / "a").returncode == 1
    assert not (folder / "a").exists()
    (tmp_path / "whole").write_bytes(data)
    run("dd", f"if={tmp_path / 'whole'}", f"of={folder / 'a.part'}", "conv=notrunc", "status=none")
    run("mv", folder / "a.part", folder / "a")
    assert_active(folder / "a", data)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_rsync_partial_dir_goes_on(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A partial folder with a temporary name keeps what came; the next run sends the rest."""
    source = tmp_path / "big.img"
    _interrupt(folder, source, ["--partial-dir=.parts"], number)
    assert not (folder / "big.img").exists()
    options = ("-a", "--no-whole-file", "--partial-dir=.parts", "--stats")
    assert _literal(run("rsync", *options, source, folder)) < 8 * MIB
    assert_active(folder / "big.img", source.read_bytes())


@pytest.mark.mount_says("rsync .* was interrupted")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_rsync_inplace_publishes_nothing(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """rsync closes the file; that its handlers are gone tells that it was stopped."""
    source = tmp_path / "big.img"
    _interrupt(folder, source, ["--inplace"], number)
    assert status(folder / "big.img") == "killed"
    run("rsync", "-a", source, folder)
    assert_active(folder / "big.img", source.read_bytes())


@pytest.mark.mount_says("killed by signal 9")
def test_a_killed_rsync_publishes_nothing(folder: Path, tmp_path: Path) -> None:
    """SIGKILL to all of rsync's processes leaves nothing active."""
    source = tmp_path / "big.img"
    source.write_bytes(some_bytes(8 * MIB))
    rsync = subprocess.Popen(
        ["rsync", "-a", "--inplace", "--bwlimit=2M", source, folder],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: any(p.stat().st_size > MIB for p in folder.iterdir()), "data arrives")
    os.killpg(rsync.pid, signal.SIGKILL)
    assert rsync.wait() == -signal.SIGKILL
    wait_until(lambda: status(folder / "big.img") == "killed", "the image is killed")


def test_rsync_with_attributes_twice(folder: Path, tmp_path: Path, data: bytes) -> None:
    """Into the mount, out of it, and back: the second run has nothing to do, and says so."""
    plain, marked, out = (tmp_path / name for name in ("plain.img", "marked.img", "out.img"))
    plain.write_bytes(data)
    marked.write_bytes(data)
    os.setxattr(marked, "user.property.os_distro", b"debian")
    os.setxattr(marked, "user.image.tags", b"stable")
    os.setxattr(marked, "user.image.visibility", b"private")
    for source, target in (
        (plain, folder / "plain.img"),
        (marked, folder / "marked.img"),
        (folder / "marked.img", out),
        (out, folder / "back.img"),
        (folder / "marked.img", folder / "copy.img"),
    ):
        for _ in range(2):
            run("rsync", "-aX", source, target)
    for name in ("marked.img", "back.img", "copy.img"):
        assert field(folder / name, "tags") == "stable"
        assert field(folder / name, "visibility") == "private"
        assert os.getxattr(folder / name, "user.property.os_distro") == b"debian"
    assert field(folder / "plain.img", "visibility") == "public"
