"""A close(2) during which something fails that nobody foresaw."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import field, status

BROKEN = """
from catalog.formats import gate

def broken(path, declared):
    raise UnicodeDecodeError("utf-8", bytes(1), 0, 1, "invalid start byte")

gate.inspect_file = broken
from catalog.cli import main
main()
"""


@pytest.fixture
def own(daemon: Callable[..., Daemon]) -> Daemon:
    """A mount that cannot look into any file."""
    made = daemon()
    made.start(sys.executable, "-c", BROKEN)
    return made


@pytest.mark.parametrize("name", ["a", "a.part"])
def test_the_image_is_killed_at_once(own: Daemon, name: str) -> None:
    """The writer gets EIO, the image its reason, the log one line and its trace."""
    path = own.path / "file" / name
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        path.write_bytes(b"data")
    assert caught.value.errno == errno.EIO
    assert status(path) == "killed"
    assert "UnicodeDecodeError: 'utf-8' codec" in field(path, "message")
    assert own.log.read_text().count("flush failed unexpectedly") == 1
    assert own.staged() == []
    path.unlink()
    assert own.stop() == 0


def test_so_is_what_the_command_adds(own: Daemon, tmp_path: Path) -> None:
    """Nothing of it stays."""
    (tmp_path / "a").write_bytes(b"data")
    command = (sys.executable, "-c", BROKEN, "--config", str(own.config), "add")
    result = subprocess.run([*command, tmp_path / "a"], check=False, capture_output=True)
    assert result.returncode != 0
    assert b"UnicodeDecodeError" in result.stderr
    assert os.listdir(own.path / "file") == []
    assert own.staged() == []
