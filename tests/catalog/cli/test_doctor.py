"""What a host lacks."""

from __future__ import annotations

from tests.catalog.cli.command import Run


def test_doctor_tells_what_is_missing(bare: Run) -> None:
    """Without a catalog it says so, and goes on with the rest."""
    result = bare("doctor", code=1)
    assert "run 'imagefs init'" in result.stdout
    assert "/dev/fuse" in result.stdout
