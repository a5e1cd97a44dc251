"""execve(2) and exit(2) close files while the kernel holds locks of the process: nobody may wait.

Each program runs on two mounts at once, under a watchdog.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.imagefs.daemon import Daemon, wait_until
from tests.imagefs.tools import assert_active, field, status
from tests.imagefs.watchdog import SECONDS, watchdog

DATA = bytes(range(256)) * 32
BEGIN = """
import ctypes, os, signal, socket, subprocess, sys, threading, time
path = sys.argv[1]
data = bytes(range(256)) * 32
half = len(data) // 2
libc = ctypes.CDLL(None, use_errno=True)
true = ["/bin/true"]
def create(flags=os.O_WRONLY):
    return os.open(path, flags | os.O_CREAT)  # close-on-exec, as Python always does
def child(work):
    number = os.fork()
    if number == 0:
        work()
        os._exit(0)
    return number
def execute():
    os.execv(true[0], true)
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A program that writes an image in an unusual way."""

    program: str
    reason: str = ""
    """A part of the message if the image is to be killed."""


VARIANTS: dict[str, Variant] = {
    "exec": Variant("""
fd = create(); os.write(fd, data); execute()
"""),
    "exec read-write": Variant("""
fd = create(os.O_RDWR); os.write(fd, data); execute()
"""),
    "exec in a child after the parent has closed": Variant("""
fd = create(); os.write(fd, data)
ready, go = os.pipe()
number = child(lambda: (os.read(ready, 1), execute()))
os.close(fd)
os.write(go, b"x")
os.waitpid(number, 0)
"""),
    "exec in a child while the parent closes": Variant("""
fd = create(); os.write(fd, data)
number = child(execute)
os.close(fd)
os.waitpid(number, 0)
"""),
    "exec in a child while the parent goes on": Variant("""
fd = create(); os.write(fd, data[:half])
os.waitpid(child(execute), 0)
os.write(fd, data[half:])
os.close(fd)
"""),
    "killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
os.kill(os.getpid(), signal.SIGKILL)
""",
        "was killed by signal 9",
    ),
}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount of another catalog."""
    with Daemon(tmp_path_factory.mktemp("second")).mounted() as daemon:
        yield daemon


def _is_decided(path: Path) -> bool:
    return status(path) != "saving"


def _cases() -> Iterator[object]:
    for name, variant in VARIANTS.items():
        marks = [pytest.mark.mount_says(variant.reason)] if variant.reason else []
        yield pytest.param(variant, id=name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("variant", list(_cases()))
def test_every_close_is_answered(folder: Path, second: Daemon, variant: Variant) -> None:
    """Nobody hangs, `ps` neither, no half image is active and no whole one is lost."""
    beside = second.path / "file" / folder.name
    beside.mkdir()
    paths = (folder / "a", beside / "a")
    with watchdog(folder, beside):
        programs = [
            subprocess.Popen([sys.executable, "-ISc", BEGIN + variant.program, path])
            for path in paths
        ]
        subprocess.run(["ps", "-ef"], check=True, stdout=subprocess.DEVNULL)
        for program in programs:
            program.wait(2 * SECONDS)
    for path in paths:
        wait_until(partial(_is_decided, path), "it is decided")
        if variant.reason:
            assert status(path) == "killed"
            assert variant.reason in field(path, "message")
        else:
            assert_active(path, DATA)
