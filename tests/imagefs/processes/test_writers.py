"""What /proc tells of a process that writes."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagefs.processes import writers
from imagefs.processes.writers import NOBODY, File, Hold, Life
from tests.kit.daemon import wait_until

THIS = os.getpid()


@contextmanager
def _program(script: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that has come to its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-uc", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.close()


def test_a_thread_stands_for_its_process() -> None:
    """FUSE names the thread; the process is what opens and dies."""
    found: list[writers.Writer] = []
    thread = threading.Thread(
        target=lambda: found.append(writers.of_thread(threading.get_native_id()))
    )
    thread.start()
    thread.join()
    assert found == [writers.of_thread(THIS)]
    assert found[0].pid == THIS
    assert found[0].lives
    assert str(found[0]).endswith(f"(pid {THIS})")
    assert writers.see(THIS).life is Life.RUNNING


def test_a_process_that_is_gone() -> None:
    """No pid, and it does not live."""
    with _program("print()") as process:
        writer = writers.of_thread(process.pid)
    assert not writer.lives
    assert writers.see(process.pid).life is Life.GONE
    assert writers.of_thread(process.pid) == NOBODY
    assert not writers.of_thread(0).lives


@pytest.mark.parametrize(
    ("statement", "killed", "failed"),
    [
        ("os._exit(0)", None, None),
        ("os._exit(3)", None, "exited with status 3"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9", None),
    ],
)
def test_how_a_process_ended(statement: str, killed: str | None, failed: str | None) -> None:
    """As long as nobody has waited for it."""
    process = subprocess.Popen([sys.executable, "-c", f"import os; {statement}"])
    wait_until(lambda: writers.see(process.pid).life is Life.ENDED, "it ends")
    seen = writers.see(process.pid)
    assert (seen.killed, seen.failed) == (killed, failed)
    process.wait()


def _file(path: Path, *, mappable: bool = True) -> File:
    found = path.stat()
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    return File(found.st_ino, device, mappable)


def test_who_holds_a_file(tmp_path: Path) -> None:
    """Only a descriptor that can write counts."""
    path = tmp_path / "file"
    path.touch()
    file = _file(path)
    with path.open("rb"):
        assert writers.holds(THIS, file) is Hold.NO
    with path.open("r+b"):
        assert writers.holds(THIS, file) is Hold.YES
        assert writers.holds(THIS, File(file.inode, None, mappable=True)) is Hold.YES
    assert writers.holds(THIS, file) is Hold.NO


def test_a_first_thread_that_has_ended(tmp_path: Path) -> None:
    """The files of a process are those of its other threads as well."""
    (tmp_path / "file").touch()
    script = """
import ctypes, os, sys, threading, time
file = open(sys.argv[1], "r+b")
threading.Thread(target=lambda: (print(), time.sleep(100))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with _program(script, tmp_path / "file") as process:
        wait_until(lambda: not os.listdir(f"/proc/{process.pid}/fd"), "the first thread ends")
        assert writers.holds(process.pid, _file(tmp_path / "file")) is Hold.YES


MAPPED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], os.O_RDWR)
assert libc.mmap(None, ctypes.c_size_t(4096), 3, int(sys.argv[2]), fd, ctypes.c_long(0)) != -1
os.close(fd)
print()
input()
"""


@pytest.mark.parametrize(
    ("flags", "expected"), [(mmap.MAP_SHARED, Hold.YES), (mmap.MAP_PRIVATE, Hold.NO)]
)
def test_a_shared_mapping_holds_a_file(tmp_path: Path, flags: int, expected: Hold) -> None:
    """One can write by it after close(2); a private one is no way to the file."""
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with _program(MAPPED, path, flags) as process:
        assert writers.holds(process.pid, _file(path)) is expected
        assert writers.holds(process.pid, _file(path, mappable=False)) is Hold.NO


def test_the_same_inode_of_another_file_system() -> None:
    """Numbers are unique only within one."""
    # A file of /proc: of a mount that every process sees, also one that is in a chroot.
    with open("/proc/self/comm", "r+b") as opened:
        file = _file(Path(opened.name))
        assert writers.holds(THIS, file) is Hold.YES
        assert writers.holds(THIS, File(file.inode, "0:4095", mappable=True)) is Hold.NO


HANDLERS = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
print()
for line in iter(input, ""):
    exec(line)
    print()
"""


@pytest.mark.parametrize(
    ("statement", "stops"),
    [
        ("pass", False),
        # As a handler that is good for one signal, which has come (dd, rsync).
        ("signal.signal(signal.SIGINT, signal.SIG_DFL)", True),
        # As Python does before it closes what is still open.
        ("[signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM)]", False),
        ("signal.signal(signal.SIGUSR1, lambda *_: None)", False),
        # Another program has other handlers: here, but for its name.
        (
            "signal.signal(signal.SIGINT, signal.SIG_DFL); open('/proc/self/comm', 'w').write('b')",
            False,
        ),
    ],
)
def test_a_program_that_has_been_stopped(statement: str, stops: bool) -> None:
    """One of its signal handlers is gone, the others are there."""
    with _program(HANDLERS) as process:
        before = writers.see(process.pid)
        assert before.handlers == 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(statement.encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert writers.see(process.pid).stopped_since(before) == stops
