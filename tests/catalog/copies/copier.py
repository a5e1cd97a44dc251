"""A process that makes, moves and drops copies until it is killed: for `test_replicate_killed`."""

from __future__ import annotations

import random
from pathlib import Path

from catalog.copies import progress
from catalog.errors import CatalogError
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from catalog.upkeep.evacuate import evacuate
from catalog.upkeep.repair import verify_and_repair
from tests.kit.catalog import ALICE, FILE_STORES, image_at, settings_at
from tests.kit.damage import overwrite


def copy_for_ever(path: Path, seed: int, *, repairing: bool) -> None:
    """Do one thing after the other with the only image there is."""
    progress.INTERVAL = 0.0
    vfs = Vfs(open_catalog(settings_at(path)))
    chance = random.Random(seed)
    while True:
        here = [store for store in FILE_STORES if _is_in(vfs, store)]
        there = next((store for store in FILE_STORES if store not in here), here[-1])
        source, target = vfs.place(f"/{here[0]}/a"), vfs.place(f"/{there}/a")
        image = image_at(vfs, f"/{here[0]}/a")
        if len(here) == 2:
            if repairing:
                overwrite(path / there / image.id, chance.randrange(image.size), b"\0")
                list(verify_and_repair(vfs.catalog, image, ADMIN))
            vfs.remove(source, ALICE)
        elif chance.random() < 0.4:
            vfs.rename(source, target, ALICE)
        elif chance.random() < 0.5:
            list(evacuate(vfs.catalog, here[0], there))
        else:
            vfs.link(image.number, target, ALICE)


def _is_in(vfs: Vfs, store: str) -> bool:
    try:
        vfs.resolve(f"/{store}/a")
    except CatalogError:
        return False
    return True
