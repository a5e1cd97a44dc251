"""What every driver must do, as `catalog/stores/base.py` says.

A driver's test file derives `TestContract` from `ReadContract` (read-only drivers) or
`WriteContract`, and `GrowingContract` where it applies, and gives it the fixture `subject`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.errors import (
    DataChanged,
    IncompleteUpload,
    NotFound,
    NotSupported,
    ReadOnlyStore,
    StoreUnavailable,
)
from catalog.stores.base import Capability, Check, DataWriter, Store
from catalog.stores.policy.settings import LOCAL_WEIGHT

DATA = random.Random(0).randbytes(300_007)
"""Not a multiple of any block."""

GROWN = random.Random(1).randbytes((17 << 20) + 9)
"""More than two parts of whatever store."""

RANGES = [
    (0, 1),
    (0, len(DATA)),
    (4095, 2),
    (123_456, 70_000),
    (len(DATA) - 1, 1),
    (len(DATA) - 1, 10),
    (len(DATA), 10),
    (len(DATA) + 10, 10),
    (7, 0),
]
"""Offset and size."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A store under test."""

    store: Store
    put: Callable[[str, bytes], str]
    """Makes an object of a key and its bytes; returns its url."""
    missing: str
    """The url of no object."""


def put_by_writer(store: Store) -> Callable[[str, bytes], str]:
    """`Subject.put` of a store that takes data."""

    def put(key: str, data: bytes) -> str:
        writer = store.writer(key, len(data))
        writer.write(data)
        return writer.commit()

    return put


def read_all(store: Store, url: str) -> bytes:
    """All bytes of an object."""
    reader = store.open(url)
    try:
        return bytes(reader.read_at(0, reader.size))
    finally:
        reader.close()


def grow(writer: DataWriter, staged: Path, check: Check) -> int:
    """Let GROWN come into a file bit by bit and be sent meanwhile; return how much was begun.

    What the writer has not begun is something else in between.
    """
    begun = 0
    with staged.open("wb", buffering=0) as file:
        for end in [*range(1 << 20, len(GROWN), 1 << 20), len(GROWN)]:
            os.pwrite(file.fileno(), GROWN[begun:end], begun)
            before, begun = begun, writer.send(staged, end, check)
            assert before <= begun <= end
            os.pwrite(file.fileno(), bytes(min(1000, end - begun)), begun)
        os.pwrite(file.fileno(), GROWN[begun:], begun)
    return begun


def nothing_is_wrong() -> None:
    """A check that passes."""


class ReadContract:
    """Reading, and the refusals of what a store cannot do."""

    def test_reads_each_range_exactly(self, subject: Subject) -> None:
        """Every range is answered with its very bytes, cut at the end of the object."""
        reader = subject.store.open(subject.put("a", DATA))
        found = [reader.read_at(offset, size) for offset, size in RANGES]
        reader.close()
        assert found == [DATA[offset : offset + size] for offset, size in RANGES]

    def test_one_reader_serves_many_threads(self, subject: Subject) -> None:
        """Eight threads reading one open object each get their own bytes."""
        reader = subject.store.open(subject.put("a", DATA))
        offsets = [random.Random(i).randrange(len(DATA)) for i in range(200)]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda offset: reader.read_at(offset, 5000), offsets))
        reader.close()
        assert found == [DATA[offset : offset + 5000] for offset in offsets]

    def test_size_is_told_by_stat_and_reader(self, subject: Subject) -> None:
        """`stat` and the open object give the true size; the etag of same bytes is the same."""
        url = subject.put("a", DATA)
        reader = subject.store.open(url)
        reader.close()
        assert reader.size == len(DATA)
        assert subject.store.stat(url).size == len(DATA)
        assert subject.store.stat(url) == subject.store.stat(url)

    def test_what_answers_is_not_down(self, subject: Subject) -> None:
        """A store that has just answered is not known to be down, and has a weight."""
        url = subject.put("a", DATA)
        assert not subject.store.is_down(url)
        assert subject.store.weight in (0, LOCAL_WEIGHT)

    def test_empty_object(self, subject: Subject) -> None:
        """An object without bytes is an object."""
        url = subject.put("empty", b"")
        assert subject.store.stat(url).size == 0
        reader = subject.store.open(url)
        assert (reader.size, reader.read_at(0, 10)) == (0, b"")
        reader.close()

    def test_missing_object_is_not_found(self, subject: Subject) -> None:
        """Neither `open` nor `stat` finds what is not there."""
        with pytest.raises(NotFound):
            subject.store.open(subject.missing)
        with pytest.raises(NotFound):
            subject.store.stat(subject.missing)

    def test_descriptor_is_of_the_same_bytes(self, subject: Subject) -> None:
        """A reader's descriptor, if it has one, reads as the reader does."""
        reader = subject.store.open(subject.put("a", DATA))
        fd = reader.fileno()
        assert fd is None or os.pread(fd, 1000, 5000) == reader.read_at(5000, 1000)
        reader.close()

    def test_close_is_idempotent(self, subject: Subject) -> None:
        """A reader may be closed twice."""
        reader = subject.store.open(subject.put("a", DATA))
        reader.close()
        reader.close()

    def test_answers_check_and_usage(self, subject: Subject) -> None:
        """A store that works passes its check, and has no more room free than in all."""
        subject.store.check()
        usage = subject.store.usage()
        assert (usage.free is None) == (usage.total is None)
        assert (usage.free or 0) <= (usage.total or 0)

    def test_refuses_what_it_cannot(self, subject: Subject) -> None:
        """Each method of a capability the store lacks says so."""
        store, url = subject.store, subject.put("a", DATA)
        lacks = ~store.capabilities
        if Capability.WRITE in lacks:
            with pytest.raises(ReadOnlyStore):
                store.writer("b")
            with pytest.raises(ReadOnlyStore):
                store.delete(url)
        if Capability.COPY in lacks:
            with pytest.raises(NotSupported):
                store.copy(url, "b")
        if Capability.LISTING in lacks:
            with pytest.raises(NotSupported):
                list(store.keys())
        if Capability.EXTERNAL in store.capabilities:
            with pytest.raises(NotSupported):
                store.url_of("a")
        assert (store.staging_folder() is None) == (Capability.STAGING in lacks)


