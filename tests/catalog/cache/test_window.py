"""What is fetched ahead, for readers of any kind."""

from __future__ import annotations

import random

from catalog.cache.chunks import Chunks
from catalog.cache.window import MAX_RUNS, RUN, Pattern, Window
from catalog.model.image import CHUNK_SIZE, ChunkDigests

COUNT = 200
CHUNKS = Chunks("image", COUNT * CHUNK_SIZE, ChunkDigests("sha256", CHUNK_SIZE, ()))
LIMIT = MAX_RUNS * RUN
STEP = 1 << 17


def indices(runs: list[range]) -> list[int]:
    """The chunks of runs."""
    return [index for run in runs for index in run]


def test_in_order() -> None:
    """Every chunk is asked for once, in runs, before it is read; the window grows to 8 runs."""
    window = Window(CHUNKS)
    asked: list[int] = []
    ahead = []
    for offset in range(0, CHUNKS.size, STEP):
        runs = window.note(offset, offset + STEP, LIMIT)
        assert all(len(run) <= RUN for run in runs)
        asked += indices(runs)
        ahead.append(max(asked, default=0) - offset // CHUNK_SIZE)
    assert asked == list(range(COUNT))
    assert ahead[: 2 * CHUNK_SIZE // STEP] < ahead[20 * CHUNK_SIZE // STEP :]
    assert max(ahead) in (LIMIT, LIMIT + 1)
    assert window.pattern is Pattern.SEQUENTIAL


def test_at_random() -> None:
    """Reads at random fetch nothing ahead."""
    window, chance = Window(CHUNKS), random.Random(1)
    asked = []
    for _ in range(500):
        offset = chance.randrange(CHUNKS.size // STEP) * STEP
        asked += window.note(offset, offset + STEP, LIMIT)
    assert len(asked) < 10


def test_out_of_order_as_the_kernel_reads() -> None:
    """Several reads at once in any order are still one stream."""
    window, chance = Window(CHUNKS), random.Random(2)
    asked: list[int] = []
    for start in range(0, CHUNKS.size, 8 * STEP):
        group = [start + at * STEP for at in range(8)]
        chance.shuffle(group)
        for offset in group:
            asked += indices(window.note(offset, offset + STEP, LIMIT))
    assert asked == list(range(COUNT))


def test_jump_closes_the_window() -> None:
    """After a jump the window begins anew, at the new place."""
    window = Window(CHUNKS)
    for offset in range(0, 40 * CHUNK_SIZE, STEP):
        window.note(offset, offset + STEP, LIMIT)
    far = 100 * CHUNK_SIZE
    assert window.note(far, far + STEP, LIMIT) == []
    assert window.pattern is Pattern.RANDOM
    asked = []
    for offset in range(far + STEP, far + 4 * CHUNK_SIZE, STEP):
        asked += indices(window.note(offset, offset + STEP, LIMIT))
    assert asked
    assert set(asked) <= set(range(100, 110))


def test_little_is_fetched_in_vain() -> None:
    """A reader that stops has had at most about as much again fetched as it read."""
    for read in (4, 8, 16):
        window = Window(CHUNKS)
        asked: list[int] = []
        for offset in range(0, read * CHUNK_SIZE, STEP):
            asked += indices(window.note(offset, offset + STEP, LIMIT))
        assert max(asked) + 1 <= read * 2 + RUN
