"""The stores and the configuration."""

from __future__ import annotations

import json
from pathlib import Path

from tests.catalog.cli.command import Run


def test_stores(run: Run, image: str, tmp_path: Path) -> None:
    """Each store with its images and room, and why one does not answer."""
    found = {store["name"]: store for store in json.loads(run("store", "list", "--json").stdout)}
    assert set(found) == {"file", "other", "web"}
    assert (found["file"]["images"], found["file"]["default"]) == (1, True)
    assert found["web"]["free"] is None
    (tmp_path / "other").rename(tmp_path / "gone")
    found = {store["name"]: store for store in json.loads(run("store", "list", "--json").stdout)}
    assert found["other"]["message"]
    assert "fail  store other" in run("doctor", code=1).stdout


def test_shown_configuration_can_be_read_back(bare: Run, config: Path, tmp_path: Path) -> None:
    """What `config show` prints is a configuration, and the same one."""
    text = bare("config", "show").stdout
    described = json.loads(bare("config", "show", "--json").stdout)
    config.write_text(text)
    assert json.loads(bare("config", "show", "--json").stdout) == described
    assert bare("config", "check").stdout == f"{config}: ok\n"
