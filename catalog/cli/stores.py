"""`imagefs adopt` and `imagefs evacuate`: into the catalog what a store has, and out of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.targets import absolute
from catalog.cli.console.exit_codes import OK, combined, exit_code
from catalog.cli.console.output import (
    human_size,
    json_array,
    json_option,
    line,
    printable,
    report,
    transfer_bar,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import CatalogError
from catalog.model.image import Image, Visibility

if TYPE_CHECKING:
    from catalog.copies.progress import Progress
    from catalog.tree.adopt import Adopted
    from catalog.upkeep.evacuate import Evacuated


@click.command()
@click.argument("store")
@click.argument("images", metavar="[ID|URL]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every id that STORE has and no image.")
@click.option("--folder", metavar="PATH", default="", help="Where in STORE; it has to be there.")
@click.option("--name", help="The name of a single image; else its id.")
@click.option(
    "--visibility",
    type=click.Choice([str(each) for each in Visibility]),
    default=str(Visibility.PRIVATE),
    show_default=True,
    help="Who may read them: the store does not tell.",
)
@click.option("--protected", is_flag=True, help="Nobody deletes them by mistake.")
@click.option("--dry-run", is_flag=True, help="Only tell which images would be adopted.")
@json_option
@pass_session
def adopt(
    session: Session,
    store: str,
    images: tuple[str, ...],
    every: bool,
    folder: str,
    name: str | None,
    visibility: str,
    protected: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make images of what a Glance, or a catalog that was lost, has left in STORE.

    An image keeps its ID, which is its key in the store; a URL is a location of Glance's
    database.  The data stays where it is, and is not verified yet: see 'imagefs verify'.

    From then on it is this catalog's: to delete an image here deletes Glance's data.  Stop
    that Glance first, or give --protected.
    """
    from catalog.tree.adopt import Adoption, Terms

    session.require_admin("adopt")
    if every == bool(images):
        raise click.UsageError("give either ids or --all")
    if name is not None and len(images) != 1:
        raise click.UsageError("--name is for a single image")
    terms = Terms(Visibility(visibility), protected)
    adoption = Adoption(session.vfs, store, terms, session.principal)
    codes: list[int] = []

    def act(argument: str) -> Adopted:
        image_id = _id_of(session, store, argument)
        path = absolute(f"{folder}/{name or image_id}")
        return adoption.adopt(image_id, path, dry_run=dry_run)

    results = _each(images or adoption.unknown(), act, codes)
    if as_json:
        json_array(asdict(found) for found in results)
    else:
        _print_adopted(store, results)
    return combined(codes)


def _each(
    arguments: Iterable[str], act: Callable[[str], Adopted], codes: list[int]
) -> Iterator[Adopted]:
    """The result for each argument; reports failures, and appends an exit code for each."""
    for argument in arguments:
        try:
            found = act(argument)
        except CatalogError as error:
            report(error)
            codes.append(exit_code(error))
        else:
            codes.append(OK)
            yield found


def _id_of(session: Session, store: str, argument: str) -> str:
    from catalog.stores.glance_locations import key_of

    if "://" not in argument:
        return argument
    return key_of(argument, getattr(session.settings.stores[store], "type", ""))


def _print_adopted(store: str, results: Iterable[Adopted]) -> None:
    """Print a line for each result, and one for all of them."""
    counts: Counter[str] = Counter()
    for found in results:
        counts[found.outcome] += 1
        data = f"{found.disk_format}, {human_size(found.size)}"
        line(f"{found.outcome}  {found.id}  {printable(found.path)}: {data}")
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    line(f"{store}: {told or 'nothing adopted'}")


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
        json_array(_evacuated_as_json(found) for found in results())
    else:
        for found in results():
            _print_evacuated(found)
        line(_summary(store, target, counts, carried))
    return combined(codes)


def _summary(store: str, target: str, counts: Counter[str], carried: int) -> str:
    told = ", ".join(f"{counts[name]} {name}" for name in ("moved", "dropped", "spared", "failed"))
    return f"{store}: {told} ({human_size(carried)} moved to {target})"


def _show(image: Image) -> AbstractContextManager[Progress]:
    return transfer_bar(image.name, image.size)


def _print_evacuated(found: Evacuated) -> None:
    text = f"{found.outcome:8}  {found.image.id}  {printable(found.image.name)}"
    line(f"{text}: {found.problem.beside(found.image.name)}" if found.problem else text)


def _evacuated_as_json(found: Evacuated) -> dict[str, Any]:
    return {
        "id": found.image.id,
        "name": found.image.name,
        "size": found.image.size,
        "outcome": found.outcome,
        "message": "" if found.problem is None else str(found.problem),
    }
