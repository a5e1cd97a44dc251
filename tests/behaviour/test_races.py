"""Two hosts race on one catalog: one winner, one clear error, and nothing out of order.

Each host is a process with a catalog of its own; both begin each round at the same moment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import settings_at
from tests.servers.databases import STARTS, home

ROUNDS = int(os.environ.get("IMAGEFS_RACES", "25"))
"""Rounds of each kind of race."""

WORKER = [sys.executable, "-m", "tests.behaviour.racer"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", *sorted(STARTS)])
def raced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A catalog on each kind of database."""
    kind = str(request.param)
    if kind == "sqlite":
        yield settings_at(tmp_path, url=f"sqlite:///{tmp_path / 'catalog.db'}")
        return
    with home() as folder, STARTS[kind](folder / "server") as server:
        yield settings_at(tmp_path, url=server.database("catalog"))


@pytest.mark.server
@pytest.mark.sqlite
@pytest.mark.timeout(0)
def test_two_hosts_race(raced: Settings, tmp_path: Path) -> None:
    """Whatever both do to one name at once, the tree is as if one had come after the other."""
    make_catalog(raced).close()
    arguments = [str(raced.catalog.url), str(tmp_path), str(ROUNDS)]
    racers = [
        subprocess.Popen(
            [*WORKER, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for name in ("left", "right")
    ]
    kinds: dict[str, int] = {}
    while True:
        lines = [_answer(racer) for racer in racers]
        if lines[0]["race"] == "end":
            break
        first, second = lines
        assert first["race"] == second["race"]
        if first["outcome"]:
            kinds[first["race"]] = kinds.get(first["race"], 0) + 1
            # Every outcome is a success or one of the errors that a user understands.
            assert {first["outcome"], second["outcome"]} <= {"won", *first["may"]}, lines
        if first["one"]:
            assert [first["outcome"], second["outcome"]].count("won") == 1, lines
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    assert set(kinds.values()) == {ROUNDS}
    assert len(kinds) == 6
    catalog = open_catalog(raced)
    assert list(fsck(catalog, repair=False)) == []
    catalog.close()


def _answer(racer: subprocess.Popen[str]) -> dict[str, Any]:
    assert racer.stdout is not None
    line = racer.stdout.readline()
    assert line, "a racer has ended"
    answer: dict[str, Any] = json.loads(line)
    return answer
