"""What the benchmarks share: a catalog that is mounted, and the table of their results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon


@dataclass
class Table:
    """Results: what, ours, the other's, how many times ours is as good, the target."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, each: list[str], ratio: float, target: str = "") -> None:
        """Add a row, of ours and the other's figure, and print it."""
        ours, others = each
        row = (what, ours, others, f"{ratio:.2f}", target)
        self.rows.append(row)
        print("\n| " + " | ".join(row) + " |")  # noqa: T201

    def note(self, what: str, value: str, target: str = "") -> None:
        """Add a figure that is compared with nothing."""
        self.rows.append((what, value, "", "", target))
        print(f"\n| {what} | {value} | | | {target} |")  # noqa: T201


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """The table of the whole run, printed at its end."""
    table = Table()
    yield table
    heading = ("what", "imagefs", "other", "ratio", "target")
    rows = [heading, ("---",) * 5, *table.rows]
    print("\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))  # noqa: T201


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Daemon]:
    """An empty catalog that is mounted; what it has taken of the disk is given back."""
    with Daemon(tmp_path / "host").mounted() as daemon:
        yield daemon
    shutil.rmtree(tmp_path)
