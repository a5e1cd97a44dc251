"""What a first boot reads, recorded on one host and fetched ahead on the next."""

from __future__ import annotations

import random
from contextlib import closing
from itertools import chain
from pathlib import Path
from threading import Timer
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.cache.block_cache import BlockCache
from catalog.cache.boot_profile import DURATION, LIMIT, BootProfile, Recorder, decode, encode
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import CachedReader
from catalog.cache.sources import Copy
from tests.catalog.cache.remote import CHUNK, Remote, chunks_of, some_data

DATA = some_data(60 * CHUNK)
BOOT = [0, 40, 41, 42, 7, 59, 8]


def opened(cache: BlockCache, remote: Remote, saved: list[str]) -> CachedReader:
    """An image whose profile is the last saved."""
    copies = [Copy(remote, remote.put("image", DATA))]
    text = saved[-1] if saved else ""
    profile = BootProfile(text, saved.append)
    return cache.open("image", chunks_of(DATA), lambda: copies, lambda c, o: None, profile)


def boot(reader: CachedReader, order: list[int]) -> None:
    """Read a little of each of these chunks."""
    for index in order:
        at = index * CHUNK + 4096
        assert reader.read_at(at, 512) == DATA[at : at + 512]


def test_second_host_has_it_ahead(tmp_path: Path) -> None:
    """The first boot is recorded; on another host the same chunks come unasked, in its order."""
    saved: list[str] = []
    for host in ("one", "two"):
        cache = BlockCache(CacheFolder(tmp_path / host, 1 << 30))
        remote = Remote()
        with closing(opened(cache, remote, saved)) as reader:
            if host == "two":
                for index in BOOT:
                    # Waits for what is on its way, and begins nothing itself.
                    reader.read_at(index * CHUNK, 1)
                assert sum(size for _offset, size in remote.asked) == len(BOOT) * CHUNK
                assert len(remote.asked) < len(BOOT)
            boot(reader, BOOT)
        cache.close()
    assert saved == ["0,40-42,7,59,8"]


def test_a_glance_fetches_nothing_ahead(cache: BlockCache) -> None:
    """Who reads the first chunk alone has nothing else fetched; the second begins it."""
    remote = Remote()
    with closing(opened(cache, remote, [encode(BOOT)])) as reader:
        boot(reader, [0, 0, 0])
        assert remote.of_chunks().keys() == {0}
        boot(reader, [3])
        for index in BOOT:
            reader.read_at(index * CHUNK, 1)
        assert remote.of_chunks().keys() == {3, *BOOT}
        assert len(remote.asked) < len(BOOT) + 1


@pytest.mark.parametrize(
    "order", [[], [0], [0, 1, 2, 3, 4, 5], [0, 9], [*range(10), *range(20, 59)]]
)
def test_what_is_no_boot_is_not_kept(cache: BlockCache, order: list[int]) -> None:
    """Nothing read, the first bytes, one run, a few chunks, most of the image."""
    saved: list[str] = []
    with closing(opened(cache, Remote(), saved)) as reader:
        boot(reader, order)
    assert saved == []


class Hand(Timer):
    """A timer that goes off when a test says so."""

    made: ClassVar[list[Hand]] = []

    def start(self) -> None:
        """Be there for the test."""
        self.made.append(self)


def test_recording_ends_by_itself() -> None:
    """After its time what was read by then is saved, once, though nothing more is read."""
    saved = list[str]()
    recorder = Recorder(10_000, saved.append, Hand)
    assert Hand.made == []
    for index in BOOT:
        recorder.note(index)
    (timer,) = Hand.made
    assert (timer.interval, saved) == (DURATION, [])
    timer.function()
    recorder.note(5000)
    recorder.finish()
    assert saved == [encode(BOOT)]


def test_recording_ends_when_it_is_full() -> None:
    """No profile has more than its limit of chunks."""
    saved = list[str]()
    recorder = Recorder(10_000, saved.append)
    for index in range(0, 4 * LIMIT, 2):
        recorder.note(index)
    assert [len(list(chain(*decode(text, 10_000)))) for text in saved] == [LIMIT]


@pytest.mark.parametrize(
    ("order", "is_boot"),
    [
        (random.Random(1).sample(range(60), 45), True),
        ([at + swap for at in range(0, 60, 2) for swap in (1, 0)], False),
        ([*range(30), 45, *range(30, 45), *range(46, 60)], False),
    ],
    ids=["all over it", "the kernel reads ahead", "a copy that looks at a table"],
)
def test_most_of_an_image(order: list[int], is_boot: bool) -> None:
    """A small image's boot reads nearly all of it, but not in order, as a copy does."""
    saved = list[str]()
    recorder = Recorder(60, saved.append)
    for index in order:
        recorder.note(index)
    recorder.finish()
    assert bool(saved) is is_boot


@given(st.lists(st.integers(0, 1000), unique=True, max_size=LIMIT))
def test_written_and_read_back(order: list[int]) -> None:
    """Any order comes back as it was."""
    assert [index for run in decode(encode(order), 1001) for index in run] == order


@given(st.one_of(st.text(), st.from_regex(r"[0-9,-]{0,40}")), st.integers(0, 100))
def test_any_text_is_bounded(text: str, count: int) -> None:
    """The property may hold anything: never a chunk that is not there, never too many."""
    runs = decode(text, count)
    assert sum(map(len, runs)) <= LIMIT
    assert all(0 <= index < count for run in runs for index in run)


def test_longest_profile_is_a_short_text() -> None:
    """Even without two chunks in a row it is a property of a few KiB."""
    assert len(encode(list(range(0, 2_000_000, 2_000_000 // LIMIT))[:LIMIT])) < 2100
