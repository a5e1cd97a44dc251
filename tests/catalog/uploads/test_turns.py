"""One writer at a time for each image."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import Conflict
from catalog.model.image import Image
from catalog.tree.vfs import Vfs
from catalog.uploads.turns import Turns
from tests.kit.catalog import ALICE, new_catalog, settings_at

ONE, OTHER = (4711, 1), (4712, 1)


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Vfs]:
    """A new catalog."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    yield vfs
    vfs.close()


@pytest.fixture
def image(vfs: Vfs) -> Image:
    """A queued image."""
    return vfs.create(vfs.place("/file/a"), ALICE).image


def test_a_writer_keeps_all_others_out(image: Image) -> None:
    """Until it has ended as often as it began; another image is another matter."""
    turns = Turns()
    turns.begin(image, ONE)
    turns.begin(image, (4711, 1))
    for _ in range(2):
        with pytest.raises(Conflict):
            turns.begin(image, OTHER)
        assert turns.of(image.number) == ONE
        turns.end(image.number, ONE)
    with turns.taken(image, OTHER):
        assert turns.of(image.number) == OTHER
        assert turns.of(image.number + 1) is None
    assert turns.of(image.number) is None


def test_an_upload_is_its_writer_s_alone(vfs: Vfs, image: Image) -> None:
    """Begun, gone on with and reopened by nobody else, and by anybody when there is none."""
    uploads = vfs.uploads
    with uploads.turns.taken(image, ONE):
        with pytest.raises(Conflict):
            uploads.start(image.number, OTHER)
        upload = uploads.start(image.number, ONE)
        with pytest.raises(Conflict):
            uploads.start(image.number, OTHER)
        assert uploads.start(image.number, ONE) is upload
    assert uploads.start(image.number, OTHER) is upload
    upload.write(0, b"data")
    upload.commit()
    with uploads.turns.taken(image, ONE), pytest.raises(Conflict):
        uploads.reopen(image.number, OTHER)


def test_waiting_for_a_writer(image: Image) -> None:
    """Ends with the writer's turn, or when it has taken too long."""
    turns = Turns()
    turns.begin(image, ONE)
    assert not turns.wait(image.number, ONE, 0.01)
    assert turns.wait(image.number, OTHER, 0)
    ender = threading.Timer(0.05, turns.end, (image.number, ONE))
    ender.start()
    assert turns.wait(image.number, ONE, 30)
    ender.join()
