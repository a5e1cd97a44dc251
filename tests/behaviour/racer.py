"""One of two hosts that race: `python -m tests.behaviour.racer NAME URL FOLDER ROUNDS`.

After each round it prints what became of it, and waits for a line that begins the next one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import CatalogError
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from tests.kit.catalog import entry, put, remove, rename, settings_at


@dataclass(frozen=True, slots=True)
class Race:
    """What both do in one round."""

    name: str
    prepare: Callable[[Vfs, str], None]
    """Done by the left one, before the round."""
    act: Callable[[Vfs, str, str], object]
    """Done by both; gets the round and who does it."""
    may: tuple[str, ...]
    """Errors that the loser may be told."""
    one: bool
    """Whether exactly one wins."""


def _nothing(vfs: Vfs, name: str) -> None:
    """Begin with an empty place."""


def _an_image(vfs: Vfs, name: str) -> None:
    put(vfs, f"/file/{name}", name.encode(), ADMIN)


def _two_images(vfs: Vfs, name: str) -> None:
    for who in ("left", "right"):
        put(vfs, f"/file/{name}.{who}", who.encode(), ADMIN)


def _a_deleted_image(vfs: Vfs, name: str) -> None:
    _an_image(vfs, name)
    remove(vfs, f"/file/{name}", ADMIN)


def _create(vfs: Vfs, name: str, who: str) -> None:
    vfs.create(vfs.place(f"/file/{name}"), ADMIN)


def _rename_onto(vfs: Vfs, name: str, who: str) -> None:
    rename(vfs, f"/file/{name}.{who}", f"/file/{name}", ADMIN, replace=True)


def _rename_away(vfs: Vfs, name: str, who: str) -> None:
    rename(vfs, f"/file/{name}", f"/file/{name}.{who}", ADMIN, replace=False)


def _delete(vfs: Vfs, name: str, who: str) -> None:
    remove(vfs, f"/file/{name}", ADMIN)


def _delete_or_open(vfs: Vfs, name: str, who: str) -> None:
    if who == "left":
        remove(vfs, f"/file/{name}", ADMIN)
        return
    reader = vfs.open(entry(vfs, f"/file/{name}").image.number, ADMIN)
    assert bytes(reader.read_at(0, reader.size)) == name.encode()
    reader.close()


def _restore(vfs: Vfs, name: str, who: str) -> None:
    rename(vfs, f"/file/.trash/{name}", f"/file/{name}", ADMIN, replace=False)


RACES = (
    Race("create", _nothing, _create, ("AlreadyExists",), True),
    Race("rename onto", _two_images, _rename_onto, (), False),
    Race("rename away", _an_image, _rename_away, ("NotFound",), True),
    Race("delete", _an_image, _delete, ("NotFound",), True),
    Race("delete or open", _an_image, _delete_or_open, ("NotFound", "Forbidden"), False),
    Race("restore", _a_deleted_image, _restore, ("NotFound", "AlreadyExists", "Conflict"), True),
)


def run(who: str, vfs: Vfs, rounds: int) -> Iterator[dict[str, object]]:
    """Race; yield what became of each round, after both have been let go."""
    for number in range(rounds):
        for race in RACES:
            name = f"{race.name.replace(' ', '-')}-{number}"
            if who == "left":
                race.prepare(vfs, name)
            yield {"race": f"{race.name} ready", "outcome": "", "may": [], "one": False}
            try:
                race.act(vfs, name, who)
                outcome = "won"
            except CatalogError as error:
                outcome = type(error).__name__
            yield {"race": race.name, "outcome": outcome, "may": race.may, "one": race.one}


def _tell(told: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Race until the other end has heard enough."""
    who, url, folder, rounds = sys.argv[1:]
    vfs = Vfs(open_catalog(settings_at(Path(folder), url=url)))
    for told in run(who, vfs, int(rounds)):
        _tell(told)
        sys.stdin.readline()
    _tell({"race": "end"})
    with suppress(CatalogError):
        vfs.close()


if __name__ == "__main__":
    main()
