"""Failures of the operating system, as errors of the catalog."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from catalog.errors import (
    CatalogError,
    ImageTooLarge,
    ReadOnlyStore,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

_CLASSES: dict[int, type[CatalogError]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EFBIG: ImageTooLarge,
    errno.EROFS: ReadOnlyStore,
    errno.EPERM: StoreRefused,
    errno.EACCES: StoreRefused,
}


@contextmanager
def os_errors(subject: str, missing: type[CatalogError] = StoreUnavailable) -> Iterator[None]:
    """Turn OSError into the catalog's errors; a missing file becomes `missing`.

    Every errno without a class of its own (EIO, ESTALE, ENODEV, …) becomes StoreUnavailable.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise missing(subject) from error
    except OSError as error:
        found = _CLASSES.get(error.errno or 0, StoreUnavailable)
        raise found(subject, error.strerror or str(error)) from error
