"""Whether this process and what it depends on are well, noted in the background.

A database or a store may hang, and nobody who asks for the health may hang with it.  So each is
asked by a thread of its own, again and again; whoever wants to know gets what was noted last.
Threading: any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from catalog.errors import CatalogError
from catalog.stores.base import Store, Usage
from catalog.tree.vfs import Vfs

Value = TypeVar("Value")

DATABASE_INTERVAL = 5.0
"""Seconds between two questions to the database."""
STORE_INTERVAL = 15.0
"""The same for each store; a remote one may be billed by the request."""
_COUNT_INTERVAL = 60.0
"""The same for the images by status: the database counts all of them."""
_UPLOADS_INTERVAL = 1.0
_LATE = 10.0
"""Seconds after which what has not answered is taken to be down."""
_STUCK = 15.0
"""Seconds after which a loop that has not turned is taken to hang."""
_STOP = 1.0


class Pulse:
    """The sign of life of a loop that answers requests."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Note that the loop turns."""
        self._at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._at < _STUCK


@dataclass(frozen=True, slots=True)
class Noted(Generic[Value]):
    """What is known of something that is asked again and again."""

    reason: str
    """Why it is not well; empty if it is."""
    seconds: float
    """How long its last answer took, or for how long it has not answered by now."""
    value: Value | None
    """Its last answer; None if there has been none yet."""

    @property
    def is_well(self) -> bool:
        """Whether it has answered, and in time."""
        return not self.reason


class Probe(Generic[Value]):
    """A thread that asks again and again, and the last answer."""

    def __init__(self, name: str, ask: Callable[[], Value], interval: float) -> None:
        self.name = name
        self._ask = ask
        self._interval = interval
        self._noted: Noted[Value] = Noted("not asked yet", 0, None)
        self._asked_at: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{name}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a thread that hangs is left behind."""
        self._stopped.set()
        self._thread.join(_STOP)

    def noted(self) -> Noted[Value]:
        """What is known now, without waiting."""
        noted, asked_at = self._noted, self._asked_at
        waited = 0.0 if asked_at is None else time.monotonic() - asked_at
        if waited > _LATE:
            return Noted(f"no answer for {waited:.0f} s", waited, noted.value)
        return noted

    def _run(self) -> None:
        while not self._stopped.is_set():
            begun = self._asked_at = time.monotonic()
            value, reason = self._noted.value, ""
            try:
                value = self._ask()
            except CatalogError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not well
                reason = f"{type(error).__name__}: {error}"
            self._noted = Noted(reason, time.monotonic() - begun, value)
            self._asked_at = None
            self._stopped.wait(self._interval)


@dataclass(frozen=True, slots=True)
class Working:
    """The uploads in progress in this process."""

    count: int
    oldest: float
    """Seconds since the oldest one began; 0 without any."""


class Health:
    """What a serving process depends on, and what it is busy with."""

    def __init__(self, vfs: Vfs, pulse: Pulse) -> None:
        """`pulse` is the one of the loop that answers requests."""
        catalog = vfs.catalog
        self.catalog = catalog
        self._pulse = pulse
        self.database = Probe("database", catalog.last_change, DATABASE_INTERVAL)
        self.images: Probe[Mapping[str, int]] = Probe(
            "images", catalog.images_by_status, _COUNT_INTERVAL
        )
        self.uploads = Probe("uploads", lambda: _working(vfs), _UPLOADS_INTERVAL)
        self.stores = {name: _probe_of(store) for name, store in catalog.stores.items()}

    def start(self) -> None:
        """Begin to ask all of them."""
        for probe in self._probes():
            probe.start()

    def stop(self) -> None:
        """Ask no more."""
        for probe in self._probes():
            probe.stop()

    @property
    def is_alive(self) -> bool:
        """Whether the process answers requests, whatever the answers are."""
        return self._pulse.is_alive

    def missing(self) -> dict[str, str]:
        """What the process cannot do its work without and is not well -> the reason."""
        default = self.catalog.settings.default_store
        needed: dict[str, Noted[Any]] = {
            "database": self.database.noted(),
            default: self.stores[default].noted(),
        }
        found = {name: noted.reason for name, noted in needed.items() if not noted.is_well}
        if not self.is_alive:
            found["loop"] = "does not turn"
        return found

    def _probes(self) -> Iterator[Probe[Any]]:
        yield self.database
        yield self.images
        yield self.uploads
        yield from self.stores.values()


def _working(vfs: Vfs) -> Working:
    ages = [time.monotonic() - upload.begun_at for upload in vfs.uploads]
    return Working(len(ages), max(ages, default=0.0))


def _probe_of(store: Store) -> Probe[Usage]:
    def ask() -> Usage:
        store.check()
        return store.usage()

    return Probe(store.name, ask, STORE_INTERVAL)
