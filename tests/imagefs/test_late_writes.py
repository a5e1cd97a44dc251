"""No accepted write is lost in silence: it is in the image, or the image is not active."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.imagefs.watchdog import SECONDS, watchdog
from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import CHILD, assert_active, attempt, field, python, run, status

PATTERN = bytes(range(256)) * 4096
DATA = PATTERN * 4
BEGIN = (
    CHILD
    + """
import array, ctypes, os, signal, socket, struct, sys, threading, time
path = sys.argv[1]
data = bytes(range(256)) * 4096 * 4
size, half = len(data), len(data) // 2
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def create(flags=os.O_RDWR):
    return os.open(path, flags | os.O_CREAT)
def mapped(fd):
    os.ftruncate(fd, size)
    address = libc.mmap(None, ctypes.c_size_t(size), 3, 1, fd, ctypes.c_long(0))
    return (ctypes.c_char * size).from_address(address)
def status():
    return os.getxattr(path, "user.image.status").decode()
def write(fd, at, end):
    for offset in range(at, end, 1 << 16):
        os.pwrite(fd, data[offset:min(offset + (1 << 16), end)], offset)
"""
)


@dataclass(frozen=True, slots=True)
class Late:
    """A program that goes on writing after a close(2)."""

    program: str
    killed: str = ""
    """A part of the message, if it is to be killed."""
    code: int | None = None
    """The exit status, if it is not the one of that."""


PROGRAMS: dict[str, Late] = {
    "mapping": Late("""
fd = create(); memory = mapped(fd); os.close(fd)
memory[:] = data
"""),
    "mapping, another exit": Late("""
fd = create(); memory = mapped(fd); os.close(fd)
memory[:] = data
os._exit(0)
"""),
    "mapping, not yet published": Late("""
fd = create(); memory = mapped(fd); os.close(fd)
assert status() == "saving", status()
memory[:] = data
"""),
    "mapping and msync": Late("""
fd = create(); memory = mapped(fd); os.close(fd)
memory[:] = data
assert libc.msync(ctypes.byref(memory), ctypes.c_size_t(size), 4) == 0
"""),
    "mapping and munmap": Late("""
fd = create(); memory = mapped(fd); os.close(fd)
memory[:] = data
assert libc.munmap(ctypes.byref(memory), ctypes.c_size_t(size)) == 0
time.sleep(0.5)
"""),
    "mapping in a child": Late("""
fd = create(); memory = mapped(fd)
def work():
    os.close(fd)
    memory[:] = data
number = child(work)
os.close(fd)
os.waitpid(number, 0)
"""),
    "mapping in a child of an ended parent": Late("""
fd = create(); memory = mapped(fd)
def work():
    os.close(fd)
    time.sleep(0.3)
    memory[:] = data
child(work)
"""),
    "mapping, killed": Late(
        """
fd = create(); memory = mapped(fd); os.close(fd)
memory[:half] = data[:half]
os.kill(os.getpid(), signal.SIGKILL)
""",
        "killed by signal 9",
    ),
    "mapping with clean pages, killed": Late(
        """
fd = create(); memory = mapped(fd); os.close(fd)
memory[:half] = data[:half]
libc.msync(ctypes.byref(memory), ctypes.c_size_t(size), 4)
os.kill(os.getpid(), signal.SIGKILL)
""",
        "ended|killed by signal 9",
    ),
    "double fork": Late("""
fd = create(os.O_WRONLY)
write(fd, 0, half)
def daemon():
    os.setsid()
    child(lambda: (time.sleep(0.5), write(fd, half, size)))
os.waitpid(child(daemon), 0)
os.close(fd)
assert status() == "saving", status()
"""),
    "over a socket, to one that was there before": Late("""
here, there = socket.socketpair()
def receive():
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    time.sleep(0.3)
    write(fds[0], half, size)
number = child(receive)
fd = create(os.O_WRONLY)
write(fd, 0, half)
socket.send_fds(here, [b"x"], [fd])
os.close(fd)
os.waitpid(number, 0)
"""),
    "pidfd_getfd": Late("""
ready, go = os.pipe()
parent = os.getpid()
def steal():
    number = int(os.read(ready, 10))
    fd = libc.syscall(438, os.pidfd_open(parent), number, 0)
    assert fd >= 0
    time.sleep(0.5)
    write(fd, half, size)
