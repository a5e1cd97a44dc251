"""docs/semantics.md: each example is run, and its tables are those of the program."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.model.status import Status
from imagefs.errors import ERRNO
from tests.docs import console
from tests.servers.programs import free_ports
from tests.servers.scripted import nginx

PAGE = Path(__file__).parents[2] / "docs/semantics.md"
FOLDER = "/srv/imagefs"
"""Where the page says that everything lies."""
LISTEN = "127.0.0.1:8080"
"""Where the page's server listens; here anywhere."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can enter too; what is mounted in it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="imagefs-docs-") as name:
        Path(name).chmod(0o755)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", f"{name}/mnt"], check=False, capture_output=True)


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="the page's commands are root's")
def test_examples(folder: Path, tmp_path: Path) -> None:
    """Every command prints what the page says it prints."""
    page = PAGE.read_text().replace(FOLDER, str(folder))
    page = page.replace(LISTEN, f"127.0.0.1:{free_ports(1)[0]}")
    (configuration,) = re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)
    (folder / "imagefs.toml").write_text(configuration)
    with nginx(tmp_path) as mirror:
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "IMAGEFS_CONFIG": str(folder / "imagefs.toml"),
            "IMAGEFS_STATE": str(folder),
            "MIRROR": mirror.url,
            "MIRROR_FOLDER": str(mirror.root),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        console.check(page, folder, environ)


def test_every_errno_is_explained() -> None:
    """The table of errors has each errno that a catalog error becomes, and no other."""
    section = PAGE.read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`E[^|]+) \|", section, re.M)
    explained = set(re.findall(r"`(E[A-Z]+)`", " ".join(first_cells)))
    assert explained == {errno.errorcode[number] for number in ERRNO.values()} | {"ENODATA"}


def test_every_status_is_explained() -> None:
    """The table of statuses has each status that an image can be seen in."""
    section = PAGE.read_text().partition("\n## Statuses\n")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `([a-z_]+)`", section, re.M))
    assert explained == set(Status) - {Status.UPLOADING, Status.IMPORTING, Status.DELETED}
