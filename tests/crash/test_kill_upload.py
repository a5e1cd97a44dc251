"""kill -9 of the mount while it sends an image to a remote store, at any moment.

`IMAGEFS_UPLOAD_KILLS` says how often.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from catalog.upkeep.fsck import fsck
from tests.kit.daemon import DEADLINE
from tests.kit.three_stores import DATA, STORES, Remote, remote
from tests.kit.tools import MIB, field, status
from tests.servers.ceph import ceph, radosgw
from tests.servers.swift import Swift

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("IMAGEFS_UPLOAD_KILLS", "4"))
_DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def far(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A catalog of three remote stores."""
    folder = tmp_path_factory.mktemp("far")
    with (
        ceph(folder / "ceph") as cluster,
        radosgw(cluster) as server,
        remote(folder, swift_server, server) as made,
    ):
        yield made


def test_kill_at_random_moments(far: Remote, tmp_path: Path) -> None:
    """After a restart no part is left, and what is active is whole; what cp was told to be is."""
    seed = int(os.environ.get("IMAGEFS_SEED", str(time.time_ns() % 10**6)))
    chance = random.Random(seed)
    source = tmp_path / "source.img"
    source.write_bytes(DATA)
    whole: dict[str, float] = {}
    kept = 0
    for number in range(KILLS + len(STORES)):
        store = STORES[number % len(STORES)]
        image = far.daemon.path / store / f"{number}.img"
        far.daemon.start()
        begun = time.monotonic()
        with subprocess.Popen(["cp", source, image], stderr=subprocess.DEVNULL) as writer:
            if store in whole:
                time.sleep(whole[store] * chance.uniform(0.4, 1))
            else:
                # The first of each store tells how long it takes.
                writer.wait(DEADLINE)
                whole[store] = time.monotonic() - begun
            left = far.left(store)
            far.daemon.kill()
            is_promised = writer.wait(DEADLINE) == 0
        log.info("seed %d, kill %d: %s had %s", seed, number, store, left)
        far.daemon.start()
        kept += _check(far, image, is_promised=is_promised)
        far.daemon.kill()
    assert kept >= len(STORES)


def _check(far: Remote, image: Path, *, is_promised: bool) -> bool:
    """Whether the image is there: whole, or not at all."""
    for store in STORES:
        far.has_nothing(store)
    is_active = image.exists() and status(image) == "active"
    assert is_active or not is_promised
    keys = list(far.catalog.store(image.parent.name).keys())
    if is_active:
        assert (far.digest(image), field(image, "os_hash_value")) == (_DIGEST, _DIGEST)
        assert keys == [field(image, "id")]
        image.unlink()
        (image.parent / ".trash" / image.name).unlink()
    else:
        assert keys == []
    assert list(fsck(far.catalog, repair=False)) == []
    return is_active


@pytest.mark.parametrize("store", STORES)
def test_stop_while_parts_are_sent(far: Remote, store: str) -> None:
    """A mount that is stopped ends without a fuss; what it had sent goes at the next start."""
    far.daemon.start()
    before = len(far.daemon.unusual())
    fd = os.open(far.daemon.path / store / "stopped.img", os.O_WRONLY | os.O_CREAT)
    for at in range(0, 80 * MIB, MIB):
        os.pwrite(fd, DATA[at : at + MIB], at)
    far.has_begun(store)
    assert far.daemon.stop() == 0
    with suppress(OSError):
        os.close(fd)
    assert ["was not finished" in line for line in far.daemon.unusual()[before:]] == [True]
    far.daemon.start()
    far.has_nothing(store)
    far.daemon.kill()
