"""`imagefs dump` and `load`, from one database to another, and `imagefs db`: its schema."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from catalog.cli.console.exit_codes import OK, exit_code
from catalog.cli.console.output import line, printable, report
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


@click.group(no_args_is_help=False)
def db() -> None:
    """The catalog's database."""


@db.command()
@click.option("--dry-run", is_flag=True, help="Only print the steps and their SQL.")
@pass_session
def upgrade(session: Session, dry_run: bool) -> None:
    """Bring the database's schema up to this program's; what an older imagefs made stays."""
    from catalog.upkeep import schema

    session.require_admin("db upgrade")
    url = session.settings.catalog.url
    if dry_run:
        for step, sql in schema.statements(url):
            line(f"-- {step.revision}: {step.title}\n{sql}\n")
        return
    done = schema.upgrade(url)
    for step in done:
        line(f"{step.revision}: {step.title}")
    line("the schema is up to date" if done else "the schema was up to date")


@db.command()
@pass_session
def check(session: Session) -> int:
    """Tell whether this program may use the schema, and the server's settings are fit."""
    from catalog.upkeep import schema

    codes = []
    for checked in schema.check(session.settings.catalog.url):
        problem = checked.problem
        codes.append(OK if problem is None else exit_code(problem))
        line(f"{'ok' if problem is None else 'fail':4}  {checked.subject}: {checked.detail}")
    return max(codes)


@db.command()
@click.argument("role", type=click.Choice(["reader", "uploader", "server"]))
@click.option("--user", metavar="NAME", help="The database's user; imagefs_ROLE if not given.")
@pass_session
def grants(session: Session, role: str, user: str | None) -> None:
    """Print the SQL that lets a user of the database server do what ROLE needs, and no more.

    A reader is a mount with -o ro, an uploader any other mount, a server 'imagefs dav' and timers.
    """
    from catalog.upkeep import schema

    for statement in schema.grants(session.settings.catalog.url, role, user or f"imagefs_{role}"):
        line(statement)
