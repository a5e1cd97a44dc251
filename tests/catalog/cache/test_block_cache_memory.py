"""How much memory reading takes, whatever the size of the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress

_READ = """
import hashlib, sys
from pathlib import Path
from catalog.cache.block_cache import BlockCache
from catalog.cache.chunks import Chunks
from catalog.cache.sources import Copy
from catalog.cache.folder import CacheFolder
from catalog.model.image import CHUNK_SIZE, ChunkDigests
from catalog.stores.memory import MemoryReader, MemoryStore, MemoryStoreSettings

COUNT = 160

class Reader(MemoryReader):
    size = COUNT * CHUNK_SIZE
    def read_at(self, offset, size):
        return bytes(size)

class Store(MemoryStore):
    def open(self, url):
        reader = Reader(b"")
        reader.size = Reader.size
        return reader

def most():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

digest = hashlib.sha256(bytes(CHUNK_SIZE)).digest()
chunks = Chunks("image", Reader.size, ChunkDigests("sha256", CHUNK_SIZE, (digest,) * COUNT))
copies = [Copy(Store("remote", MemoryStoreSettings()), "memory://remote/image")]
folder = CacheFolder(Path(sys.argv[1]), 1 << 30) if len(sys.argv) > 1 else None
cache = BlockCache(folder)
before = most()
reader = cache.open("image", chunks, lambda: copies, lambda copy, offset: None)
for offset in range(0, reader.size, 1 << 20):
    assert len(reader.read_at(offset, 1 << 20)) == 1 << 20
reader.close()
cache.close()
print(most() - before)
"""


@pytest.mark.parametrize("on_disk", [True, False])
def test_memory_is_bounded(tmp_path: Path, on_disk: bool) -> None:
    """Reading an image of 640 MiB in order takes no more than 180 MB: 64 MiB in flight, 72 kept."""
    arguments = [str(tmp_path)] if on_disk else []
    done = subprocess.run(
        [sys.executable, "-c", _READ, *arguments],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 180_000_000
