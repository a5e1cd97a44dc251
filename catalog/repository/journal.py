"""Uploads in progress, leases of open images, the history of images, and the change feed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select, update

from catalog.model.activity import Change, ChangeKind, Event, EventKind, UploadRecord, Use, Version
from catalog.process import Process
from catalog.repository.rows import RowCheck, Rows, going_on, is_of, values_of
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import changes, history, images, last_uses, leases, uploads

_check_upload = RowCheck(*uploads.c)
_check_change = RowCheck(*changes.c)
_check_event = RowCheck(*history.c)


_UPLOAD = Prepared(select(uploads).where(uploads.c.image == bindparam("image")))
_ADD_UPLOAD = Prepared(uploads.insert(), columns=uploads.c.keys())
_DROP_UPLOAD = Prepared(delete(uploads).where(uploads.c.image == bindparam("image")))
_USES = Prepared(select(leases).where(leases.c.image == bindparam("image")))
_LAST_CHANGE = Prepared(select(func.max(changes.c.number)))
_VERSION = Prepared(select(func.count(), func.max(changes.c.number)).select_from(changes))
_CHANGES = Prepared(
    select(changes)
    .where(changes.c.number > bindparam("after"))
    .order_by(changes.c.number)
    .limit(bindparam("limit"))
)


def _make_upload(row: Any) -> UploadRecord:
    _check_upload(row)
    image, host, boot, pid, started, staged, started_at, heartbeat_at = row
    process = Process(host, boot, pid, started)
    return UploadRecord(image, process, staged, started_at, heartbeat_at)


def _make_change(row: Any) -> Change:
    _check_change(row)
    number, kind, folder, name, image, origin, at = row
    return Change(number, ChangeKind(kind), folder, name, image, origin, at)


def _make_event(row: Any) -> Event:
    _check_event(row)
    number, at, image, _image_id, host, frontend, principal, kind, detail = row
    return Event(number, at, image, host, frontend, principal, EventKind(kind), json.loads(detail))


def _users_to_text(users: Sequence[Use]) -> str | None:
    told = [(use.user, use.since.isoformat()) for use in users[:_MAX_USERS]]
    return json.dumps(told) if told else None


def _make_uses(row: Any) -> list[Use]:
    _image, host, boot, pid, started, heartbeat_at, users = row
    process = Process(host, boot, pid, started)
    told = json.loads(users) if users else [("", heartbeat_at.isoformat())]
    return [Use(process, user, datetime.fromisoformat(at), heartbeat_at) for user, at in told]


_PAGE = 1000
_MAX_VALUES = 500
_MAX_USERS = 100
"""Users of one image that one process publishes."""


class JournalRows(Rows):
    """Statements on `uploads`, `leases`, `history` and `changes`."""

    # -- uploads -----------------------------------------------------------------------

    def add_upload(self, record: UploadRecord) -> None:
        """Add the row of an upload; it replaces an older row of the same image."""
        self.drop_upload(record.image)
        _ADD_UPLOAD.change(
            self.connection,
            image=record.image,
            **values_of(record.process),
            staged=record.staged,
            started_at=record.started_at,
            heartbeat_at=record.heartbeat_at,
        )

    def upload(self, image: int) -> UploadRecord | None:
        """The upload in progress on that image, or None."""
        row = _UPLOAD.row(self.connection, image=image)
        return None if row is None else _make_upload(row)

    def uploads(self) -> list[UploadRecord]:
        """Every upload in progress, on every host."""
        return [_make_upload(row) for row in self.connection.execute(select(uploads))]

    def beat_uploads(self, process: Process, at: datetime) -> None:
        """Note that the process still works on its uploads."""
        self.connection.execute(
            update(uploads).where(is_of(uploads, process)).values(heartbeat_at=at)
        )

    def drop_upload(self, image: int) -> None:
        """Forget the upload of an image."""
        _DROP_UPLOAD.change(self.connection, image=image)

    # -- leases ------------------------------------------------------------------------

    def set_leases(
        self,
        process: Process,
        held: Iterable[int],
        at: datetime,
        users: Mapping[int, Sequence[Use]] = MappingProxyType({}),
    ) -> None:
        """Publish the images that a process holds open now, and for whom.

        The leases that it published before are replaced.
        """
        self.connection.execute(delete(leases).where(is_of(leases, process)))
        rows = [
            {
                "image": image,
                **values_of(process),
                "heartbeat_at": at,
                "users": _users_to_text(users.get(image, ())),
            }
            for image in held
        ]
        if rows:
            self.connection.execute(leases.insert(), rows)

    def leases(self, image: int) -> list[tuple[Process, datetime]]:
        """The processes that hold the image open, each with the time of its last heartbeat."""
        rows = self.connection.execute(select(leases).where(leases.c.image == image))
        return [(Process(*row[1:5]), row[5]) for row in rows]

    def uses(self, image: int) -> list[Use]:
        """Every program that has the image open, as published by mounts and servers."""
        rows = _USES.rows(self.connection, image=image)
        return [use for row in rows for use in _make_uses(row)]

    def all_uses(self) -> dict[int, list[Use]]:
        """Every program that has an image open, by the image's number."""
        found: dict[int, list[Use]] = {}
        for row in self.connection.execute(select(leases).order_by(leases.c.image)):
            found.setdefault(row.image, []).extend(_make_uses(row))
        return found

    def used_at(self, image: int) -> datetime | None:
        """When the image was last known to be in use; None if it never was."""
        statement = select(last_uses.c.at).where(last_uses.c.image == image)
        return self.connection.execute(statement).scalar()

    def set_used(self, numbers: Collection[int], at: datetime) -> None:
        """Note that these images were in use."""
        every = sorted(numbers)
        # The number of values in a statement is limited, and a mount may have read all images.
        for first in range(0, len(every), _MAX_VALUES):
            some = every[first : first + _MAX_VALUES]
            # Some images may be gone: a row for them would violate the foreign key.
            found = select(images.c.number).where(images.c.number.in_(some))
            rows = [{"image": n, "at": at} for n in self.connection.execute(found).scalars()]
            self.connection.execute(delete(last_uses).where(last_uses.c.image.in_(some)))
            if rows:
                self.connection.execute(last_uses.insert(), rows)

    def drop_leases(self, process: Process) -> None:
        """Forget all leases of a process."""
        self.connection.execute(delete(leases).where(is_of(leases, process)))

    def lease_holders(self) -> list[tuple[Process, datetime]]:
        """Every process that has a lease, with its newest heartbeat."""
        key = (leases.c.host, leases.c.boot, leases.c.pid, leases.c.started)
        rows = self.connection.execute(select(*key, func.max(leases.c.heartbeat_at)).group_by(*key))
        return [(Process(*row[:4]), row[4]) for row in rows]

    # -- the history of images ---------------------------------------------------------

    def history(self, image: int, after: int, limit: int = 500) -> list[Event]:
        """Up to `limit` events of an image with a number above `after`, oldest first."""
        statement = select(history).where(history.c.image == image, history.c.number > after)
        rows = self.connection.execute(statement.order_by(history.c.number).limit(limit))
        found = [_make_event(row) for row in rows]
        if found:
            going_on(after, found[-1].number)
        return found

    def number_in_history(self, image_id: str) -> int | None:
        """The number of an image whose row may be gone; None if its history is, too."""
        statement = select(history.c.image).where(history.c.image_id == image_id).limit(1)
        return self.connection.execute(statement).scalar()

    def trim_history(self, before: datetime) -> int:
        """Drop events older than `before`; return their number."""
        dropped = 0
        while True:
            # They are read from the oldest one, which takes no index on their times.
            oldest = select(history.c.number, history.c.at).order_by(history.c.number)
            page = self.connection.execute(oldest.limit(_PAGE)).all()
            old = [number for number, at in page if at < before]
            if old:
                self.connection.execute(delete(history).where(history.c.number <= old[-1]))
            dropped += len(old)
            if len(old) < _PAGE:
                return dropped

    # -- the change feed ---------------------------------------------------------------

    def last_change(self) -> int:
        """The number of the newest change; 0 when there is none."""
        (number,) = _LAST_CHANGE.row(self.connection)
        return number or 0

    def version(self) -> Version:
        """The number of kept changes and the number of the newest; two states never have the same.

        The newest number alone is not enough: of two transactions, the one with the greater
        number may be committed first.
        """
        count, number = _VERSION.row(self.connection)
        return count, number or 0

    def changes(self, after: int, limit: int) -> list[Change]:
        """Up to `limit` changes with a number above `after`, oldest first."""
        rows = _CHANGES.rows(self.connection, after=after, limit=limit)
        found = [_make_change(row) for row in rows]
        if found:
            going_on(after, found[-1].number)
        return found

    def trim_changes(self, before: datetime) -> int:
        """Drop changes older than `before`, except the newest one; return their number."""
        old = and_(changes.c.at < before, changes.c.number < self.last_change())
        return self.connection.execute(delete(changes).where(old)).rowcount
