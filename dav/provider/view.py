"""One request's view of the tree: each path is looked up once, and those it names together.

wsgidav asks for the same few paths again and again.  The view can be out of date, so an operation
that changes the tree makes its decisions again, in its own transaction.  Threading: the request's
thread.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from catalog import cause
from catalog.model.access import Principal
from catalog.model.tree import Entry
from catalog.rules.locks import Held
from catalog.tree.namespace import Spot
from catalog.tree.vfs import Vfs
from web.exchange.environ import Environ

_KEY = "imagefs.view"


class View:
    """The tree as one request sees it."""

    def __init__(
        self,
        vfs: Vfs,
        principal: Principal,
        paths: Collection[str],
        *,
        data: bool = False,
        deep: Collection[str] = (),
    ) -> None:
        """All `paths` are looked up together when the first one is needed, by `Namespace.look`."""
        self._vfs = vfs
        self._principal = principal
        self._paths = {_normal(path) for path in paths}
        self._data = data
        self._deep = {_normal(path) for path in deep}
        self._spots: dict[str, Spot] = {}

    def spot(self, path: str) -> Spot:
        """What was found at a path."""
        wanted = _normal(path)
        if wanted not in self._spots:
            missing = [wanted, *(self._paths - self._spots.keys() - {wanted})]
            spots = self._vfs.look(missing, self._principal, data=self._data, deep=self._deep)
            self._spots.update(zip(missing, spots, strict=True))
            if isinstance(found := spots[0].found, Entry):
                cause.note(image=found.image.id, store=found.store)
        return self._spots[wanted]

    def held(self, path: str, *, below: bool) -> Held:
        """The locks that apply to a path; with `below`, also those under it."""
        held = self.spot(path).held
        if below and held.below is None:
            self._deep.add(_normal(path))
            del self._spots[_normal(path)]
            held = self.spot(path).held
        return held

    def forget(self) -> None:
        """Drop what was found, so that it is looked up again: it may be out of date."""
        self._spots.clear()


def keep(environ: Environ, view: View) -> None:
    """Make `view` the request's view."""
    environ[_KEY] = view


def view_of(environ: dict[str, Any]) -> View:
    """The request's view."""
    view: View = environ[_KEY]
    return view


def _normal(path: str) -> str:
    return "/" + path.strip("/")
