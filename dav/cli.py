"""`imagefs dav`: serve the catalog over WebDAV."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

import click

from catalog import cause
from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidSettings
from catalog.process import raise_file_limit

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
    from catalog.model.activity import ServiceKind
    from catalog.service import stacks
    from catalog.service.endpoint import monitored
    from catalog.service.life import Life
    from catalog.service.logs.service import ServiceLog
    from dav.app import App, render_error
    from web.exchange.forwarded import Forwarding, Proxies
    from web.login.basic import Authentication
    from web.server.listening import TlsFiles
    from web.server.server import Server

    stacks.hold()
    settings = _settings(session, listen=listen, anonymous=anonymous)
    fields = {"service": "dav"}
    service_log = ServiceLog(session.reread, fields)
    service_log.open(session.settings)
    stacks.answer()
    raise_file_limit()
    life = Life(session.vfs, ServiceKind.SERVER, settings.listen)
    cause.begin("dav")
    life.recover()
    proxies = Proxies(settings.trusted_proxies)
    tree = App(session.vfs)
    app = Forwarding(Authentication(tree, session.catalog, settings, render_error), proxies)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = TlsFiles(settings.tls_certificate, settings.tls_key)
    server = Server(app, settings.address, tls=tls, proxies=proxies)
    with monitored(settings.metrics, session.vfs, server.pulse, fields):
        life.start()
        server.start()
        scheme = "https" if tls else "http"
        log.info("serving at %s://%s:%d/", scheme, settings.address[0], server.port)
        life.ready()
        _until_stopped(life, service_log.reload)
        life.stopping()
        server.stop(_DRAIN)
        life.stop()
    service_log.close()


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


def _until_stopped(life: Life, reload: Callable[[], None]) -> None:
    from catalog.service.life import BEAT
    from catalog.service.systemd import watchdog_interval

    asked: SimpleQueue[signal.Signals] = SimpleQueue()
    # A terminal that hangs up takes with it who was started in it; nobody would stop it later.
    hangup_stops = os.isatty(2)

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.put(signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    interval = min(watchdog_interval() or BEAT, BEAT)
    while True:
        try:
            asked_for = asked.get(timeout=interval)
        except Empty:
            life.show_life()
            life.beat()
            continue
        if asked_for != signal.SIGHUP or hangup_stops:
            return
        reload()


commands = (dav,)
"""What this package adds to the `imagefs` command."""
