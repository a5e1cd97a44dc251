"""The smallest guest: a boot sector that says so and switches its machine off."""

from __future__ import annotations

from pathlib import Path

from tests.kit.tools import MIB, attempt, run

DRIVES = [
    "if=virtio,cache=none,aio=native",
    "if=virtio,cache=none,aio=io_uring",
    "if=ide,cache=writeback",
    "if=ide,cache=none,aio=native",
]
"""Ways to attach its disk."""

_TEXT = b"booted from imagefs\r\n"


def make_disk(image: Path, folder: Path) -> None:
    """Make a qcow2 image that boots, by way of `folder`."""
    disk = folder / "disk.raw"
    disk.write_bytes(_boot_sector() + bytes(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image)


def assert_boots(image: Path, folder: Path, drive: str) -> None:
    """A machine boots from an overlay in `folder` whose backing file is the image."""
    overlay = folder / "guest.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay)
    result = attempt(
        "qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
        "-drive", f"file={overlay},{drive}",
    )  # fmt: skip
    assert _TEXT in result.stdout, result.stderr.decode()


def _boot_sector() -> bytes:
    """512 bytes that write a text to the serial port and switch the machine off."""
    head = bytes.fromhex("31c0 8ed8 be 207c ac 84c0 7406 ba f803 ee ebf5".replace(" ", ""))
    # isa-debug-exit: writing to its port ends qemu.
    end = bytes.fromhex("ba f400 b0 10 ee f4".replace(" ", ""))
    code = head + end
    assert len(code) <= 0x20
    return (code.ljust(0x20, b"\0") + _TEXT + b"\0").ljust(510, b"\0") + b"\x55\xaa"
