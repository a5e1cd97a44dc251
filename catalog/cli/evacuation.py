"""`imagefs evacuate`: every image out of one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.console.exit_codes import OK, combined, exit_code
from catalog.cli.console.output import (
    human_size,
    json_array,
    json_option,
    line,
    printable,
    transfer_bar,
)
from catalog.cli.session import Session, pass_session
from catalog.model.image import Image

if TYPE_CHECKING:
    from catalog.copies.progress import Progress
    from catalog.upkeep.evacuate import Evacuated


@click.command()
@click.argument("store")
@click.option(
    "--to", metavar="STORE", help="Where images go that are nowhere else; else the default store."
)
@json_option
@pass_session
def evacuate(session: Session, store: str, to: str | None, as_json: bool) -> int:
    """Take every image out of STORE; those without another copy are moved, verified.

    Images in use are left and told.  Run again, it goes on where it was interrupted.
    """
    from catalog.upkeep.evacuate import evacuate as take_out

    session.require_admin("evacuate")
    target = to or session.settings.catalog.default_store
    session.catalog.store(store)
    if target == store:
        raise click.UsageError(f"images cannot go from {store} to itself: give --to STORE")
    codes: list[int] = []
    counts: Counter[str] = Counter()
    carried = 0

    def results() -> Iterator[Evacuated]:
        nonlocal carried
        for found in take_out(session.catalog, store, target, show=_show):
            codes.append(OK if found.problem is None else exit_code(found.problem))
            counts[found.outcome] += 1
            carried += found.image.size if found.outcome == "moved" else 0
            yield found

    if as_json:
        json_array(_as_json(found) for found in results())
    else:
        for found in results():
            _print(found)
        line(_summary(store, target, counts, carried))
    return combined(codes)


def _summary(store: str, target: str, counts: Counter[str], carried: int) -> str:
    told = ", ".join(f"{counts[name]} {name}" for name in ("moved", "dropped", "spared", "failed"))
    return f"{store}: {told} ({human_size(carried)} moved to {target})"


def _show(image: Image) -> AbstractContextManager[Progress]:
    return transfer_bar(image.name, image.size)


def _print(found: Evacuated) -> None:
    text = f"{found.outcome:8}  {found.image.id}  {printable(found.image.name)}"
    line(f"{text}: {found.problem.beside(found.image.name)}" if found.problem else text)


def _as_json(found: Evacuated) -> dict[str, Any]:
    return {
        "id": found.image.id,
        "name": found.image.name,
        "size": found.image.size,
        "outcome": found.outcome,
        "message": "" if found.problem is None else str(found.problem),
    }
