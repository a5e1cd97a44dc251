"""`imagefs dump` and `load`, as commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.cli.command import Run, paths, runner
from tests.kit.configuration import configure

pytestmark = pytest.mark.sqlite


def test_from_one_catalog_to_another(run: Run, image: str, tmp_path: Path) -> None:
    """By way of a file, which only its owner reads, or of a pipe."""
    file = tmp_path / "dump"
    assert "rows are written" in run("dump", str(file)).stderr
    assert file.stat().st_mode & 0o777 == 0o600
    piped = run("dump", "-").stdout_bytes
    assert piped.count(b"\n") == file.read_bytes().count(b"\n")
    for name, source, stdin in (("from file", str(file), None), ("from pipe", "-", piped)):
        (tmp_path / name).mkdir()
        other = runner(configure(tmp_path / name))
        assert "rows are loaded" in other("load", source, stdin=stdin).stderr
        assert paths(other) == paths(run) == ["/file/a"]
        other("load", str(file), code=1)


def test_a_dump_that_fails_leaves_no_file(bare: Run, tmp_path: Path) -> None:
    """Neither under its name nor beside it."""
    bare("dump", str(tmp_path / "dump"), code=10)
    assert list(tmp_path.glob("dump*")) == []
