"""What one request has seen of the tree: each path is looked at once, those it names together.

wsgidav asks for the same few paths again and again.  What is decided by what was seen is decided
anew by whatever changes the tree, in its own transaction.  Threading: the request's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from catalog.locks import Held
from catalog.model.access import Principal
from catalog.tree.namespace import Spot
from catalog.tree.vfs import Vfs
from dav.environ import Environ

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
        """All `paths` are looked at together, at the first question; as by `Namespace.look`."""
        self._vfs = vfs
        self._principal = principal
        self._paths = {_normal(path) for path in paths}
        self._data = data
        self._deep = {_normal(path) for path in deep}
        self._spots: dict[str, Spot] = {}

    def spot(self, path: str) -> Spot:
        """What is at a path."""
        wanted = _normal(path)
        if wanted not in self._spots:
            missing = [wanted, *(self._paths - self._spots.keys() - {wanted})]
            spots = self._vfs.look(missing, self._principal, data=self._data, deep=self._deep)
            self._spots.update(zip(missing, spots, strict=True))
        return self._spots[wanted]

    def held(self, path: str, *, below: bool) -> Held:
        """The locks over a path, and with `below` those under it."""
        held = self.spot(path).held
        if below and held.below is None:
            self._deep.add(_normal(path))
            del self._spots[_normal(path)]
            held = self.spot(path).held
        return held

    def forget(self) -> None:
        """Look again: what was seen is too long ago."""
        self._spots.clear()


def keep(environ: Environ, view: View) -> None:
    """Let `view` be what the request sees."""
    environ[_KEY] = view


def view_of(environ: dict[str, Any]) -> View:
    """What the request sees."""
    view: View = environ[_KEY]
    return view


def _normal(path: str) -> str:
    return "/" + path.strip("/")
