"""docs/commands.md names every command and every exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from catalog.cli.console import exit_codes
from catalog.cli.program import imagefs

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text()
COMMANDS = imagefs.list_commands(click.Context(imagefs))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    """In the first column of a table, by itself or with what it takes."""
    assert re.search(rf"^\|[^|]*`{name}[ `]", PAGE, re.MULTILINE)


def test_every_exit_code_is_there() -> None:
    """With what it means."""
    codes = {
        value for name, value in vars(exit_codes).items() if name.isupper() and name != "EXIT_CODES"
    }
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes <= told


def test_every_option_of_add_is_there() -> None:
    """A user's first question."""
    command = imagefs.get_command(click.Context(imagefs), "add")
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    for option in options - {"--json"}:
        assert not option.startswith("--") or f"`{option}" in PAGE
