"""`imagefs dump` and `load`: the catalog on its way from one database to another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from catalog.cli.console.output import printable, report
from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidValue

_STANDARD = Path("-")
_file = click.argument("file", metavar="FILE|-", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_file
@pass_session
def dump(session: Session, file: Path) -> None:
    """Write all that the database has to FILE as lines of JSON, to load it into another one.

    It has the hashes of passwords.  The images' data is in the stores, and is not copied.
    """
    session.require_admin("dump")
    if file == _STANDARD:
        if sys.stdout.isatty():
            raise InvalidValue("-", "standard output is a terminal")
        _dump(session, sys.stdout.buffer.write)
        return
    from catalog.appearing import appearing

    with appearing(file.absolute()) as part:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            _dump(session, out.write)
            out.flush()
            os.fsync(out.fileno())


def _dump(session: Session, write: Callable[[bytes], object]) -> None:
    from catalog.upkeep.dump import dump as write_lines

    done = write_lines(session.settings.catalog.url, write)
    for image in done.left_out:
        name = printable(image.name)
        report(f"{image.id}: {name}: its upload or copy in progress is left out")
    report(f"{done.rows} rows are written")


@click.command()
@_file
@pass_session
def load(session: Session, file: Path) -> None:
    """Fill the database, which is empty or has a new catalog, with what `dump` has written."""
    from catalog.upkeep.dump import load as read_lines

    session.require_admin("load")
    url = session.settings.catalog.url
    if file == _STANDARD:
        done = read_lines(url, sys.stdin.buffer)
    else:
        with file.open("rb") as lines:
            done = read_lines(url, lines)
    report(f"{done.rows} rows are loaded")
