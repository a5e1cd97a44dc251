"""Copies, moves, evacuations and repairs that are cut off by kill -9, at any moment."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import pytest

from catalog.copies.recovery import give_up_dead, recover
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE
from catalog.model.tree import Entry, LocationState
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.repair import verify_and_repair
from catalog.upkeep.verify import Verdict, verify
from tests.catalog.copies.copier import copy_for_ever
from tests.kit.catalog import FILE_STORES, link, names_in, put, some_bytes, staged_files

pytestmark = pytest.mark.stress

DATA = some_bytes(3 * CHUNK_SIZE + 5)
MOMENTS = 25


def entries(vfs: Vfs) -> list[Entry]:
    """Every entry of the image."""
    found = [vfs.resolve(f"/{store}/a") for store in FILE_STORES if names_in(vfs, f"/{store}")]
    return [entry for entry in found if isinstance(entry, Entry)]


def kill_somewhere(path: Path, seed: int, *, repairing: bool) -> None:
    """Let a process work on the image, and kill it within half a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.catalog.copies.copier"])
    process = context.Process(
        target=copy_for_ever, args=(path, seed), kwargs={"repairing": repairing}
    )
    process.start()
    process.join(0.1 + random.Random(seed).random() * 0.5)
    assert process.exitcode is None
    process.kill()
    process.join()


@pytest.mark.parametrize("then", ["recovered", "gone on with", "repaired"])
def test_killed_at_any_moment(vfs: Vfs, tmp_path: Path, then: str) -> None:
    """Every entry has its whole data or is marked, and what is left over has a record.

    After the next copy to that store, which goes on with it, or when it is given up,
    nothing of it is left.
    """
    image = put(vfs, "/file/a", DATA)
    for seed in range(MOMENTS):
        kill_somewhere(tmp_path, seed, repairing=then == "repaired")
        states = [entry.location.state for entry in entries(vfs)]
        # A copy has its name until its store has removed it, and its mark meanwhile.
        assert LocationState.ACTIVE in states
        assert set(states) <= {LocationState.ACTIVE, LocationState.DELETING}
        check_recorded(vfs)
        found = list(verify_and_repair(vfs.catalog, image, ADMIN))
        assert found
        assert all(one.verdict in (Verdict.INTACT, Verdict.REPAIRED) for one in found)
        recover(vfs.catalog)
        if then == "gone on with":
            go_on(vfs)
        else:
            give_up_dead(vfs.catalog)
        check_clean(vfs, tmp_path)


def check_recorded(vfs: Vfs) -> None:
    """No data without a location that speaks of it, before anything is cleaned up."""
    with vfs.catalog.read() as repository:
        known = {x.store for x in repository.locations_of(entries(vfs)[0].image.number)}
    assert {store for store in FILE_STORES if list(vfs.catalog.store(store).keys())} <= known


def go_on(vfs: Vfs) -> None:
    """Make the copy that was cut off."""
    with vfs.catalog.read() as repository:
        states = {x.store: x.state for x in repository.locations_of(entries(vfs)[0].image.number)}
    for store, state in states.items():
        if state is LocationState.PENDING:
            link(vfs, vfs.path(entries(vfs)[0]), f"/{store}/a")


def check_clean(vfs: Vfs, path: Path) -> None:
    """All copies are whole; nothing is staged, noted, or for fsck to find."""
    image = entries(vfs)[0].image
    assert {one.verdict for one in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}
    assert image.status == "active"
    assert staged_files(path) == []
    assert list(fsck(vfs.catalog, repair=False)) == []
    with vfs.catalog.read() as repository:
        assert repository.uploads() == []
        assert len(repository.locations_of(image.number)) == len(entries(vfs))
