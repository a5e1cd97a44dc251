"""qemu's tools: images they make on the mount, and images they read there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.imagefs.boot_sector import DRIVES, assert_boots, make_disk
from tests.kit.tools import MIB, assert_active, attempt, field, run, settled, some_bytes, status

FORMATS = {
    "qcow2": "qcow2",
    "raw": "raw",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vpc": "vhd",
    "vhdx": "vhdx",
}
"""qemu's name of each format, and Glance's."""
CACHES = ["none,aio=native", "none,aio=io_uring", "writeback", "writethrough", "directsync"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw disk with holes."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        for offset in (0, 5 * MIB, 15 * MIB):
            file.seek(offset)
            file.write(some_bytes(MIB, offset))
        file.truncate(20 * MIB)
    return path


@pytest.fixture
def base(folder: Path, raw: Path) -> Path:
    """The same as an active qcow2 image."""
    run("qemu-img", "convert", "-O", "qcow2", raw, folder / "base.qcow2")
    return folder / "base.qcow2"


@pytest.mark.parametrize("format_", FORMATS)
def test_convert_onto_the_mount(folder: Path, raw: Path, format_: str) -> None:
    """qemu-img convert makes an active image of each format, and finds it right."""
    target = folder / f"disk.{format_}"
    run("qemu-img", "convert", "-O", format_, raw, target)
    assert_active(target, target.read_bytes())
    assert field(target, "disk_format") == FORMATS[format_]
    assert int(field(target, "virtual_size")) >= 20 * MIB
    run("qemu-img", "compare", "-f", "raw", "-F", format_, raw, target)


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "qcow2", "-c"),
        ("-O", "qcow2", "-o", "preallocation=metadata"),
        ("-O", "qcow2", "-W", "-m", "8"),
        ("-O", "qcow2", "-t", "none"),
        ("-O", "raw", "-S", "0"),
        ("-O", "raw", "-o", "preallocation=full"),
        ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    ],
    ids=" ".join,
)
def test_convert_with_options(folder: Path, raw: Path, options: tuple[str, ...]) -> None:
    """Compressed, preallocated, out of order, without the cache."""
    target = folder / "disk"
    run("qemu-img", "convert", *options, raw, target)
    assert settled(target) == "active"
    run("qemu-img", "compare", raw, target)


def test_a_converted_qcow2_is_sound(base: Path) -> None:
    """qemu-img check and info read it through the mount."""
    assert "No errors" in run("qemu-img", "check", base)
    info = json.loads(run("qemu-img", "info", "--output=json", base))
    assert info["virtual-size"] == 20 * MIB


def test_convert_n_onto_an_image_is_refused(base: Path, raw: Path) -> None:
    """No qemu tool opens an active image to write."""
    before = base.read_bytes()
    for command in (
        ("qemu-img", "convert", "-n", "-O", "qcow2", raw, base),
        ("qemu-img", "resize", base, "+1G"),
        ("qemu-img", "snapshot", "-c", "one", base),
        ("qemu-io", "-c", "write 0 64k", base),
    ):
        assert attempt(*command).returncode != 0
    assert_active(base, before)


def test_create_makes_an_empty_disk(folder: Path) -> None:
    """qemu-img create onto the mount."""
    run("qemu-img", "create", "-f", "qcow2", folder / "empty.qcow2", "1G")
    assert settled(folder / "empty.qcow2") == "active"
    assert field(folder / "empty.qcow2", "virtual_size") == str(1024 * MIB)


@pytest.mark.mount_says("backing")
def test_an_overlay_on_the_mount_is_refused(folder: Path, overlay: Path) -> None:
    """The format gate: an image that names a backing file could read any file of the host."""
    result = attempt("cp", overlay, folder / "overlay.qcow2")
    assert os.strerror(errno.EINVAL) in result.stderr.decode()
    assert status(folder / "overlay.qcow2") == "killed"
    assert "backing" in field(folder / "overlay.qcow2", "message")


@pytest.mark.mount_says("backing")
def test_create_of_an_overlay_on_the_mount_is_refused(folder: Path, base: Path) -> None:
    """qemu-img create -b does not check its last close: the image is killed all the same."""
    overlay = folder / "overlay.qcow2"
    attempt("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
    assert status(overlay) == "killed"
    assert "backing" in field(overlay, "message")


@pytest.fixture
def overlay(base: Path, tmp_path: Path) -> Path:
    """A local overlay whose backing file is on the mount."""
    path = tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
    return path


def test_the_chain_of_an_overlay(overlay: Path, base: Path, raw: Path) -> None:
    """qemu-img follows the chain, and reads through it what the base holds."""
    chain = json.loads(run("qemu-img", "info", "--backing-chain", "--output=json", overlay))
    assert [image["filename"] for image in chain] == [str(overlay), str(base)]
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, overlay)


@pytest.mark.parametrize("cache", CACHES)
def test_qemu_reads_through_an_overlay(overlay: Path, raw: Path, cache: str) -> None:
    """qemu-io reads the same bytes whatever cache and aio it is told to use."""
    mode, _, aio = cache.partition(",aio=")
    options = f"driver=qcow2,file.filename={overlay},backing.file.filename="
    options += json.loads(run("qemu-img", "info", "--output=json", overlay))["backing-filename"]
    direct = "on" if mode in ("none", "directsync") else "off"
    for file in ("file", "backing.file"):
        options += f",{file}.cache.direct={direct}" + (f",{file}.aio={aio}" if aio else "")
    dump = overlay.with_name("dump")
    run("qemu-img", "convert", "--image-opts", options, "-O", "raw", dump)
    assert dump.read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("cache", CACHES)
def test_an_overlay_takes_writes(overlay: Path, base: Path, cache: str) -> None:
    """Writes go to the overlay; the base stays what it was."""
    before = base.read_bytes()
    mode, _, aio = cache.partition(",aio=")
    arguments = ["-t", mode, *(["-i", aio] if aio else [])]
    output = run(
        "qemu-io", *arguments, "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k",
        "-c", "flush", overlay,
    )  # fmt: skip
    assert "verification failed" not in output
    assert_active(base, before)


def test_two_guests_share_a_base(overlay: Path, base: Path, tmp_path: Path) -> None:
    """qemu locks what it opens: a base on the mount may be opened by two at once."""
    other = tmp_path / "other.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", other)
    first = subprocess.Popen(
        ["qemu-io", str(overlay)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(b"read 0 64k\n")
    first.stdin.flush()
    first.stdout.readline()
    assert "read 65536/65536" in run("qemu-io", "-c", "read 0 64k", other)
    assert b"read" in first.communicate(b"read 1M 64k\nquit\n")[0]


# -- a guest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", DRIVES)
def test_a_guest_boots_from_an_overlay(folder: Path, tmp_path: Path, drive: str) -> None:
    """A machine boots from an overlay whose backing file is on the mount."""
    make_disk(folder / "disk.qcow2", tmp_path)
    assert_boots(folder / "disk.qcow2", tmp_path, drive)
    assert settled(folder / "disk.qcow2") == "active"
