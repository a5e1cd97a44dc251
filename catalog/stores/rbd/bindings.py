"""Ceph's own Python bindings, which are installed outside of a virtual environment.

Safe from several threads.

`rados` and `rbd` are two extension modules that distributions build for their own Python; no
package index has them.  A virtual environment of the same Python version can load these two
files from the system's folder, and loads nothing else from there.
"""

from __future__ import annotations

import errno
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any

from catalog.errors import (
    CatalogError,
    Conflict,
    ImageTooLarge,
    InvalidSettings,
    ReadOnlyStore,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_SYSTEM = [
    "/usr/lib/python3/dist-packages",
    f"/usr/lib64/python{_VERSION}/site-packages",
    f"/usr/lib/python{_VERSION}/site-packages",
]
"""Where Debian and other distributions keep the modules of their Python."""

_CLASSES: dict[int, type[CatalogError]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EFBIG: ImageTooLarge,
    errno.EROFS: ReadOnlyStore,
    errno.EBUSY: Conflict,
    errno.EPERM: StoreRefused,
    errno.EACCES: StoreRefused,
}

_loading = threading.Lock()


def rados() -> Any:
    """The module `rados`.  Raises InvalidSettings if it is not installed."""
    return _module("rados")


def rbd() -> Any:
    """The module `rbd`.  Raises InvalidSettings if it is not installed."""
    rados()  # which it imports
    return _module("rbd")


def _module(name: str) -> Any:
    with _loading:
        found = sys.modules.get(name) or _load(name)
    if found is None:
        reason = f"needs Ceph's module {name!r} for Python {_VERSION}: apt install python3-rbd"
        raise InvalidSettings("a store of type rbd", reason)
    return found


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        spec = PathFinder.find_spec(name, _SYSTEM)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    # Registered before it is executed, as the import system does: `rbd` imports `rados`.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def ceph_errors(subject: str, missing: type[CatalogError] = StoreUnavailable) -> Iterator[None]:
    """Turn what the bindings raise into the catalog's errors.

    A missing image or object becomes `missing`.  Every error without a class of its own becomes
    StoreUnavailable.
    """
    try:
        yield
    except (rados().Error, rbd().Error) as error:
        raise ceph_error(subject, _number(error), str(error), missing) from error


def ceph_error(
    subject: str, number: int, text: str, missing: type[CatalogError] = StoreUnavailable
) -> CatalogError:
    """The catalog's error for an error of Ceph, by its errno."""
    if number == errno.ENOENT and missing is not StoreUnavailable:
        return missing(subject)
    if number == errno.ETIMEDOUT:
        return StoreUnavailable(subject, "the cluster did not answer in time")
    if number in (errno.EPERM, errno.EACCES):
        text += ": the user needs the capabilities 'profile rbd' of this pool"
    reason = re.sub(r"^\[errno \d+\] ", "", text)
    return _CLASSES.get(number, StoreUnavailable)(subject, reason)


def _number(error: Any) -> int:
    """The error's errno; 0 for the few classes that have none."""
    return abs(int(getattr(error, "errno", 0) or 0))
