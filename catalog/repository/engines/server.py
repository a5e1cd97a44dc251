"""What the two database servers have in common: connections, deadlines, an absent server.

Every wait for a server is bounded, because a mount waits for it: a silent server would hang all who
use the mount.  docs/operations.md has these times for operators.  Threading: any.
"""

from __future__ import annotations

import select
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from catalog.errors import CatalogAway, CatalogLocked, CatalogUnavailable
from catalog.model import clock
from catalog.repository.engines import columns
from catalog.repository.engines.answering import Answering
from catalog.repository.engines.backend import Backend

CONNECT_TIME = 5
"""Seconds in which a connection has to be made."""
STATEMENT_TIME = 20
"""Seconds that the server may work on one statement."""
LOCK_TIME = 15
"""Seconds that a writer waits for other writers."""
IDLE_TIME = 60
"""Seconds after which the server ends a transaction whose client has become silent."""
SILENCE = 25
"""Seconds without an answer after which this side gives a server up: a stopped server or a network
that loses everything ends no statement by itself."""
CONNECTIONS = 16
"""Connections of one process at most; those beyond `_KEPT` are closed after use."""
_KEPT = 4
_CLOCK_TIME = 60
"""Seconds after which the server's clock is read again: the two go on at slightly other speeds."""

assert columns  # its rules hold from the import on


class ServerBackend(Backend):
    """A database server."""

    is_shared = True

    def __init__(self, url: URL) -> None:
        super().__init__(self._engine(url))
        self._answering = Answering(self.where)
        self._turn = threading.Lock()
        self._clock_until = 0.0
        event.listen(self.engine, "checkout", self._refuse_ended)

    def _engine(self, url: URL) -> Engine:
        return create_engine(
            url,
            pool_size=_KEPT,
            max_overflow=CONNECTIONS - _KEPT,
            pool_timeout=LOCK_TIME,
            # The most lately used one: others end on the server's side when they are idle.
            pool_use_lifo=True,
            connect_args=self.arguments(url),
        )

    @abstractmethod
    def arguments(self, url: URL) -> dict[str, Any]:
        """What the driver's `connect` gets, with all time-outs."""

    @abstractmethod
    def socket_of(self, raw: Any) -> int:
        """The descriptor of a driver's connection; negative if it is closed."""

    def connect(self) -> Connection:
        while True:
            try:
                return self._connect()
            except CatalogAway:
                self._answering.wait()

    def _connect(self) -> Connection:
        self._answering.check()
        with self.errors():
            connection = self.engine.connect()
            if time.monotonic() > self._clock_until:
                clock.follow(self.clock(connection))
                # The next statement begins the transaction that was asked for, with its own view.
                connection.commit()
                self._clock_until = time.monotonic() + _CLOCK_TIME
        self._answering.answered()
        return connection

    def _refuse_ended(self, raw: Any, _record: Any, _proxy: Any) -> None:
        """Test a connection that is taken from the pool, which costs no message.

        The server has nothing to say between two transactions.  If the socket can be read, it says
        that the connection has ended: it was restarted, or has failed over to another one.
        """
        descriptor = -1
        with suppress(Exception):
            descriptor = self.socket_of(raw)
        if descriptor < 0:
            raise DisconnectionError("is closed")
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        if ready.poll(0):
            raise DisconnectionError("has ended")

    def announce(self, connection: Connection) -> None:
        """In MariaDB nobody can wait for it."""

    def checkpoint(self) -> None:
        """A server's files are its own."""

    def meaning(self, error: BaseException) -> CatalogUnavailable:
        kind, reason = self.kind_of(error), " ".join(str(error).split())
        if kind is CatalogAway:
            self._answering.failed(reason)
        return kind(self.where, reason or type(error).__name__)

    @abstractmethod
    def kind_of(self, error: BaseException) -> type[CatalogUnavailable]:
        """What an error of the driver means; CatalogAway if the server does not answer."""

    @contextmanager
    def turn_to_write(self) -> Iterator[None]:
        # Among this process' threads: otherwise each of them would wait for the catalog's lock
        # with a connection of its own.
        if not self._turn.acquire(timeout=LOCK_TIME):
            raise CatalogLocked(self.where)
        try:
            yield
        finally:
            self._turn.release()
