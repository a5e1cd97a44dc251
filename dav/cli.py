"""`imagefs dav`: serve the catalog over WebDAV."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

import click

from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidSettings
from catalog.process import raise_file_limit
from catalog.service import logs

if TYPE_CHECKING:
    from catalog.service.life import Life
    from web.settings import DavSettings

log = logging.getLogger(__name__)

_DRAIN = 30.0
"""Seconds for running requests to end at a stop."""


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
    from catalog.service.life import Life
    from dav.app import App, render_error
    from web.exchange.forwarded import Forwarding, Proxies
    from web.login.basic import Authentication
    from web.server.listening import TlsFiles
    from web.server.server import Server

    settings = _settings(session, listen=listen, anonymous=anonymous)
    logging.getLogger().setLevel(min(logging.INFO, logging.getLogger().level))
    logs.use(logs.ToStderr())
    raise_file_limit()
    life = Life(session.vfs)
    life.recover()
    proxies = Proxies(settings.trusted_proxies)
    tree = App(session.vfs)
    app = Forwarding(Authentication(tree, session.catalog, settings, render_error), proxies)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = TlsFiles(settings.tls_certificate, settings.tls_key)
    server = Server(app, settings.address, tls=tls, proxies=proxies)
    life.start()
    server.start()
    scheme = "https" if tls else "http"
    log.info("serving at %s://%s:%d/", scheme, settings.address[0], server.port)
    life.ready()
    _until_stopped(life)
    life.stopping()
    server.stop(_DRAIN)
    life.stop()


def _settings(session: Session, **given: str | None) -> DavSettings:
    """The `[dav]` section, changed by the command line's options.  Raises InvalidSettings."""
    from pydantic import ValidationError

    from web.settings import DavSettings

    configured: DavSettings = session.settings.section("dav")
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return DavSettings.model_validate({**configured.model_dump(), **wanted})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidSettings("--" + " --".join(wanted), reason) from None


def _until_stopped(life: Life) -> None:
    from catalog.service.life import BEAT
    from catalog.service.systemd import watchdog_interval

    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    interval = min(watchdog_interval() or BEAT, BEAT)
    while not stopped.wait(interval):
        life.show_life()
        life.beat()


commands = (dav,)
"""What this package adds to the `imagefs` command."""
