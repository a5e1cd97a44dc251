"""The streams and the locale that a command is started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.cli.program import imagefs as program
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from tests.kit.catalog import new_catalog, put
from tests.kit.configuration import configure

pytestmark = pytest.mark.stress


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A catalog with one image, whose name is not ASCII."""
    path = configure(tmp_path)
    catalog = new_catalog(load(path))
    put(Vfs(catalog), "/file/größe", b"data")
    catalog.close()
    return path


def ended(config: Path, shell: str, *arguments: str, **environ: str) -> tuple[int, bytes]:
    """The exit code and stderr of a command with streams as a shell is told."""
    command = (sys.executable, "-m", "catalog.cli", "--config", str(config), *arguments)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", *command],
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
        check=False,
    )
    return done.returncode, done.stderr


def test_without_standard_output(config: Path) -> None:
    """One line and a code, and no other file has its number."""
    code, told = ended(config, ">&-", "list")
    assert code == 1
    assert told.startswith(b"imagefs: ")
    assert told.count(b"\n") == 1


def test_nothing_is_added_from_a_closed_standard_input(config: Path) -> None:
    """An empty image would look like a success."""
    code, told = ended(config, "<&-", "add", "-", "--name", "nothing")
    assert code == 1
    assert told.count(b"\n") == 1
    catalog = open_catalog(load(config))
    with catalog.read() as repository:
        assert repository.count_locations("file") == 1
    catalog.close()


def test_without_any_stream_an_image_is_whole(config: Path, tmp_path: Path) -> None:
    """What would be told goes nowhere, not into the data."""
    (tmp_path / "disk").write_bytes(b"x" * 4096)
    ended(config, "<&- >&- 2>&-", "-vv", "add", str(tmp_path / "disk"), "--name", "a")
    listed = CliRunner().invoke(program, ["--config", str(config), "verify", "/file/a", "--json"])
    assert [each["verdict"] for each in json.loads(listed.stdout)] == ["intact"]


def test_names_are_utf8_in_every_locale(config: Path, tmp_path: Path) -> None:
    """As arguments and in what is printed."""
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    output = tmp_path / "output"
    assert ended(config, f">{output}", "show", "/file/größe", **old) == (0, b"")
    assert "größe" in output.read_text()
    assert ended(config, f">{output}", "list", PYTHONIOENCODING="ascii") == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["set", "/file/größe", "tags=\udcff"],
        ["set", "/file/größe", "\udcff=value"],
        ["set", "/file/größe", "colour=\udcff"],
        ["tag", "/file/größe", "\udcff"],
        ["list", "--tag", "\udcff"],
        ["list", "--property", "colour=\udcff"],
        ["user", "add", "alice"],
    ],
)
def test_text_that_is_not_utf8(
    config: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says so; a password is read from standard input."""
    monkeypatch.setattr("catalog.cli.users._password", lambda: "pass\udcffword")
    result = CliRunner().invoke(program, ["--config", str(config), *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith("imagefs: ")
    assert result.stderr.count("\n") == 1
