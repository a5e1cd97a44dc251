"""`NAME=VALUE` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from catalog.model.image import Visibility


def parse(texts: Sequence[str]) -> dict[str, str]:
    """The values of arguments `NAME=VALUE`; if a name comes twice, the later one counts.

    Raises click.BadParameter.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        found[name] = value
    return found


def property_option(purpose: str) -> Callable[[Any], Any]:
    """The option `--property NAME=VALUE`, which can be repeated, as a dictionary."""
    return click.option(
        "--property",
        "properties",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda _context, _option, texts: parse(texts),
        help=purpose,
    )


_FIELD_OPTIONS = (
    click.option(
        "--visibility", type=click.Choice([str(each) for each in Visibility]), help="Who sees it."
    ),
    click.option("--private", is_flag=True, help="As --visibility private."),
    click.option("--protected", is_flag=True, help="Let nobody delete or replace it."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="Add a tag."),
    click.option("--owner", metavar="NAME", help="Whose it is; an administrator may say so."),
    click.option("--min-disk", type=click.IntRange(0), metavar="GIB", help="Disk a guest needs."),
    click.option("--disk-format", metavar="FORMAT", help="What it is, if you know better."),
    click.option("--container-format", metavar="FORMAT", help="What it is packed in, on purpose."),
    click.option("--min-ram", type=click.IntRange(0), metavar="MIB", help="Memory a guest needs."),
)


_GIVEN_FIELDS = (
    "visibility",
    "owner",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
)


def field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that set fields of an image that is made."""
    for option in reversed(_FIELD_OPTIONS):
        command = option(command)
    return command


def given_fields(options: Mapping[str, Any]) -> dict[str, str]:
    """The fields those options set, as text.  Raises click.UsageError."""
    found = {name: str(options[name]) for name in _GIVEN_FIELDS if options[name] is not None}
    if options["private"] and found.setdefault("visibility", "private") != "private":
        raise click.UsageError("--private and another --visibility exclude each other")
    if options["protected"]:
        found["protected"] = "true"
    if options["tags"]:
        found["tags"] = ",".join(options["tags"])
    return found
