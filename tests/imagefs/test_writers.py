"""What /proc tells of the process that writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagefs import writers

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


def test_a_process_that_is_gone() -> None:
    """No pid, no failure, and it does not live."""
    with _program("print()") as process:
        writer = writers.of_thread(process.pid)
    assert not writer.lives
    assert writer.failure() is None
    assert writers.of_thread(process.pid).pid == 0
    assert not writers.of_thread(0).lives


def _device(path: Path) -> str:
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def test_who_holds_a_file(tmp_path: Path) -> None:
    """Only a descriptor that can write counts, in the writer or in any other process."""
    path = tmp_path / "file"
    path.touch()
    inode, device = path.stat().st_ino, _device(path)
    nobody = writers.of_thread(0)
    with path.open("rb"):
        assert not writers.is_held(inode, device, nobody)
    with path.open("r+b"):
        assert writers.is_held(inode, device, nobody)
        assert writers.is_held(inode, None, nobody)
        assert writers.is_held(inode, device, writers.of_thread(THIS))
    assert not writers.is_held(inode, device, nobody)
    with _program("import sys; file = open(sys.argv[1], 'wb'); print(); input()", path):
        assert writers.is_held(inode, device, writers.of_thread(THIS))


def test_the_same_inode_of_another_file_system() -> None:
    """Numbers are unique only within one."""
    # A file of /proc: of a mount that every process sees, also one that is in a chroot.
    with open("/proc/self/comm", "r+b") as file:
        found = os.fstat(file.fileno())
        this = writers.of_thread(THIS)
        assert writers.is_held(found.st_ino, _device(Path(file.name)), this)
        assert not writers.is_held(found.st_ino, "0:4095", this)


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
    ],
)
def test_a_program_that_has_been_stopped(statement: str, stops: bool) -> None:
    """One of its signal handlers is gone, the others are there."""
    with _program(HANDLERS) as process:
        writer = writers.of_thread(process.pid)
        handlers = writer.handlers
        assert handlers == 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(statement.encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert writer.is_stopping(handlers) == stops
        assert writer.failure() is None