number = child(steal)
fd = create(os.O_WRONLY)
write(fd, 0, half)
libc.prctl(0x59616d61, -1)
os.write(go, b"%d" % fd)
time.sleep(0.3)
os.close(fd)
os.waitpid(number, 0)
"""),
    "several at once": Late("""
here, there = socket.socketpair()
def receive():
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    time.sleep(0.3)
    quarter = half // 4
    threads = [
        threading.Thread(target=write, args=(fds[0], half + n * quarter, half + (n + 1) * quarter))
        for n in range(4)
    ]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
number = child(receive)
fd = create(os.O_WRONLY)
write(fd, 0, half)
socket.send_fds(here, [b"x"], [fd])
os.close(fd)
os.waitpid(number, 0)
"""),
    "a mapping of what came over a socket": Late("""
here, there = socket.socketpair()
def receive():
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    memory = mapped(fds[0])
    os.close(fds[0])
    time.sleep(0.5)
    memory[:] = data
number = child(receive)
fd = create()
os.ftruncate(fd, size)
socket.send_fds(here, [b"x"], [fd])
os.close(fd)
os.waitpid(number, 0)
"""),
}


def _cases(programs: Mapping[str, Late]) -> Iterator[object]:
    for name, late in programs.items():
        marks = [pytest.mark.mount_says(late.killed)] if late.killed else []
        yield pytest.param(late, id=name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("late", list(_cases(PROGRAMS)))
def test_what_is_written_after_close_is_in_the_image(folder: Path, late: Late) -> None:
    """Each program ends well and leaves all of it; or it is killed, and so is the image."""
    _leaves_all_or_is_killed(folder / "a", late)


def _leaves_all_or_is_killed(path: Path, late: Late) -> None:
    with watchdog(path.parent):
        program = subprocess.Popen([sys.executable, "-ISc", BEGIN + late.program, path])
        code = program.wait(2 * SECONDS)
    assert code == (late.code if late.code is not None else -9 if late.killed else 0)

    def is_decided() -> bool:
        return status(path) == "killed" or (
            status(path) == "active" and (bool(late.killed) or path.read_bytes() == DATA)
        )

    wait_until(is_decided, "it is decided")
    if late.killed:
        assert status(path) == "killed"
    else:
        assert_active(path, DATA)


RING = """
parameters = (ctypes.c_uint32 * 30)()
def ring_with(fd):  # io_uring(7), with one registered file
    ring = libc.syscall(425, 4, ctypes.byref(parameters))
    assert ring >= 0
    assert libc.syscall(427, ring, 2, ctypes.byref(ctypes.c_int(fd)), 1) == 0
    pages = [libc.mmap(None, 4096, 3, 1, ring, ctypes.c_long(at)) for at in (0, 0x10000000)]
    return ring, *pages
def number(at):
    return ctypes.c_uint32.from_address(at)
def write_registered(ring, rings, entries, at, end):
    text = ctypes.create_string_buffer(data[at:end], end - at)
    entry = struct.pack("<BBHiQQ40x", 23, 1, 0, 0, at, ctypes.addressof(text))
    ctypes.memmove(entries, entry, len(entry))
    number(entries + 24).value = end - at
    number(rings + parameters[16]).value = 0
    number(rings + parameters[11]).value += 1
    assert libc.syscall(426, ring, 1, 1, 1, None, 0) == 1
    head = number(rings + parameters[20])
    done = head.value & number(rings + parameters[22]).value
    result = number(rings + parameters[25] + 16 * done + 8)
    head.value += 1
    assert result.value == end - at, result.value
fd = create(os.O_WRONLY)
ring = ring_with(fd)
write(fd, 0, half)
"""

REGISTERED = {
    "at once": Late("os.close(fd); write_registered(*ring, half, size)"),
    "later": Late("os.close(fd); time.sleep(0.3); write_registered(*ring, half, size)"),
    "by a child of an ended parent": Late("""
child(lambda: (os.close(fd), time.sleep(0.3), write_registered(*ring, half, size)))
os.close(fd)
"""),
    "killed": Late("os.close(fd); os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    "by a child, killed": Late(
        """
