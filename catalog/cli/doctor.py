"""`imagefs doctor`: whether this host and this catalog are fit to work, and what to do."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalog.cli.console.exit_codes import FAILURE, OK
from catalog.cli.console.output import human_size, json_array, json_option, line
from catalog.cli.session import Session, pass_session
from catalog.errors import CatalogError
from catalog.model.clock import now
from catalog.model.image import GATE
from catalog.model.status import Status
from catalog.service import mounts
from catalog.service.mounts import State
from catalog.stores.base import Advising

if TYPE_CHECKING:
    from catalog.catalog import Catalog
    from catalog.settings import Settings

_LITTLE = 0.05
"""The fraction of a store that should stay free."""


class Level(StrEnum):
    """How bad a check's result is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    level: Level
    subject: str
    detail: str
    """The finding, and what to do about it."""


@click.command()
@json_option
@pass_session
def doctor(session: Session, as_json: bool) -> int:
    """Check the host, the configuration, the catalog and the stores."""
    checks = [*_host(), *_mounts(), *_catalog(session)]
    if as_json:
        json_array(asdict(check) for check in checks)
    else:
        for check in checks:
            line(f"{check.level:4}  {check.subject}: {check.detail}")
    return FAILURE if any(check.level is Level.FAIL for check in checks) else OK


def _check(passed: bool, subject: str, fine: str, otherwise: str) -> Check:
    return Check(Level.OK, subject, fine) if passed else Check(Level.FAIL, subject, otherwise)


def _host() -> Iterator[Check]:
    yield _check(
        find_spec("pyfuse3") is not None, "pyfuse3", "installed", "missing: pip install pyfuse3"
    )
    yield _check(_has_libfuse(), "libfuse3", "found", "missing: apt install libfuse3-3")
    yield _check(
        os.access("/dev/fuse", os.R_OK | os.W_OK),
        "/dev/fuse",
        "can be opened",
        "cannot be opened: modprobe fuse; in a container add --device /dev/fuse",
    )
    yield _check(
        shutil.which("fusermount3", path=mounts.BIN) is not None,
        "fusermount3",
        "found",
        "missing: apt install fuse3",
    )
    if os.geteuid() != 0 and not _allows_other():
        yield Check(
            Level.WARN,
            "/etc/fuse.conf",
            "holds no user_allow_other: other users, such as qemu's, cannot enter your mounts",
        )


def _has_libfuse() -> bool:
    for name in ("libfuse3.so.3", "libfuse3.so.4"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _allows_other() -> bool:
    try:
        text = Path("/etc/fuse.conf").read_text(errors="replace")
    except OSError:
        return False
    return re.search(r"^\s*user_allow_other\s*$", text, re.MULTILINE) is not None


def _mounts() -> Iterator[Check]:
    for mount in mounts.mounted():
        match mounts.state(mount.path):
            case State.ANSWERS:
                yield Check(Level.OK, mount.path, "is mounted")
            case State.DEAD:
                advice = f"mount it again, or imagefs umount {mount.path}"
                yield Check(Level.FAIL, mount.path, f"its process has ended: {advice}")
            case State.HANGS:
                advice = f"end its process, or imagefs umount --force {mount.path}"
                yield Check(Level.FAIL, mount.path, f"does not answer: {advice}")


def _catalog(session: Session) -> Iterator[Check]:
    try:
        settings = session.settings
        yield from _configuration(settings)
        catalog = session.catalog
    except CatalogError as error:
        # The whole message: for a damaged database it says what to do.
        yield Check(Level.FAIL, error.subject, error.beside(error.subject))
        return
    yield Check(Level.OK, "catalog", "opens, and this program may use its schema")
    try:
        yield from _database(catalog)
        yield from _stores(catalog)
        yield from _gate(catalog)
        yield from _uploads(catalog)
        yield from _clock(catalog)
    except CatalogError as error:
        yield Check(Level.FAIL, "catalog", str(error))


def _database(catalog: Catalog) -> Iterator[Check]:
    found = catalog.damages()
    for damage in found:
        advice = "stop all that uses it and restore a backup (README, Backup and restore)"
        yield Check(Level.FAIL, "database", f"is damaged: {damage}: {advice}")
    if not found:
        yield Check(Level.OK, "database", "is sound")
    for told in catalog.unfit():
        yield Check(Level.WARN, "database", f"its server's setting {told}")


def _configuration(settings: Settings) -> Iterator[Check]:
    from catalog.service.configuration import problems_of
    from catalog.settings import contributed_sections

    problems = [Check(Level.FAIL, settings.source, told) for told in problems_of(settings).values()]
    for name in contributed_sections():
        try:
            settings.section(name)
        except CatalogError as error:
            # Go on with the other sections: each program reads only its own.
            problems.append(Check(Level.FAIL, error.subject, error.reason))
    yield from problems or [Check(Level.OK, "configuration", settings.source)]


def _stores(catalog: Catalog) -> Iterator[Check]:
    for store in catalog.stores.values():
        subject = f"store {store.name}"
        try:
            store.check()
            usage = store.usage()
            advice = [*store.advice()] if isinstance(store, Advising) else []
        except CatalogError as error:
            yield Check(Level.FAIL, subject, error.reason or error.summary)
            continue
        room = "answers" if usage.free is None else f"{human_size(usage.free)} free"
        little = usage.free is not None and usage.free < _LITTLE * (usage.total or 0)
        if little:
            yield Check(Level.WARN, subject, f"only {room}: delete images, imagefs scrub")
        else:
            yield Check(Level.OK, subject, room)
        for told in advice:
            yield Check(Level.WARN, subject, told)


def _gate(catalog: Catalog) -> Iterator[Check]:
    from catalog.model.listings import ImageFilter

    wanted = ImageFilter(statuses=frozenset({Status.ACTIVE}), not_accepted_by=GATE)
    with catalog.read() as repository:
        count = repository.count_images(wanted)
    if count:
        told = f"{count} active images were accepted by an earlier version alone: imagefs fsck"
        yield Check(Level.WARN, "format gate", told)
    else:
        yield Check(Level.OK, "format gate", "has accepted every active image")


def _uploads(catalog: Catalog) -> Iterator[Check]:
    from catalog.rules.presence import ended

    with catalog.read() as repository:
        records = repository.uploads()
        gone = sum(map(ended(repository), (record.process for record in records)))
    if gone:
        yield Check(Level.WARN, "uploads", f"{gone} left by processes that are gone: imagefs scrub")
    else:
        yield Check(Level.OK, "uploads", f"{len(records)} in progress")


def _clock(catalog: Catalog) -> Iterator[Check]:
    with catalog.read() as repository:
        newest = repository.changes(repository.last_change() - 1, 1)
    ahead = newest[0].at - now() if newest else timedelta(0)
    yield _check(
        ahead < timedelta(minutes=1),
        "clock",
        "agrees with the catalog's",
        f"the newest change is {ahead} in the future: synchronise this host's clock",
    )
