"""Sends an image to its store while it is still being written.

The reasons are in docs/adr/0019-sent-while-it-is-written.md.

Threading: one thread follows the writer and gives the store the bytes that probably do not change
any more, so that closing the file waits only for the end.  A write never waits for it.  A write to
bytes that were sent already, or a failure, ends the early sending.  Then the file is sent from its
beginning when it is complete, as it is for stores that cannot begin early.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from catalog.errors import CatalogError, IncompleteUpload
from catalog.stores.base import Capability, DataWriter, Store

_BEGIN = 64 << 20
"""Bytes that a file has before any are sent: a small file needs no thread and few requests."""
_STEP = 8 << 20
"""Bytes that have to be added before the store is offered more."""

_log = logging.getLogger(__name__)


class _State(Enum):
    """The states of early sending."""

    WAITING = auto()
    """The file is still too small."""
    SENDING = auto()
    ENDED = auto()
    """Nothing more is sent early.  The bytes sent so far, if any, are right."""
    VOID = auto()
    """The bytes sent so far are not those of the file any more, or nobody wants them."""


class Sender:
    """Sends one staged file to its store.  One writer at a time."""

    def __init__(
        self,
        store: Store,
        key: str,
        staged: Path,
        expected_size: Callable[[], int | None],
        *,
        begin: int = _BEGIN,
        step: int = _STEP,
    ) -> None:
        """`expected_size` is called when sending begins: bytes, or None if it is not known."""
        self._store = store
        self._key = key
        self._staged = staged
        self._expected_size = expected_size
        self._changed = threading.Condition()
        can_begin = Capability.GROWING in store.capabilities
        self._state = _State.WAITING if can_begin else _State.ENDED
        self._high = 0  # the end of all writes so far
        self._limit = 0  # bytes below may be sent
        self._step = step
        self._wanted = begin  # more is sent when the limit has come up to here
        self._sent = 0
        self._claimed = 0  # bytes below are sent, or may be before the store answers
        self._thread: threading.Thread | None = None
        self._writer: DataWriter | None = None

    def before_write(self, offset: int) -> None:
        """Note that the bytes from `offset` on are about to change."""
        with self._changed:
            self._limit = min(self._limit, offset)
            if offset < self._claimed:
                self._give_up()

    def after_write(self, end: int) -> None:
        """Note that a write up to `end` is done; a gap before it reads as zeros."""
        with self._changed:
            self._high = self._limit = max(self._high, end)
            if self._limit < self._wanted:
                return
            if self._state is _State.WAITING:
                self._state = _State.SENDING
                self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def truncate(self, size: int) -> None:
        """Note that the file is about to end at `size`."""
        self.before_write(size)
        self._high = min(self._high, size)

    def finish(self, size: int) -> None:
        """Send the rest of the complete file of `size` bytes.

        After a failure of early sending everything is sent again.  Raises what `Store.writer`
        and `DataWriter.take` raise.
        """
        self._end(_State.ENDED)
        if self._writer is not None:
            try:
                self._writer.take(self._staged)
                return
            except CatalogError as error:
                _log.info("%s: is sent again from its beginning: %s", self._key, error)
                self.drop()
        self._writer = self._store.writer(self._key, size)
        try:
            self._writer.take(self._staged)
        except CatalogError:
            self.drop()
            raise

    def commit(self) -> str:
        """Make the finished object durable and visible; return its url."""
        assert self._writer is not None
        return self._writer.commit()

    def drop(self) -> None:
        """Cancel everything that was sent, and send nothing more before `finish`.  Idempotent."""
        self._end(_State.VOID)
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None

    def _end(self, state: _State) -> None:
        """End the thread.  With VOID what it has sent is cancelled."""
        with self._changed:
            if self._state is not _State.VOID:
                self._state = state
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _give_up(self) -> None:
        with self._changed:
            self._state = _State.VOID
            self._changed.notify_all()

    def _check(self) -> None:
        """The check that the store calls before each block."""
        if self._state is _State.VOID:
            raise IncompleteUpload(self._key, "it is not to be sent as it was")

    def _run(self) -> None:
        writer: DataWriter | None = None
        try:
            writer = self._store.writer(self._key, self._expected_size())
            while ready := self._next():
                self._note(writer.send(self._staged, ready, self._check), ready)
            self._writer = writer
        except CatalogError as error:
            _log.info("%s: is sent when it is complete: %s", self._key, error)
        finally:
            if self._writer is None or self._state is _State.VOID:
                self._give_up()
                self._writer = None
                if writer is not None:
                    writer.cancel()

    def _next(self) -> int:
        """Wait until there is more to send; return its end, or 0 when early sending has ended."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._state is not _State.SENDING or self._limit >= self._wanted
            )
            if self._state is not _State.SENDING:
                return 0
            # Claimed before the store reads: a write below this makes what is sent void.
            self._claimed = self._limit
            return self._limit

    def _note(self, sent: int, offered: int) -> None:
        with self._changed:
            # If the store has sent nothing more, it is offered the bytes again when there are more.
            self._wanted = (sent if sent > self._sent else offered) + self._step
            self._sent = self._claimed = sent