child(lambda: (os.close(fd), time.sleep(0.3), os.kill(os.getpid(), signal.SIGKILL)))
os.close(fd)
""",
        "killed by signal 9",
        0,
    ),
}


def _rings_are_allowed() -> bool:
    try:
        return Path("/proc/sys/kernel/io_uring_disabled").read_text() == "0\n"
    except OSError:
        return False


@pytest.mark.skipif(not _rings_are_allowed(), reason="io_uring is not allowed here")
@pytest.mark.parametrize("late", list(_cases(REGISTERED)))
def test_what_is_written_by_a_registered_file(folder: Path, late: Late) -> None:
    """A ring of io_uring writes to it after close(2), without a descriptor."""
    _leaves_all_or_is_killed(folder / "a", replace(late, program=RING + late.program))


PASSED_ON = """
here, there = socket.socketpair()
def receive():
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    sys.stdin.readline()
    try:
        write(fds[0], half, size)
    except OSError:
        os._exit(3)
number = child(receive)
fd = create(os.O_WRONLY)
write(fd, 0, half)
socket.send_fds(here, [b"x"], [fd])
os.close(fd)
print(status(), flush=True)
_, code = os.waitpid(number, 0)
sys.exit(os.waitstatus_to_exitcode(code))
"""


def _passes_on(path: Path) -> subprocess.Popen[str]:
    """A program whose child, which nobody sees, writes the second half once it is told to."""
    program = subprocess.Popen(
        [sys.executable, "-ISc", BEGIN + PASSED_ON, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "active\n"
    return program


@pytest.mark.mount_says("were written to it after it was complete are lost")
def test_a_late_write_to_what_others_have_read(folder: Path) -> None:
    """They must not see it change: it fails, and the image is killed."""
    path = folder / "a"
    program = _passes_on(path)
    run("cat", path)
    program.communicate("go\n", timeout=SECONDS)
    assert program.returncode == 3
    wait_until(lambda: status(path) == "killed", "it is killed")
    assert "bytes that were written to it after it was complete are lost" in field(path, "message")
    assert attempt("cat", path).returncode == 1


@pytest.mark.mount_says("were written to it after it was complete are lost")
def test_a_late_write_to_what_is_in_the_trash(folder: Path, mount: Daemon) -> None:
    """It fails; the image, should it come back, is killed."""
    path = folder / "a"
    program = _passes_on(path)
    number = field(path, "id")
    path.unlink()
    program.communicate("go\n", timeout=SECONDS)
    assert program.returncode == 3
    mount.command("restore", number)
    wait_until(lambda: status(path) == "killed", "it is killed")


@pytest.mark.mount_says("no copy can be read")
@pytest.mark.mount_says("were written to it after it was complete are lost")
def test_a_late_write_that_cannot_be_staged(folder: Path, mount: Daemon) -> None:
    """The data has gone from the store: the image is killed rather than left without the write."""
    path = folder / "a"
    program = _passes_on(path)
    (mount.state / "file" / field(path, "id")).unlink()
    program.communicate("go\n", timeout=SECONDS)
    assert program.returncode == 3
    wait_until(lambda: status(path) == "killed", "it is killed")


def test_a_late_write_under_a_temporary_name(folder: Path) -> None:
    """The file stays `saving` anyway, and the rename publishes all of it."""
    path = folder / "a.part"
    program = python(BEGIN + PROGRAMS["mapping"].program, path)
    assert program == ""
    wait_until(lambda: path.read_bytes() == DATA, "it is written")
    path.rename(folder / "a")
    # The program may not have ended for the kernel, which then closes the file after that.
    wait_until(lambda: status(folder / "a") == "active", "it is published")
    assert_active(folder / "a", DATA)


def test_a_rename_while_the_file_is_closed_for_good(folder: Path) -> None:
    """At any moment between the program's end and the last digest: the image is published."""
    for number in range(8):
        path = folder / f"{number}.part"
        assert python(BEGIN + PROGRAMS["mapping"].program, path) == ""
        time.sleep(number / 200)
        path.rename(path.with_suffix(""))
    for number in range(8):
        path = folder / f"{number}"
        wait_until(partial(_is_active, path), "it is published")
        assert_active(path, DATA)


def _is_active(path: Path) -> bool:
    return status(path) == "active"
