"""Special to MariaDB, by the driver PyMySQL.

A reader has one view (REPEATABLE READ, from its first statement on).  A writer first locks the row
of the schema's version: a locking read makes no view, so that the next statement sees all that was
committed before.  MariaDB commits each change of the schema by itself.  Threading: any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymysql
from sqlalchemy import URL, Connection, Table, event, text

from catalog.errors import (
    CatalogAway,
    CatalogDamaged,
    CatalogForbidden,
    CatalogFull,
    CatalogLocked,
    CatalogUnavailable,
)
from catalog.repository.engines import server
from catalog.repository.engines.server import ServerBackend

_SESSION = {
    "innodb_lock_wait_timeout": server.LOCK_TIME,
    "lock_wait_timeout": server.LOCK_TIME,
    "max_statement_time": server.STATEMENT_TIME,
    "idle_transaction_timeout": server.IDLE_TIME,
    "time_zone": "'+00:00'",
    # What does not fit is refused, and not cut.
    "sql_mode": "'TRADITIONAL'",
    "tx_isolation": "'REPEATABLE-READ'",
}

_MEANINGS: dict[type[CatalogUnavailable], frozenset[int]] = {
    CatalogAway: frozenset(
        {0, 1040, 1053, 1077, 1079, 1129, 1152, 1159, 1184, 1203, 1226, 1290, 1836, 1927}
        | {2002, 2003, 2006, 2013, 2055, 4031}
    ),
    CatalogLocked: frozenset({1205, 1213, 1969}),
    CatalogFull: frozenset({1021, 1041, 1114}),
    CatalogForbidden: frozenset({1044, 1045, 1142, 1143, 1227, 1698}),
    CatalogDamaged: frozenset({126, 127, 144, 145, 1030, 1034, 1035, 1054, 1146}),
}
"""Error codes of the server and of its client library."""

_REPEATABLE = (
    (re.compile(r"^\s*CREATE TABLE (?!IF )"), "CREATE TABLE IF NOT EXISTS "),
    (re.compile(r"^\s*CREATE (UNIQUE )?INDEX (?!IF )"), r"CREATE \1INDEX IF NOT EXISTS "),
    (re.compile(r"^(\s*ALTER TABLE \S+) ADD COLUMN (?!IF )"), r"\1 ADD COLUMN IF NOT EXISTS "),
    (re.compile(r"^(\s*ALTER TABLE \S+) DROP COLUMN (?!IF )"), r"\1 DROP COLUMN IF EXISTS "),
    (re.compile(r"^\s*DROP INDEX (?!IF )"), "DROP INDEX IF EXISTS "),
    (re.compile(r"^\s*DROP TABLE (?!IF )"), "DROP TABLE IF EXISTS "),
)
_MIGRATING = "imagefs-migration"
_OLDEST = (10, 6)
_PACKET = 16 << 20
"""Bytes: the digests of an image of 1 TiB, 8 MiB, with all that is escaped in them."""


class Mariadb(ServerBackend):
    """A catalog in MariaDB."""

    def arguments(self, url: URL) -> dict[str, Any]:
        # As bytes: PyMySQL would encode text as latin-1, and MariaDB takes it for UTF-8.
        password = {"password": str(given).encode()} if (given := url.password) else {}
        session = ", ".join(f"{name} = {value}" for name, value in _SESSION.items())
        return {
            "connect_timeout": server.CONNECT_TIME,
            "read_timeout": server.SILENCE,
            "write_timeout": server.SILENCE,
            "init_command": f"SET SESSION {session}",
            "program_name": "imagefs",
            "charset": "utf8mb4",
            **password,
        }

    def socket_of(self, raw: Any) -> int:
        # PyMySQL has no public way to its socket.
        return int(raw._sock.fileno()) if raw.open else -1

    def begin_write(self, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT version_num FROM alembic_version FOR UPDATE")

    def begin_migration(self, connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        connection.detach()
        raw._read_timeout = None  # PyMySQL has no public way to it
        connection.exec_driver_sql("SET SESSION max_statement_time = 0")

    def grants(self, user: str, rights: Mapping[str, Sequence[str]]) -> list[str]:
        quote = self.engine.dialect.identifier_preparer.quote_identifier
        whom, database = f"{quote(user)}@'%'", quote(str(self.engine.url.database))
        return [
            f"-- CREATE USER {whom} IDENTIFIED BY '…';",
            *(
                f"GRANT {', '.join(verbs)} ON {database}.{name} TO {whom};"
                for name, verbs in rights.items()
            ),
        ]

    def unfit(self, connection: Connection) -> list[str]:
        names = "@@version, @@innodb_flush_log_at_trx_commit, @@max_allowed_packet"
        release, flush, packet = connection.exec_driver_sql(f"SELECT {names}").one()
        number = re.match(r"(\d+)\.(\d+)", release)
        told = []
        if "MariaDB" not in release or not number or (int(number[1]), int(number[2])) < _OLDEST:
            told.append(f"version is {release}, and should be MariaDB {_OLDEST[0]}.{_OLDEST[1]}")
        if flush != 1:
            told.append(f"innodb_flush_log_at_trx_commit is {flush}, and should be 1")
        if packet < _PACKET:
            told.append(f"max_allowed_packet is {packet}, and should be {_PACKET}")
        return told

    def count_beyond(self, connection: Connection, table: Table, number: int) -> None:
        # It goes on after the greatest number that any row has had, by itself.
        if self.last_number(connection, table) < number:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} AUTO_INCREMENT = {number + 1}")

    def last_number(self, connection: Connection, table: Table) -> int:
        last = text(
            "SELECT auto_increment - 1 FROM information_schema.tables"
            " WHERE table_schema = database() AND table_name = :table"
        )
        return connection.execute(last, {"table": table.name}).scalar() or 0

    @contextmanager
    def turn_to_migrate(self) -> Iterator[None]:
        # By name, as there may be no table yet, and as each step commits.
        with self.turn_to_write(), self.errors(), self.engine.connect() as connection:
            asked = f"SELECT GET_LOCK('{_MIGRATING}', {server.LOCK_TIME})"
            if connection.exec_driver_sql(asked).scalar_one() != 1:
                raise CatalogLocked(self.where, "another program changes its schema")
            event.listen(self.engine, "before_cursor_execute", _made_repeatable, retval=True)
            try:
                yield
            finally:
                event.remove(self.engine, "before_cursor_execute", _made_repeatable)
                connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{_MIGRATING}')")

    def clock(self, connection: Connection) -> datetime:
        at: datetime = connection.exec_driver_sql("SELECT sysdate(6)").scalar_one()
        return at.replace(tzinfo=UTC)

    def kind_of(self, error: BaseException) -> type[CatalogUnavailable]:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else None
        for kind, codes in _MEANINGS.items():
            if code in codes:
                return kind
        is_away = code is None and isinstance(error, pymysql.InterfaceError | OSError)
        return CatalogAway if is_away else CatalogUnavailable


def _made_repeatable(
    _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """Let each change of the schema be done again: an interrupted upgrade has done some of them."""
    for pattern, repeatable in _REPEATABLE:
        changed, count = pattern.subn(repeatable, statement, count=1)
        if count:
            return changed, values
    return statement, values
