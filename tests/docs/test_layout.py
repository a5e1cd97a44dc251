"""The layout of docs/architecture.md, in numbers: `python -m tests.layout` shows them all."""

from __future__ import annotations

import pytest

from tests.layout import (
    MAX_FLOORS,
    PACKAGES,
    circle,
    crowded_rooms,
    floors,
    imported_test_files,
    long_files,
    long_functions,
)


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_files_are_short(folder: str) -> None:
    """Nobody has to scroll through more."""
    assert long_files(folder) == []


def test_functions_are_short() -> None:
    """Each does one thing."""
    assert long_functions(*PACKAGES) == []


def test_rooms_are_small() -> None:
    """What belongs together is seen at one look."""
    assert crowded_rooms(*PACKAGES) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Each can be understood without who imports it."""
    assert circle() == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_house_is_low(package: str) -> None:
    """From the top of a package to its ground are so many steps at most."""
    assert 0 < len(floors(package)) <= MAX_FLOORS


def test_no_test_imports_another_tests_file() -> None:
    """What two need is in tests/kit/."""
    assert imported_test_files() == []
