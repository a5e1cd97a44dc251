"""`imagefs dav`: serve the catalog over WebDAV."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import click
from pydantic import ValidationError

from catalog import service_log
from catalog.catalog import CHECKPOINT
from catalog.cli.session import Session, pass_session
from catalog.copies.recovery import recover
from catalog.errors import CatalogError, InvalidSettings
from catalog.notify import notify, watchdog_interval
from catalog.process import raise_file_limit
from catalog.upkeep.replicator import Replicator
from dav.settings import DavSettings

log = logging.getLogger(__name__)

_DRAIN = 30.0
"""Seconds for running requests to end at a stop."""
_STOP = 5.0
"""Seconds for a copy in the background to be cleaned up at a stop."""


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Listen there instead of [dav] listen.")
@click.option(
    "--anonymous",
    type=click.Choice(["none", "read", "write"]),
    help="What those may who give no name, instead of [dav] anonymous.",
)
@pass_session
def dav(session: Session, listen: str | None, anonymous: str | None) -> None:
    """Serve the catalog over WebDAV and to browsers, until it is stopped."""
    # Imported here: loading the server's libraries takes longer than other commands run.
    from dav.app import App, render_error
    from dav.auth import Authentication
    from dav.forwarded import Forwarding, Proxies
    from dav.listening import TlsFiles
    from dav.server import Server

    settings = _settings(session, listen=listen, anonymous=anonymous)
    logging.getLogger().setLevel(min(logging.INFO, logging.getLogger().level))
    service_log.use(service_log.ToStderr())
    raise_file_limit()
    for image in recover(session.catalog):
        log.warning("%s (%s): killed: its upload was cut off", image.name, image.id)
    proxies = Proxies(settings.trusted_proxies)
    tree = App(session.vfs)
    app = Forwarding(Authentication(tree, session.catalog, settings, render_error), proxies)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = TlsFiles(settings.tls_certificate, settings.tls_key)
    server = Server(app, settings.address, tls=tls, proxies=proxies)
    replicator = Replicator(session.catalog)
    replicator.start()
    server.start()
    scheme = "https" if tls else "http"
    log.info("serving at %s://%s:%d/", scheme, settings.address[0], server.port)
    notify("READY=1")
    _until_stopped(session)
    notify("STOPPING=1")
    server.stop(_DRAIN)
    replicator.stop(_STOP)


def _settings(session: Session, **given: str | None) -> DavSettings:
    """The `[dav]` section, changed by the command line's options.  Raises InvalidSettings."""
    configured: DavSettings = session.settings.section("dav")
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return DavSettings.model_validate({**configured.model_dump(), **wanted})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidSettings("--" + " --".join(wanted), reason) from None


def _until_stopped(session: Session) -> None:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    interval = min(watchdog_interval() or CHECKPOINT, CHECKPOINT)
    while not stopped.wait(interval):
        notify("WATCHDOG=1")
        try:
            session.catalog.checkpoint()
            session.vfs.uses.publish()
            session.vfs.uploads.give_up_aborted()
        except CatalogError as error:
            # No reason to stop: requests report the failure to their clients, and work again
            # when the database is back.
            log.warning("housekeeping: %s", error)


commands = (dav,)
"""What this package adds to the `imagefs` command."""
