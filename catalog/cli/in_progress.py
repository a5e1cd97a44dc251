"""`imagefs uploads`, `imagefs abort` and `imagefs top`: what is in progress, and ending it."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.targets import find, paths_of
from catalog.cli.console.output import each, human_size, json_array, json_option, line, printable
from catalog.cli.session import Session, pass_session

if TYPE_CHECKING:
    from catalog.model.image import Image
    from catalog.service.activity import Rates
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
    from catalog.model.clock import now

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


@click.command()
@click.option("--once", is_flag=True, help="Print once and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks, over which rates are measured.",
)
@json_option
@pass_session
def top(session: Session, once: bool, interval: float, as_json: bool) -> None:
    """Show who reads and writes now, again and again until Ctrl-C; with --json one line a time.

    Rates are those of this host: of its uploads, and of its processes that have `metrics` set.
    """
    from catalog.service.activity import Rates, sample

    old = sample(session.catalog)
    while True:
        time.sleep(interval)
        new = sample(session.catalog)
        found = _activity(session, Rates(old, new))
        if as_json:
            line(json.dumps(found, ensure_ascii=False))
        else:
            if not once and sys.stdout.isatty():
                click.clear()
            _show(found)
        sys.stdout.flush()
        if once:
            return
        old = new


def _activity(session: Session, rates: Rates) -> dict[str, list[dict[str, Any]]]:
    from catalog.rules.members import may_see

    def is_seen(image: Image) -> bool:
        return may_see(session.catalog, image, session.principal)

    new = rates.new
    processes = [
        {
            **serving.labels,
            "address": address,
            **{what: rates.of_process(address, what) for what in serving.counts},
        }
        for address, serving in new.serving.items()
    ]
    uploads = [
        {**_describe(session, going), "rate": rates.of_upload(going)}
        for going in new.going
        if is_seen(going.image)
    ]
    uses = [
        {
            "id": image.id,
            "path": next(iter(paths_of(session.vfs, image)), None),
            "user": use.user,
            "host": use.process.host,
            "pid": use.process.pid,
            "since": use.since.isoformat(),
        }
        for image, use in new.uses
        if is_seen(image)
    ]
    return {"processes": processes, "uploads": uploads, "uses": uses}


def _show(found: dict[str, list[dict[str, Any]]]) -> None:
    layout = "{:>8}  {:>12}  {:>12}  {:>10}  {}"
    line(layout.format("PID", "READ/S", "WRITTEN/S", "REQUESTS/S", "PROCESS"))
    for row in found["processes"]:
        name = " ".join(row[key] for key in ("service", "mount") if key in row)
        rates = human_size(int(row["read"])), human_size(int(row["written"]))
        line(layout.format(row["pid"], *rates, f"{row['requests']:.1f}", printable(name)))
    layout = "{:>8}  {:>12}  {:>12}  {:20}  {}"
    line()
    line(layout.format("PID", "SO FAR", "WRITTEN/S", "HOST", "UPLOAD"))
    for row in found["uploads"]:
        rate = None if row["rate"] is None else int(row["rate"])
        sizes = human_size(row["staged"]), human_size(rate)
        line(layout.format(row["pid"], *sizes, printable(row["host"]), _what(row)))
    layout = "{:19}  {:20}  {:30}  {}"
    line()
    line(layout.format("OPEN SINCE (UTC)", "HOST", "BY", "IMAGE"))
    for row in found["uses"]:
        shown = row["host"], row["user"] or f"pid {row['pid']}", row["path"] or row["id"]
        since = row["since"][:19].replace("T", " ")
        line(layout.format(since, *(printable(text) for text in shown)))
