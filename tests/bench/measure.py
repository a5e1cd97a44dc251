"""How the benchmarks measure: several candidates in turns, in one run, by their medians.

Nothing is compared with a number from another run or another machine.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB
_START_TIMEOUT = 20.0


def in_turns(
    works: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    before: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Run all works one after the other, `rounds` times; return each median in seconds.

    `before` runs before each work and is not measured.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            before()
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far, user and system (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(*command: str | Path) -> None:
    """Run a command to its end; its output is not wanted."""
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def make_file(path: Path, size: int) -> Path:
    """A file of random bytes, on the disk and in the page cache."""
    block = random.Random(size).randbytes(16 * MIB)
    with path.open("wb") as file:
        for number in range(0, size, len(block)):
            # No two blocks the same: nothing may be saved by recognising them.
            file.write(number.to_bytes(8, "little") + block[: min(len(block), size - number) - 8])
        file.flush()
        os.fsync(file.fileno())
    return path


def read_all(path: Path) -> None:
    """Read a file from its beginning to its end, 1 MiB at once."""
    block = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def read_at_random(path: Path, size: int, count: int, seed: int) -> None:
    """Read `count` blocks of `size` bytes from places all over the file."""
    places = random.Random(seed)
    fd = os.open(path, os.O_RDONLY)
    try:
        blocks = os.fstat(fd).st_size // size
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(count):
            os.pread(fd, size, places.randrange(blocks) * size)
    finally:
        os.close(fd)


def forget_pages(path: Path) -> None:
    """Drop what the kernel has cached of this file, under this name only."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def drop_caches(what: int) -> None:
    """1 pages, 2 names and attributes, 3 both (proc(5), drop_caches)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(str(what))


@contextmanager
def other_mount(path: Path, *command: str | Path) -> Iterator[Path]:
    """Another program's FUSE mount at `path`, while it is needed."""
    path.mkdir(exist_ok=True)
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + _START_TIMEOUT
        while not os.path.ismount(path):
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < until, f"{command[0]} does not mount"
            time.sleep(0.02)
        yield path
    finally:
        run("umount", "-l", path)
        process.wait(_START_TIMEOUT)


def set_read_ahead(path: Path, kib: int) -> None:
    """Raise the read-ahead of the mount that `path` lies on."""
    device = path.stat().st_dev
    place = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    Path(place).write_text(str(kib))
