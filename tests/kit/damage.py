"""Damage to an image's data, behind the catalog's back."""

from __future__ import annotations

from pathlib import Path

from catalog.catalog import Catalog
from catalog.model.image import Image


def stored(catalog: Catalog, image: Image, store: str) -> Path:
    """The file that holds the image's data in a file store."""
    reader = catalog.store(store).open(catalog.store(store).url_of(image.id))
    fd = reader.fileno()
    assert fd is not None
    path = Path(f"/proc/self/fd/{fd}").readlink()
    reader.close()
    return path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Damage a file in place."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
