"""Every error of the catalog has an errno."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from catalog.errors import CatalogError, Conflict, Deactivated, NotFound
from imagefs.errors import ERRNO, to_errno


def _tree(kind: type[CatalogError]) -> Iterator[type[CatalogError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("kind", list(_tree(CatalogError)), ids=lambda kind: kind.__name__)
def test_every_class_has_its_own_entry(kind: type[CatalogError]) -> None:
    """Whoever adds a class decides what programs are told."""
    assert ERRNO[kind] in errno.errorcode


def test_an_unknown_class_is_answered_as_its_parent() -> None:
    """So that nothing but an errno leaves a handler."""

    class Unknown(NotFound):
        summary = "of a driver from elsewhere"

    assert to_errno(Unknown("a")) == errno.ENOENT
    assert to_errno(Conflict("a")) == errno.EBUSY
    assert to_errno(Deactivated("a")) == errno.EACCES
