"""A folder of very many images, against the same names in a folder of the disk."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import MIB
from tests.kit.daemon import Daemon
from tests.kit.large_folder import fill, name_of

SIZES = (1_000, 10_000, 100_000)
_LOOKUPS = 500


def test_folders(mounted: Daemon, tmp_path: Path, table: Table) -> None:
    """Listings of the largest folder, and a lookup in each."""
    catalog = mounted.catalog()
    for size in SIZES:
        fill(catalog, size)
        plain = tmp_path / str(size)
        plain.mkdir()
        for number in range(size):
            (plain / name_of(number)).touch()
    catalog.close()
    mounted.stop()
    mounted.start()
    for size in SIZES:
        _lookups(mounted.path / "file" / str(size), tmp_path / str(size), size, table)
    _listings(mounted.path / "file" / str(size), tmp_path / str(size), size, table)
    peak = mounted.peak_memory()
    table.note(f"peak memory, {size:,} images listed", f"{peak / MIB:.0f} MiB", "< 200")


def _listings(ours: Path, plain: Path, size: int, table: Table) -> None:
    for command in (("ls", "-f"), ("ls", "-l"), ("find",)):
        works: dict[str, Callable[[], object]] = {
            "ours": partial(measure.run, *command, ours),
            "plain": partial(measure.run, *command, plain),
        }
        times = measure.in_turns(works, rounds=3, before=lambda: measure.drop_caches(2))
        each = [f"{times[it]:.2f} s" for it in ("ours", "plain")]
        what = f"{' '.join(command)} of {size:,} images, cold, to ext4 (time)"
        table.add(what, each, times["ours"] / times["plain"])


def _lookups(ours: Path, plain: Path, size: int, table: Table) -> None:
    measure.drop_caches(2)
    each = [_time_of_lookups(folder, size) for folder in (ours, plain)]
    text = [f"{seconds * 1e6:.0f} µs" for seconds in each]
    table.add(f"stat of a new name among {size:,}, to ext4 (time)", text, each[0] / each[1])


def _time_of_lookups(folder: Path, size: int) -> float:
    names = [name_of(number) for number in random.Random(size).sample(range(size), _LOOKUPS)]
    start = time.perf_counter()
    for name in names:
        os.stat(folder / name)
    return (time.perf_counter() - start) / len(names)
