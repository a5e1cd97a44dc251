"""Why this thread does what it does: whose request it is, of which frontend, about which image.

A frontend begins a cause for each request, the command one for its run.  Whoever learns more notes
it: the principal, the image, the store.  Log lines name the cause.  It is kept in a context
variable, which trio passes on to the threads of a request.  Threading: any; the threads of one
request share one cause.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Cause:
    """One request, command or job; what is not known is empty."""

    frontend: str
    """`mount`, `dav` or `command`; empty for work that nobody has asked for."""
    request: str | int = ""
    """Its id; a number is formatted only when a line is written."""
    principal: str = ""
    image: str = ""
    """The image's id."""
    store: str = ""
    """The name of the store; several are separated by commas."""


_NOBODY = Cause("")
_current: ContextVar[Cause] = ContextVar("cause", default=_NOBODY)


def begin(frontend: str, request: str | int = "", principal: str = "") -> Cause:
    """Begin a cause; it holds for this context until the next one begins."""
    begun = Cause(frontend, request, principal)
    _current.set(begun)
    return begun


def current() -> Cause:
    """The cause of what this thread does; an empty one if none has begun."""
    return _current.get()


def note(principal: str = "", image: str = "", store: str = "") -> None:
    """Add to the present cause what has become known of it; without a cause do nothing."""
    cause = _current.get()
    if cause is _NOBODY:
        return
    if principal:
        cause.principal = principal
    if image:
        cause.image = image
    if store:
        cause.store = store
