"""Transactions, on whatever database the tests are run (tests/kit/databases.py)."""

from __future__ import annotations

import threading

import pytest

from catalog.tree.vfs import Vfs
from tests.kit.catalog import put


def test_an_exception_rolls_back(vfs: Vfs) -> None:
    """A transaction that an exception leaves has changed nothing."""
    image = put(vfs, "/file/a")

    def change_and_fail() -> None:
        with vfs.catalog.write() as repository:
            repository.set_image(image.number, message="half done")
            raise KeyError

    with pytest.raises(KeyError):
        change_and_fail()
    assert vfs.catalog.image(image.number).message == ""


def test_a_reader_sees_one_moment_and_waits_for_nobody(vfs: Vfs) -> None:
    """While another writes, a read transaction goes on with what it saw first."""
    image = put(vfs, "/file/a")
    with vfs.catalog.read() as reading:
        assert reading.image(image.number).min_disk == 0
        with vfs.catalog.write() as writing:
            writing.set_image(image.number, min_disk=7)
            assert reading.image(image.number).min_disk == 0
        assert reading.image(image.number).min_disk == 0
    assert vfs.catalog.image(image.number).min_disk == 7


def test_a_writer_waits_for_the_writer_before_it(vfs: Vfs) -> None:
    """Two writers take turns: neither fails, and no change is lost."""
    image = put(vfs, "/file/a")

    def count() -> None:
        for _ in range(50):
            with vfs.catalog.write() as repository:
                seen = repository.image(image.number).min_disk
                repository.set_image(image.number, min_disk=seen + 1)

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vfs.catalog.image(image.number).min_disk == 100