class WriteContract(ReadContract):
    """What a store that takes data does besides."""

    def test_commit_makes_the_object(self, subject: Subject) -> None:
        """Writes of bytes and memoryviews are joined in order under the foretold url."""
        writer = subject.store.writer("a")
        writer.write(DATA[:1000])
        writer.write(memoryview(DATA)[1000:])
        assert writer.commit() == subject.store.url_of("a")
        assert read_all(subject.store, subject.store.url_of("a")) == DATA

    def test_nothing_is_visible_before_commit(self, subject: Subject) -> None:
        """An object being written can be neither opened nor listed."""
        writer = subject.store.writer("a")
        writer.write(DATA)
        with pytest.raises(NotFound):
            subject.store.stat(subject.store.url_of("a"))
        assert self._keys(subject) == []
        writer.cancel()

    def test_cancel_leaves_nothing(self, subject: Subject) -> None:
        """What was written is dropped; a second cancel does nothing."""
        writer = subject.store.writer("a")
        writer.write(DATA)
        writer.cancel()
        writer.cancel()
        with pytest.raises(NotFound):
            subject.store.open(subject.store.url_of("a"))

    def test_cancel_after_commit_does_nothing(self, subject: Subject) -> None:
        """A committed object stays."""
        writer = subject.store.writer("a")
        writer.write(DATA)
        url = writer.commit()
        writer.cancel()
        assert read_all(subject.store, url) == DATA

    def test_commit_replaces_in_one_step(self, subject: Subject) -> None:
        """The new bytes have a new etag, and an open reader never mixes them with the old."""
        url = subject.put("a", DATA)
        before = subject.store.stat(url)
        reader = subject.store.open(url)
        assert subject.put("a", DATA[::-1]) == url
        assert subject.store.stat(url).etag != before.etag
        assert read_all(subject.store, url) == DATA[::-1]
        try:
            assert reader.read_at(0, 100) == DATA[:100]
        except DataChanged:
            # A server keeps no old object for those who have it open.
            assert reader.fileno() is None
        reader.close()

    def test_writers_of_one_key_do_not_mix(self, subject: Subject) -> None:
        """Of writers at the same time, one wins whole; others may be told that they have not."""
        texts = [bytes([65 + i]) * 50_000 for i in range(8)]

        def put(text: bytes) -> str:
            try:
                return subject.put("a", text)
            except StoreUnavailable:
                return ""

        with ThreadPoolExecutor(8) as threads:
            urls = set(threads.map(put, texts)) - {""}
        assert read_all(subject.store, urls.pop()) in texts
        assert not urls

    def test_takes_a_file_from_elsewhere(self, subject: Subject, tmp_path: Path) -> None:
        """A staged file outside the store is there until commit, and its bytes afterwards."""
        staged = tmp_path / "elsewhere"
        staged.write_bytes(DATA)
        writer = subject.store.writer("a")
        writer.take(staged)
        assert staged.exists()
        assert read_all(subject.store, writer.commit()) == DATA

    def test_moves_its_own_staged_file(self, subject: Subject) -> None:
        """A file in the staging folder becomes the object without being copied."""
        folder = subject.store.staging_folder()
        if folder is None:
            pytest.skip("the store has no staging folder")
        staged = folder / "upload"
        staged.write_bytes(DATA)
        inode = staged.stat().st_ino
        writer = subject.store.writer("a")
        writer.take(staged)
        assert staged.exists()
        reader = subject.store.open(writer.commit())
        fd = reader.fileno()
        assert fd is not None
        assert os.fstat(fd).st_ino == inode
        assert reader.read_at(0, reader.size) == DATA
        assert list(folder.iterdir()) == []
        reader.close()

    def test_cancel_leaves_a_staged_file(self, subject: Subject, tmp_path: Path) -> None:
        """The upload owns its file until commit."""
        staged = (subject.store.staging_folder() or tmp_path) / "upload"
        staged.write_bytes(DATA)
        writer = subject.store.writer("a")
        writer.take(staged)
        writer.cancel()
        assert staged.read_bytes() == DATA

    def test_delete(self, subject: Subject) -> None:
        """A deleted object is gone, and deleting it again is no error."""
        url = subject.put("a", DATA)
        subject.store.delete(url)
        subject.store.delete(url)
        with pytest.raises(NotFound):
            subject.store.open(url)

    def test_keys_lists_what_is_stored(self, subject: Subject) -> None:
        """Keys are of committed objects, and no others."""
        if Capability.LISTING not in subject.store.capabilities:
            pytest.skip("the store cannot list")
        for key in ("a", "b", "c"):
            subject.put(key, DATA)
        subject.store.delete(subject.store.url_of("b"))
        assert sorted(subject.store.keys()) == ["a", "c"]

    def test_copy_is_an_object_of_its_own(self, subject: Subject) -> None:
        """A duplicate has the same bytes and outlives its original."""
        if Capability.COPY not in subject.store.capabilities:
            pytest.skip("the store cannot copy")
        url = subject.put("a", DATA)
        copied = subject.store.copy(url, "b")
        subject.store.delete(url)
        assert copied == subject.store.url_of("b")
        assert read_all(subject.store, copied) == DATA
        with pytest.raises(NotFound):
            subject.store.copy(url, "c")

    def test_quarantine_moves_out_of_sight(self, subject: Subject) -> None:
        """A quarantined object is not found any more, and the place it went to is told."""
        url = subject.put("a", DATA)
        try:
            place = subject.store.quarantine("a")
        except NotSupported:
            assert read_all(subject.store, url) == DATA
            return
        assert "a" in place
        assert self._keys(subject) == []
        with pytest.raises(NotFound):
            subject.store.open(url)
        with pytest.raises(NotFound):
            subject.store.quarantine("a")

    def _keys(self, subject: Subject) -> list[str]:
        """Sorted keys; none of a store that cannot list."""
        can_list = Capability.LISTING in subject.store.capabilities
        return sorted(subject.store.keys()) if can_list else []


