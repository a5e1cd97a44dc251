"""kill -9 of a process that fills the cache, at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from tests.catalog.cache.remote import CHUNK, Remote, chunks_of, open_at, some_data

pytestmark = pytest.mark.stress

SIZE = 100 * CHUNK
_FILL = f"""
import sys
from pathlib import Path
from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from tests.catalog.cache.remote import CHUNK, Remote, open_at, some_data
data = some_data({SIZE}, 7)
folder = CacheFolder(Path(sys.argv[1]), 60 * CHUNK)
cache = BlockCache(folder)
print("ready", flush=True)
sys.stdin.readline()
while True:
    reader = open_at(cache, data, Remote())
    for offset in range(0, len(data), 50_000):
        assert reader.read_at(offset, 50_000) == data[offset:offset + 50_000]
    reader.close()
"""
MOMENTS = int(os.environ.get("IMAGEFS_KILLS", "12"))
"""How many times; 100 where a few minutes are to be had."""


def _filling(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _FILL, str(path)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_at_random_moments(tmp_path: Path) -> None:
    """Two processes fill one cache, larger than its room, and are killed: each claim holds."""
    data, chance = some_data(SIZE, 7), random.Random(4)
    chunks = chunks_of(data)
    for moment in range(MOMENTS):
        processes = [_filling(tmp_path) for _ in range(2)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        time.sleep(chance.uniform(0.02, 0.4))
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        folder = CacheFolder(tmp_path, 60 * CHUNK)
        with closing(folder.open(chunks)) as disk:
            for index in range(chunks.count):
                start, end = chunks.span(index, index + 1)
                assert disk.read(index, start, end) in (None, data[start:end]), moment
                assert disk.lock(index)
                disk.unlock(index)
        _read_all(folder, data)


def _read_all(folder: CacheFolder, data: bytes) -> None:
    """What they left is of use to the next."""
    cache = BlockCache(folder)
    with closing(open_at(cache, data, Remote())) as reader:
        for offset in range(0, len(data), 3 * CHUNK):
            assert reader.read_at(offset, 3 * CHUNK) == data[offset : offset + 3 * CHUNK]
    cache.close()
