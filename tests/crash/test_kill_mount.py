"""A crash of the mount under load loses nothing that was promised, and leaves nothing.

`IMAGEFS_KILLS` says how often the mount's process is killed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.catalog import Catalog
from catalog.copies.recovery import give_up_dead
from catalog.model.image import Image
from catalog.model.listings import ImageFilter
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import LocationState
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import FindingKind, fsck
from tests.crash import load
from tests.kit.daemon import Daemon

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("IMAGEFS_KILLS", "12"))
_LOADS = 3
_HANG = 60
"""Seconds after which a process that has not ended counts as hung."""

_TRASHED = frozenset({Status.PENDING_DELETE})
_LIVE = frozenset({Status.ACTIVE})
# What an image may be after the last line of a log about it; "begin" promises nothing.
_EXPECTED: dict[str, frozenset[Status | None]] = {
    "done": frozenset(_LIVE),
    "renaming": frozenset(_LIVE),
    "deleting": frozenset(_LIVE | _TRASHED),
    "restoring": frozenset(_LIVE | _TRASHED),
    "deleted": frozenset(_TRASHED),
    "purging": frozenset(_TRASHED | {Status.DELETED, None}),
    "purged": frozenset({Status.DELETED, None}),
}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Daemon]:
    """A catalog that a test mounts."""
    mounted = Daemon(tmp_path / "host")
    yield mounted
    mounted.end()


@dataclass
class Promises:
    """What the logs of all loads say, replayed."""

    outside: Path
    last: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """By sha256: the last line's word and path."""
    wrong: list[str] = field(default_factory=list)
    lines: int = 0

    def replay(self) -> set[str]:
        """Read and remove the logs; return the images they speak of."""
        spoken = set()
        for log in sorted(self.outside.glob("*.log")):
            for line in log.read_text().splitlines():
                word, sha, path = json.loads(line)
                self.lines += 1
                spoken.add(sha)
                if word == "wrong":
                    self.wrong.append(f"{sha} at {path}")
                else:
                    self.last[sha] = (word, path)
            log.unlink()
        return spoken


def test_what_was_reported_active_survives_every_kill(mounted: Daemon, tmp_path: Path):
    """After kill -9 at random moments under load, each promise of the mount is kept."""
    seed = int(os.environ.get("IMAGEFS_SEED", str(time.time_ns() % 10**6)))
    chance = random.Random(seed)
    outside = tmp_path / "outside"
    outside.mkdir()
    promises = Promises(outside)
    for cycle in range(KILLS):
        log.info("seed %d, kill %d: %d lines", seed, cycle, promises.lines)
        if chance.random() < 0.1:
            # In the middle of a start, and of the recovery from the kill before.
            mounted.spawn()
            time.sleep(chance.random() * 2)
            mounted.kill()
        mounted.start()
        _check(mounted, promises, promises.replay())
        loads = [_spawn_load(mounted, outside, cycle * _LOADS + i) for i in range(_LOADS)]
        time.sleep(0.2 + chance.random() * 1.5)
        mounted.kill()
        for process in loads:
            assert process.wait(_HANG) == 0
    mounted.start()
    promises.replay()
    _check(mounted, promises, set(promises.last))
    _give_up_copies(mounted)
    kept = [word for word, _path in promises.last.values() if word != "begin"]
    log.info("%d uploads begun, %d reported active", len(promises.last), len(kept))
    assert kept, "the load has uploaded nothing"


def test_a_mount_starts_at_once_after_a_kill(mounted: Daemon):
    """The dead mount is recognised although the kernel still knows its attributes."""
    mounted.start()
    mounted.path.stat()
    mounted.kill()
    mounted.start()


def _spawn_load(mounted: Daemon, outside: Path, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, load.__file__, str(mounted.path), str(outside), str(seed)]
    return subprocess.Popen(command)


def _check(mounted: Daemon, promises: Promises, spoken: set[str]) -> None:
    """Hold the catalog to the logs; the data only of the images they have just spoken of."""
    assert promises.wrong == []
    catalog = mounted.catalog()
    try:
        # A copy that was cut off stays for whoever repeats it, and nothing else.
        begun = _begun_copies(catalog)
        assert {name.partition(".")[0] for name in mounted.staged()} <= begun
        _check_images(mounted, catalog, promises, spoken)
        found = list(fsck(catalog, repair=False))
        is_begun = [
            each.kind is FindingKind.DEAD_UPLOAD and each.subject in begun for each in found
        ]
        assert all(is_begun), found
    finally:
        catalog.close()


def _begun_copies(catalog: Catalog) -> set[str]:
    with catalog.read() as repository:
        pending = repository.locations_in_state(LocationState.PENDING)
        images = [repository.image(location.image) for location in pending]
    return {image.id for image in images if image.status in HAS_DATA}


def _give_up_copies(mounted: Daemon) -> None:
    """Nothing is left when nobody goes on with a copy."""
    catalog = mounted.catalog()
    try:
        assert give_up_dead(catalog) == []
        assert list(fsck(catalog, repair=False)) == []
    finally:
        catalog.close()
    assert mounted.staged() == []


def _check_images(mounted: Daemon, catalog: Catalog, promises: Promises, spoken: set[str]) -> None:
    vfs = Vfs(catalog)
    found: dict[str, Status] = {}
    for image in catalog.all_images(ImageFilter()):
        assert image.status not in IN_PROGRESS, image
        assert image.status is not Status.KILLED or image.message, image
        sha = image.os_hash_value
        if not _has_data(image):
            continue
        assert sha in promises.last, f"nobody has uploaded {image}"
        assert sha not in found, f"two images of the same data: {image}"
        found[sha] = image.status
        if sha in spoken and image.status is not Status.DELETED:
            _check_data(mounted, vfs, image, promises.last[sha])
    for sha in spoken:
        word, path = promises.last[sha]
        assert word == "begin" or found.get(sha) in _EXPECTED[word], f"{word} {sha} {path}"


def _has_data(image: Image) -> bool:
    return (image.status_before_delete or image.status) in HAS_DATA


def _check_data(mounted: Daemon, vfs: Vfs, image: Image, promise: tuple[str, str | None]) -> None:
    entries = vfs.entries_of(image.number)
    assert entries, f"{image} has no name"
    for entry in entries:
        path = vfs.path(entry)
        data = (mounted.path / path.lstrip("/")).read_bytes()
        assert hashlib.sha256(data).hexdigest() == image.os_hash_value, path
        word, promised = promise
        assert word != "done" or path == promised, f"{image.id} is at {path}, not {promised}"
