"""The command on a catalog of its own, run in this process, and what tests ask it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from catalog.tree.vfs import Vfs
from tests.kit.damage import overwrite, stored

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()

OF_SEVERAL = ("deactivate", "reactivate", "delete", "verify")
"""Commands that tell one line for each of their arguments."""

Run = Callable[..., Result]


def runner(config: Path) -> Run:
    """Runs the command with that configuration; it must end with `code`."""

    def run(*arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        lines = result.stderr.splitlines()
        assert all(line.startswith("imagefs: ") for line in lines)
        assert len(lines) <= 1 or arguments[0] in OF_SEVERAL
        return result

    return run


def shown(run: Run, argument: str) -> dict[str, Any]:
    """What `show --json` tells."""
    found: dict[str, Any] = json.loads(run("show", "--json", argument).stdout)
    return found


def paths(run: Run, *arguments: str) -> list[str]:
    """The paths `list --json` tells."""
    return [found["path"] for found in json.loads(run("list", "--json", *arguments).stdout)]


def process(config: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "catalog.cli", "--config", str(config), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


def damage(vfs: Vfs, image: str) -> None:
    """Overwrite some of an image's data."""
    with vfs.catalog.read() as repository:
        found = repository.image_by_id(image)
    overwrite(stored(vfs.catalog, found, "file"), 7, b"damage")
