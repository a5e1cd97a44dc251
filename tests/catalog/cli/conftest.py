"""A catalog of its own for each test, and the command on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, Run, runner
from tests.kit.catalog import new_catalog
from tests.kit.configuration import configure


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two file stores and one of the web."""
    return configure(tmp_path, catalog="scrub_time = 3600")


@pytest.fixture
def bare(config: Path) -> Run:
    """Runs the command with that configuration, before `init`."""
    return runner(config)


@pytest.fixture
def run(bare: Run, config: Path) -> Run:
    """Runs the command on a catalog that has been made."""
    new_catalog(load(config)).close()
    return bare


@pytest.fixture
def image(run: Run) -> str:
    """The id of the image /file/a, which holds DATA."""
    added = run("add", "-", "--name", "a", "--json", stdin=DATA)
    return str(json.loads(added.stdout)["id"])


@pytest.fixture
def vfs(config: Path, run: Run) -> Iterator[Vfs]:
    """The tree, as another process sees it."""
    vfs = Vfs(open_catalog(load(config)))
    yield vfs
    vfs.catalog.close()
