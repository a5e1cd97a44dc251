"""`imagefs uploads` and `imagefs abort`: what is in progress, and ending it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.targets import find, paths_of
from catalog.cli.console.output import each, human_size, json_array, json_option, line, printable
from catalog.cli.session import Session, pass_session

if TYPE_CHECKING:
    from catalog.upkeep.in_progress import Going

_LAYOUT = "{:8}  {:20}  {:>8}  {:>10}  {:>9}  {:>9}  {}"
_HEADER = ("STATE", "HOST", "PID", "SO FAR", "AGE", "SEEN", "PATH")


@click.command()
@json_option
@pass_session
def uploads(session: Session, as_json: bool) -> None:
    """List the uploads and copies in progress: whose they are, how far, how old.

    Of an upload the bytes are known on its own host; of a copy the message tells how far.
    """
    from catalog.rules.members import may_see
    from catalog.upkeep.in_progress import in_progress

    found = [
        _describe(session, going)
        for going in in_progress(session.catalog)
        if may_see(session.catalog, going.image, session.principal)
    ]
    if as_json:
        json_array(found)
        return
    line(_LAYOUT.format(*_HEADER))
    for going in found:
        row = (
            going["state"],
            printable(going["host"]),
            going["pid"],
            human_size(going["staged"]),
            _duration(going["age"]),
            _duration(going["seen"]),
        )
        line(_LAYOUT.format(*row, _what(going)))


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def abort(session: Session, images: tuple[str, ...]) -> int:
    """End the upload of each IMAGE, or the copy that is made of it, whoever makes it.

    The image becomes killed; of a copy only that copy goes.
    """
    from catalog.upkeep.in_progress import abort as end

    def act(argument: str) -> None:
        end(session.catalog, find(session.vfs, argument).image, session.principal)

    return each(images, act)


def _describe(session: Session, going: Going) -> dict[str, Any]:
    from catalog.model.image import now

    image, record = going.image, going.record
    paths = paths_of(session.vfs, image)
    return {
        "id": image.id,
        "path": paths[0] if paths else None,
        "kind": "copy" if going.is_copy else "upload",
        "state": str(going.life),
        "host": record.process.host,
        "pid": record.process.pid,
        "staged": going.staged,
        "expected": image.size if going.is_copy else image.expected_size,
        "age": int((now() - record.started_at).total_seconds()),
        "seen": int((now() - record.heartbeat_at).total_seconds()),
        "message": image.message,
    }


def _what(going: dict[str, Any]) -> str:
    path = printable(going["path"] or going["id"])
    return f"{path} ({printable(going['message'] or 'copy')})" if going["kind"] == "copy" else path


def _duration(seconds: int) -> str:
    """For people: 5 s, 12 min, 3.5 h."""
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