class GrowingContract:
    """What a store with GROWING does besides."""

    def test_sends_a_file_that_grows(self, subject: Subject, tmp_path: Path) -> None:
        """What was begun early and what is taken in the end make one object, unseen till then."""
        writer = subject.store.writer("a", len(GROWN))
        begun = grow(writer, tmp_path / "growing", nothing_is_wrong)
        assert begun
        writer.take(tmp_path / "growing")
        with pytest.raises(NotFound):
            subject.store.stat(subject.store.url_of("a"))
        assert read_all(subject.store, writer.commit()) == GROWN

    def test_small_file_that_grew_is_as_any(self, subject: Subject, tmp_path: Path) -> None:
        """A writer that was offered a file too small to begin takes it all the same."""
        staged = tmp_path / "growing"
        staged.write_bytes(DATA[:1000])
        writer = subject.store.writer("a")
        begun = writer.send(staged, 1000, nothing_is_wrong)
        with staged.open("r+b") as file:
            os.pwrite(file.fileno(), DATA[begun:], begun)
        writer.take(staged)
        assert read_all(subject.store, writer.commit()) == DATA

    @pytest.mark.parametrize("ended_by", ["change", "cancel"])
    def test_nothing_is_left_of_what_was_sent_early(
        self, subject: Subject, tmp_path: Path, ended_by: str
    ) -> None:
        """Parts that were sent, or were on their way when `check` refused, are gone."""
        calls = 0

        def check() -> None:
            nonlocal calls
            calls += 1
            if ended_by == "change" and calls > 3:
                raise IncompleteUpload("a", "was changed")

        writer = subject.store.writer("a", len(GROWN))
        with suppress(IncompleteUpload):
            grow(writer, tmp_path / "growing", check)
        assert calls
        writer.cancel()
        with pytest.raises(NotFound):
            subject.store.stat(subject.store.url_of("a"))
        assert list(subject.store.keys()) == []
        assert list(subject.store.leftovers(-60)) == []
