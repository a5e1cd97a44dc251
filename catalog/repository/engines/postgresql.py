"""Special to PostgreSQL, by the driver psycopg.

A reader has one view (REPEATABLE READ, read only).  A writer takes an advisory lock before it looks
at anything.  Threading: any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import OperationalError
from sqlalchemy import URL, Connection, Table, event, func, select
from sqlalchemy.dialects.postgresql import REGCLASS

from catalog.errors import (
    CatalogAway,
    CatalogDamaged,
    CatalogForbidden,
    CatalogFull,
    CatalogLocked,
    CatalogUnavailable,
)
from catalog.repository.engines import server
from catalog.repository.engines.backend import will_write
from catalog.repository.engines.server import ServerBackend
from catalog.repository.tables import COUNTED

_LOCK = 0x696D6167656673
"""The key of the advisory lock, which is the database's own: "imagefs" in ASCII."""

_CHANNEL = "imagefs"

_MEANINGS: dict[str, type[CatalogUnavailable]] = {
    "08": CatalogAway,  # the connection
    "25006": CatalogAway,  # read only: a standby, until it is promoted
    "28": CatalogForbidden,  # the user or its password
    "40": CatalogLocked,  # a deadlock, or no serial order
    "42501": CatalogForbidden,
    "42703": CatalogDamaged,  # no such column
    "42P01": CatalogDamaged,  # no such table
    "53": CatalogFull,
    "53300": CatalogAway,  # too many connections
    "55P03": CatalogLocked,
    "57014": CatalogLocked,  # longer than STATEMENT_TIME
    "57": CatalogAway,  # being shut down, or started
    "58": CatalogUnavailable,
    "XX": CatalogDamaged,
}
"""SQLSTATE or the class that it begins with (PostgreSQL, appendix A)."""


_DURABLE = ("on", "local", "remote_write", "remote_apply")
"""Values of synchronous_commit: what was committed survives a power failure of this server."""


class _Connection(psycopg.Connection[Any]):
    """A connection that gives a silent server up."""

    is_patient = False
    """Whether it waits for an answer as long as it takes."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.is_patient:
            # A time-out of the caller's own, for a notification, leaves the connection as it is.
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, server.SILENCE)
        except OperationalError as error:
            if error.sqlstate is None:
                # What it may still send answers a question that nobody asks any more.
                self.pgconn.finish()
            raise


class Postgresql(ServerBackend):
    """A catalog in PostgreSQL."""

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        # A connection of its own: who waits on it holds none of the pool.
        self._listener: psycopg.Connection[Any] | None = None
        event.listen(self.engine, "do_connect", _connect)
        event.listen(self.engine, "begin", _begin)

    def arguments(self, url: URL) -> dict[str, Any]:
        times = {
            "statement_timeout": server.STATEMENT_TIME,
            "lock_timeout": server.LOCK_TIME,
            "idle_in_transaction_session_timeout": server.IDLE_TIME,
        }
        options = " ".join(f"-c {name}={seconds}s" for name, seconds in times.items())
        return {
            "connect_timeout": server.CONNECT_TIME,
            "options": f"{options} -c timezone=UTC",
            "application_name": "imagefs",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 1000 * server.SILENCE,
        }

    def socket_of(self, raw: Any) -> int:
        return -1 if raw.closed else int(raw.fileno())

    def begin_write(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def begin_migration(self, connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        connection.detach()
        raw.is_patient = True
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        self.begin_write(connection)

    def grants(self, user: str, rights: Mapping[str, Sequence[str]]) -> list[str]:
        quote = self.engine.dialect.identifier_preparer.quote_identifier
        whom, counted = quote(user), [name for name in COUNTED if "INSERT" in rights.get(name, ())]
        return [
            f"-- CREATE ROLE {whom} LOGIN PASSWORD '…';",
            f"GRANT CONNECT ON DATABASE {quote(str(self.engine.url.database))} TO {whom};",
            f"GRANT USAGE ON SCHEMA public TO {whom};",
            *(f"GRANT {', '.join(verbs)} ON {name} TO {whom};" for name, verbs in rights.items()),
            *(f"GRANT USAGE ON SEQUENCE {name}_number_seq TO {whom};" for name in counted),
        ]

    def unfit(self, connection: Connection) -> list[str]:
        wanted = {"server_encoding": ("UTF8",), "fsync": ("on",), "synchronous_commit": _DURABLE}
        found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in wanted}
        return [
            f"{name} is {found[name]}, and should be {values[0]}"
            for name, values in wanted.items()
            if found[name] not in values
        ]

    def count_beyond(self, connection: Connection, table: Table, number: int) -> None:
        sequence = func.pg_get_serial_sequence(table.name, "number")
        connection.execute(select(func.setval(sequence, number)))

    def last_number(self, connection: Connection, table: Table) -> int:
        sequence = func.pg_get_serial_sequence(table.name, "number").cast(REGCLASS)
        last = select(func.pg_sequence_last_value(sequence))
        return connection.execute(last).scalar() or 0

    def announce(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")

    def wait_for_change(self, seconds: float) -> None:
        try:
            if self._listener is None:
                self._listener = self._listen()
            for _ in self._listener.notifies(timeout=seconds, stop_after=1):
                return
        except (psycopg.Error, OSError):
            # The look at the feed that follows tells it, if it cannot be done either.
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            super().wait_for_change(seconds)

    def _listen(self) -> psycopg.Connection[Any]:
        url = self.engine.url
        arguments, values = self.engine.dialect.create_connect_args(url)
        values = {**values, **self.arguments(url)}
        made = _Connection.connect(*arguments, **values, autocommit=True)
        made.execute(f"LISTEN {_CHANNEL}")
        return made

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        super().close()

    def clock(self, connection: Connection) -> datetime:
        found = connection.exec_driver_sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        at: datetime = found.scalar_one()
        return at.replace(tzinfo=UTC)

    def kind_of(self, error: BaseException) -> type[CatalogUnavailable]:
        state = getattr(error, "sqlstate", None)
        if state is None:
            # Psycopg's own: a connection that was not made, or has ended.
            is_away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            return CatalogAway if is_away else CatalogUnavailable
        return _MEANINGS.get(state) or _MEANINGS.get(state[:2], CatalogUnavailable)


def _connect(_dialect: Any, _record: Any, arguments: Any, values: Any) -> Any:
    return _Connection.connect(*arguments, **values)


def _begin(connection: Connection) -> None:
    raw: Any = connection.connection.driver_connection
    writes = will_write(connection)
    # Psycopg says both in its BEGIN.  A writer may not keep its first view: that is from before it
    # has got the lock.
    raw.isolation_level = (
        IsolationLevel.READ_COMMITTED if writes else IsolationLevel.REPEATABLE_READ
    )
    raw.read_only = not writes
