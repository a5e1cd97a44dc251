"""close(2) of a small image beside many processes that have nothing to do with it.

What a close asks of /proc must not grow with the guests of the host: the same work with and without
them, in turns.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import measure
from tests.bench.conftest import Table
from tests.kit.daemon import Daemon
from tests.kit.tools import some_bytes

_IDLE = 500
_DESCRIPTORS = 50
_CLOSES = 50
_FILES = 10_000
_SIZE = 64 * 1024
_SCRIPT = """
import os, signal, sys
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        for _ in range(int(sys.argv[2])):
            os.open("/etc/hostname", os.O_RDONLY)
        signal.pause()
    children.append(child)
print(flush=True)
sys.stdin.readline()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@contextmanager
def _idle_processes() -> Iterator[None]:
    command = [sys.executable, "-c", _SCRIPT, str(_IDLE), str(_DESCRIPTORS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        try:
            yield
        finally:
            parent.communicate(b"\n")


def test_close_beside_idle_processes(mounted: Daemon, table: Table) -> None:
    """A program that writes 64 KiB and closes, again and again."""
    data, numbers = some_bytes(_SIZE), itertools.count()

    def close() -> None:
        for _ in range(_CLOSES):
            (mounted.path / "file" / str(next(numbers))).write_bytes(data)

    alone = measure.in_turns({"alone": close})["alone"]
    with _idle_processes():
        beside = measure.in_turns({"beside": close})["beside"]
    each = [f"{time / _CLOSES * 1000:.1f} ms" for time in (beside, alone)]
    table.add(f"write and close, beside {_IDLE} processes, to alone", each, beside / alone, "≤ 1.2")


def test_many_small_files_beside_idle_processes(
    mounted: Daemon, tmp_path: Path, table: Table
) -> None:
    """`cp -r` of 10,000 files of 64 KiB."""
    source, numbers = tmp_path / "source", itertools.count()
    source.mkdir()
    block = some_bytes(_SIZE)
    for number in range(_FILES):
        (source / str(number)).write_bytes(number.to_bytes(8, "big") + block[8:])

    def copy() -> None:
        measure.run("cp", "-r", source, mounted.path / "file" / f"copy-{next(numbers)}")

    alone = measure.in_turns({"alone": copy}, rounds=1)["alone"]
    with _idle_processes():
        beside = measure.in_turns({"beside": copy}, rounds=1)["beside"]
    each = [f"{time:.0f} s" for time in (beside, alone)]
    table.add(f"cp of {_FILES} files, beside {_IDLE} processes", each, beside / alone, "≤ 1.2")
