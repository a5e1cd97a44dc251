"""The processes that serve the catalog on all hosts, and where their common stores are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, case, delete, func, select, update

from catalog.model.activity import Service, ServiceKind
from catalog.process import Process
from catalog.repository.rows import RowCheck, Rows, is_of, values_of
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import leases, processes, store_marks, uploads

_check_service = RowCheck(*processes.c)
_ALL = Prepared(select(processes).order_by(*processes.primary_key))


def _make_service(row: Any) -> Service:
    _check_service(row)
    host, boot, pid, started, kind, place, version, registered_at, heard_since, heartbeat_at = row
    process = Process(host, boot, pid, started)
    return Service(
        process, ServiceKind(kind), place, version, registered_at, heard_since, heartbeat_at
    )


class HostRows(Rows):
    """Statements on `processes`."""

    def add_service(self, service: Service) -> None:
        """Add a process; a row that it has already is replaced."""
        self.drop_service(service.process)
        self.connection.execute(
            processes.insert().values(
                **values_of(service.process),
                kind=service.kind,
                place=service.place,
                version=service.version,
                registered_at=service.registered_at,
                heard_since=service.heard_since,
                heartbeat_at=service.heartbeat_at,
            )
        )

    def beat_service(self, process: Process, at: datetime, gap: timedelta) -> bool:
        """Note that a process lives; False if it is not registered (any more).

        If its last heartbeat is more than `gap` ago, it is heard without a gap only from now on.
        """
        since = case(
            (
                processes.c.heartbeat_at < at - gap,
                bindparam("now", at, processes.c.heard_since.type),
            ),
            else_=processes.c.heard_since,
        )
        statement = update(processes).where(is_of(processes, process))
        changed = self.connection.execute(statement.values(heard_since=since, heartbeat_at=at))
        return changed.rowcount > 0

    def services(self) -> list[Service]:
        """Every registered process."""
        return [_make_service(row) for row in _ALL.rows(self.connection)]

    def drop_service(self, process: Process) -> None:
        """Forget a process."""
        self.connection.execute(delete(processes).where(is_of(processes, process)))

    def drop_host(self, host: str) -> None:
        """Forget all processes of a host, and what they hold open."""
        self.connection.execute(delete(processes).where(processes.c.host == host))
        self.connection.execute(delete(leases).where(leases.c.host == host))

    def count_open(self, host: str) -> int:
        """How many images the processes of a host hold open."""
        images = func.count(leases.c.image.distinct())
        return self.connection.execute(select(images).where(leases.c.host == host)).scalar_one()

    def store_marks(self) -> dict[str, str]:
        """Store name -> the mark of its place, where one is recorded."""
        return {row.store: row.mark for row in self.connection.execute(select(store_marks))}

    def set_store_mark(self, store: str, mark: str) -> None:
        """Record the mark of a store's place; it replaces an older one."""
        self.connection.execute(delete(store_marks).where(store_marks.c.store == store))
        self.connection.execute(store_marks.insert().values(store=store, mark=mark))

    def hosts_at_work(self) -> set[str]:
        """The hosts of all processes that are registered, upload or hold an image open."""
        found: set[str] = set()
        for table in (processes, leases, uploads):
            found |= set(self.connection.execute(select(table.c.host).distinct()).scalars())
        return found
