"""`NAME=VALUE` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Each `NAME=VALUE` of an argument; a later one counts.  Raises click.BadParameter."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        found[name] = value
    return found


def property_option(purpose: str) -> Callable[[Any], Any]:
    """The option `--property NAME=VALUE`, given as often as needed, as a dictionary."""
    return click.option(
        "--property",
        "properties",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda _context, _option, texts: parse(texts),
        help=purpose,
    )
