"""A Debian that boots under qemu without a network: made once a checkout, in `.servers/`.

    boot_guest(make_guest(), overlay).waited

Its kernel is given to qemu; all else, systemd and what it starts, is read from the disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.programs import program

_FOLDER = Path(__file__).parents[2] / ".servers" / "guest"
_PACKAGES = "systemd-sysv,udev,linux-image-cloud-amd64,initramfs-tools"
GUEST_SIZE = 2 << 30
"""Bytes of its disk."""
_BOOT_SECONDS = 300
"""After which a boot is taken to hang; it takes half a minute without KVM."""

# Runs when all else has been started, and ends the machine.
_UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo booted > /dev/ttyS0; systemctl poweroff --force --force'
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """What qemu boots."""

    kernel: Path
    initrd: Path
    disk: Path
    """A qcow2 image, to be read only."""


@dataclass(frozen=True, slots=True)
class Booted:
    """A boot that has come to its end."""

    waited: float
    """Seconds its reads took, together, as qemu has measured."""
    reads: int


def make_guest() -> Guest:
    """Install the guest, as root, from Debian's mirror, unless that has been done."""
    guest = Guest(_FOLDER / "vmlinuz", _FOLDER / "initrd", _FOLDER / "disk.qcow2")
    if guest.disk.exists():
        return guest
    shutil.rmtree(_FOLDER, ignore_errors=True)
    root = _FOLDER / "root"
    root.mkdir(parents=True)
    debootstrap = [program("debootstrap", "debootstrap"), "--variant=minbase"]
    _run(*debootstrap, f"--include={_PACKAGES}", "bookworm", str(root))
    (kernel,), (initrd,) = root.glob("boot/vmlinuz-*"), root.glob("boot/initrd.img-*")
    shutil.copy(kernel, guest.kernel)
    shutil.copy(initrd, guest.initrd)
    unit = root / "etc/systemd/system/booted.service"
    unit.write_text(_UNIT)
    (unit.parent / "multi-user.target.wants" / unit.name).symlink_to(f"../{unit.name}")
    raw = _FOLDER / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(GUEST_SIZE)
    _run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-d", str(root), str(raw))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(_FOLDER / "converted"))
    (_FOLDER / "converted").rename(guest.disk)
    raw.unlink()
    shutil.rmtree(root)
    return guest


def boot_guest(guest: Guest, overlay: Path) -> Booted:
    """Boot from a qcow2 overlay until all services run, without the host's page cache."""
    serial = overlay.with_suffix(".serial")
    command = (
        "qemu-system-x86_64 -accel tcg -m 512 -nodefaults -no-shutdown -display none"
        f" -serial file:{serial} -qmp stdio -kernel {guest.kernel} -initrd {guest.initrd}"
        f" -drive id=disk,file={overlay},if=virtio,cache=none,aio=io_uring"
    )
    pipe = subprocess.PIPE
    arguments = [*command.split(), "-append", "console=ttyS0 root=/dev/vda rw"]
    qemu = subprocess.Popen(arguments, stdin=pipe, stdout=pipe)
    deadline = threading.Timer(_BOOT_SECONDS, qemu.kill)
    deadline.start()
    try:
        _ask(qemu, "qmp_capabilities")
        _wait_for(qemu, "SHUTDOWN")
        (disk,) = (each for each in _ask(qemu, "query-blockstats") if each["device"] == "disk")
    finally:
        deadline.cancel()
        qemu.kill()
        qemu.communicate()
    if "booted" not in serial.read_text(errors="replace"):
        raise RuntimeError(f"the guest has not booted: {serial}")
    stats = disk["stats"]
    return Booted(stats["rd_total_time_ns"] / 1e9, stats["rd_operations"])


def _ask(qemu: subprocess.Popen[bytes], command: str) -> Any:
    """Give qemu's monitor (docs/interop/qmp-spec) a command; return what it returns."""
    assert qemu.stdin is not None
    qemu.stdin.write(json.dumps({"execute": command}).encode())
    qemu.stdin.flush()
    return _wait_for(qemu, "return")


def _wait_for(qemu: subprocess.Popen[bytes], what: str) -> Any:
    """Read on until an event, or an answer with that key, comes."""
    assert qemu.stdout is not None
    for line in qemu.stdout:
        found = json.loads(line)
        if what in (found.get("event"), *found):
            return found.get(what)
    raise RuntimeError(f"qemu has ended before {what}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
