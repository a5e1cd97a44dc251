"""The log of one process, by the section `[log]`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import InvalidSettings
from catalog.service import configuration
from catalog.service.logs.service import ServiceLog
from catalog.settings import Settings

_STORES = '[stores.file]\ntype = "filesystem"\npath = "/nowhere"\n'


class _Configured:
    """A configuration that is changed, and the log of a process that follows it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "imagefs.toml"
        self.log = ServiceLog(self.read, {"mount": "/srv"})

    def write(self, text: str) -> None:
        self._path.write_text(f"[log]\n{text}\n{_STORES}")

    def read(self) -> Settings:
        return configuration.load(self._path)

    def open(self, text: str) -> None:
        self.write(text)
        self.log.open(self.read())


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[_Configured]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.setLevel(logging.WARNING)
    made = _Configured(tmp_path)
    yield made
    made.open("")
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def test_levels_of_modules(configured: _Configured, tmp_path: Path) -> None:
    """A module logs more than the rest, until the configuration is read without it."""
    file = tmp_path / "logs/imagefs.log"
    configured.open(f'file = "{file}"\nlevels = {{"catalog.stores" = "debug"}}')
    logging.getLogger("catalog.stores.s3").debug("first")
    logging.getLogger("catalog.tree").debug("second")
    logging.getLogger("catalog.tree").info("third")
    configured.write(f'file = "{file}"\nlevel = "warning"')
    configured.log.reload()
    logging.getLogger("catalog.stores.s3").debug("fourth")
    logging.getLogger("catalog.tree").info("fifth")
    logging.getLogger("catalog.tree").warning("sixth")
    configured.log.close()
    text = file.read_text()
    found = [word for word in "first second third fourth fifth sixth".split() if word in text]
    assert found == ["first", "third", "sixth"]


def test_a_rotated_file_is_opened_anew(configured: _Configured, tmp_path: Path) -> None:
    """What came before is in the old file, what comes after in the new one."""
    file, old = tmp_path / "imagefs.log", tmp_path / "imagefs.log.1"
    configured.open(f'file = "{file}"')
    logging.getLogger("x").info("before")
    file.rename(old)
    logging.getLogger("x").info("moved")
    configured.log.reload()
    logging.getLogger("x").info("after")
    configured.log.close()
    assert [word in old.read_text() for word in ("before", "moved", "after")] == [True, True, False]
    assert "after" in file.read_text()


@pytest.mark.parametrize("broken", ['level = "loud"', 'file = "/proc/none/log"', "levels = 3"])
def test_a_mistake_changes_nothing(configured: _Configured, tmp_path: Path, broken: str) -> None:
    """It is logged where lines went before."""
    file = tmp_path / "imagefs.log"
    configured.open(f'file = "{file}"')
    configured.write(broken)
    configured.log.reload()
    logging.getLogger("x").info("after")
    configured.write(f'file = "{file}"')
    configured.log.close()
    assert "the log's settings stay as they are" in file.read_text()
    assert "after" in file.read_text()


def test_a_file_that_cannot_be_opened_at_the_start(configured: _Configured) -> None:
    """The start fails, and says which."""
    with pytest.raises(InvalidSettings, match=r"log\.file: /proc/none/log"):
        configured.open('file = "/proc/none/log"')
