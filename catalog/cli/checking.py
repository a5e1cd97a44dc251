"""`imagefs verify`, `scrub` and `fsck`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.targets import find
from catalog.cli.console.exit_codes import FAILURE, OK, combined, exit_code
from catalog.cli.console.output import (
    image_fields,
    json_array,
    json_option,
    line,
    printable,
    progress_bar,
    report,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import CatalogError, Conflict
from catalog.model.image import Image
from catalog.model.status import HAS_DATA

if TYPE_CHECKING:
    from catalog.upkeep.verify import Verified


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Write a bad copy anew from the good ones.")
@json_option
@pass_session
def verify(session: Session, images: tuple[str, ...], repair: bool, as_json: bool) -> int:
    """Read each IMAGE back, every copy of it, and compare every chunk; without one, all."""
    codes: list[int] = []

    def results() -> Iterator[Verified]:
        for image in _to_verify(session, images, codes):
            try:
                for verified in _verify(session, image, repair):
                    codes.append(FAILURE if verified.is_bad else OK)
                    yield verified
            except CatalogError as error:
                report(error)
                codes.append(exit_code(error))

    if as_json:
        json_array(_as_json(verified) for verified in results())
    else:
        for verified in results():
            _print_verified(verified)
    return combined(codes)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell which images would be deleted.")
@click.option(
    "--force",
    is_flag=True,
    help="Forget also what a store does not remove, and tell where it is.",
)
@json_option
@pass_session
def scrub(session: Session, dry_run: bool, force: bool, as_json: bool) -> int:
    """Delete for good what has been in the trash for long enough, and clean up after crashes.

    An image that is in use stays until the next time.
    """
    from catalog.copies import recovery
    from catalog.upkeep import scrub

    session.require_admin("scrub")
    if not dry_run:
        recovery.recover(session.catalog)
    codes: list[int] = []

    def results() -> Iterator[dict[str, Any]]:
        for scrubbed in scrub.scrub(session.catalog, dry_run=dry_run, force=force):
            for left in scrubbed.left:
                report(f"{scrubbed.image.name}: {left}")
            problem = scrubbed.problem
            in_use = isinstance(problem, Conflict)
            codes.append(OK if problem is None or in_use else exit_code(problem))
            yield {
                "id": scrubbed.image.id,
                "name": scrubbed.image.name,
                "size": scrubbed.image.size,
                "deleted": problem is None and not dry_run,
                "message": "" if problem is None else str(problem),
            }

    if as_json:
        json_array(results())
    else:
        for result in results():
            outcome = "would delete" if dry_run else "deleted"
            if result["message"]:
                outcome = "kept"
            text = f"{outcome}  {result['id']}  {printable(result['name'])}"
            line(f"{text}: {result['message']}" if result["message"] else text)
    return combined(codes)


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be; nothing is lost by it.")
@json_option
@pass_session
def fsck(session: Session, repair: bool, as_json: bool) -> int:
    """Compare the catalog with what the stores hold."""
    from catalog.upkeep.findings import FindingKind
    from catalog.upkeep.fsck import fsck as check

    if repair:
        session.require_admin("fsck --repair")
    codes: list[int] = []

    def results() -> Iterator[dict[str, str]]:
        for found in check(session.catalog, repair=repair):
            is_told = found.repaired or found.kind is FindingKind.NOT_EXAMINED
            codes.append(OK if is_told else FAILURE)
            yield {
                "kind": str(found.kind),
                "subject": found.subject,
                "detail": found.detail,
                "repaired": found.repaired,
            }

    if as_json:
        json_array(results())
    else:
        for result in results():
            text = printable(f"{result['kind']}  {result['subject']}: {result['detail']}")
            line(f"{text}; {result['repaired']}" if result["repaired"] else text)
    return FAILURE if FAILURE in codes else OK


def _to_verify(session: Session, images: tuple[str, ...], codes: list[int]) -> Iterator[Image]:
    """The images that were named, or all with data; appends an exit code for each missing one."""
    from catalog.model.listings import ImageFilter

    if not images:
        yield from session.catalog.all_images(ImageFilter(statuses=HAS_DATA))
    for argument in images:
        try:
            yield find(session.vfs, argument).image
        except CatalogError as error:
            report(error)
            codes.append(exit_code(error))


def _verify(session: Session, image: Image, repair: bool) -> Iterator[Verified]:
    from catalog.upkeep.repair import verify_and_repair
    from catalog.upkeep.verify import verify as read_back

    check = verify_and_repair if repair else read_back
    with session.catalog.read() as repository:
        copies = len(repository.locations_of(image.number))
    with progress_bar(image.name, image.size * copies) as progress:
        yield from check(session.catalog, image, session.principal, progress=progress)


def _print_verified(verified: Verified) -> None:
    name = printable(f"{verified.store}/{verified.image.name}")
    text = f"{verified.verdict:10}  {verified.image.id}  {name}"
    line(f"{text}: {verified.detail}" if verified.detail else text)
    for chunk in verified.bad_chunks:
        line(f"{'':10}  bad chunk at offset {chunk.offset}, {chunk.size} bytes")


def _as_json(verified: Verified) -> dict[str, Any]:
    fields = image_fields(verified.image)
    return {
        **{name: fields[name] for name in ("id", "name", "size")},
        "store": verified.store,
        "verdict": verified.verdict,
        "detail": verified.detail,
        "bad_chunks": [
            {"offset": chunk.offset, "size": chunk.size} for chunk in verified.bad_chunks
        ],
    }
