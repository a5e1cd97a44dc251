"""What commands print: tables and JSON on stdout, errors and progress on stderr.

JSON is for programs: its keys are the field names of `catalog.model.fields` and do not change; its
sizes are in bytes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from catalog.cli.console.exit_codes import OK, combined, exit_code
from catalog.errors import CatalogError
from catalog.model.fields import FIELDS, Details
from catalog.model.image import Image

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def line(text: str = "") -> None:
    """Print one line.  Unlike click.echo it does not flush: a listing is long."""
    sys.stdout.write(text + "\n")


def report(error: object) -> None:
    """Report a failure in one line on stderr."""
    text = " ".join(str(error).split())
    sys.stdout.flush()
    click.echo(f"imagefs: {text}", err=True)


def each(arguments: Iterable[str], act: Callable[[str], object]) -> int:
    """Act on every argument, reporting each failure; return the exit code."""
    codes = []
    for argument in arguments:
        try:
            act(argument)
            codes.append(OK)
        except CatalogError as error:
            report(error)
            codes.append(exit_code(error))
    return combined(codes)


def json_document(value: Any) -> None:
    """Print one JSON value."""
    line(json.dumps(value, indent=2, ensure_ascii=False))


def json_array(values: Iterable[Any]) -> None:
    """Print a JSON array, one element per line, each as soon as it is known."""
    separator = "["
    for value in values:
        sys.stdout.write(f"{separator}\n{json.dumps(value, ensure_ascii=False)}")
        separator = ","
    line("[]" if separator == "[" else "\n]")


def image_fields(image: Image) -> dict[str, Any]:
    """The fields of the image itself for JSON, without tags and stores."""
    details = Details(image, {}, (), ())
    return {
        name: _json_value(getattr(image, name), field.render(details))
        for name, field in FIELDS.items()
        if name not in ("tags", "stores")
    }


def _json_value(value: Any, rendered: str | None) -> Any:
    return value if isinstance(value, int | str | None) else rendered


def all_fields(details: Details, paths: list[str]) -> dict[str, Any]:
    """Everything about an image, for JSON."""
    return {
        "paths": paths,
        **image_fields(details.image),
        "tags": list(details.tags),
        "stores": list(details.stores),
        "properties": dict(details.properties),
    }


def printable(text: str) -> str:
    """Text that cannot control the terminal: characters that are not printable are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human_size(size: int | None) -> str:
    """A size for people: 1.5 GiB."""
    if size is None:
        return "-"
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


@contextmanager
def progress_bar(label: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal; yields a function to call with further bytes."""
    if size is None or not sys.stderr.isatty():
        yield lambda _size: None
        return
    with click.progressbar(length=size, label=label, file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def transfer_bar(label: str, size: int) -> Iterator[Callable[[int], None]]:
    """As `progress_bar`, with the bytes transferred so far and their rate."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    begun, done = time.monotonic(), 0
    shown: Callable[[str | None], str | None] = str
    with click.progressbar(
        length=size, label=printable(label), file=sys.stderr, item_show_func=shown
    ) as bar:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - begun, 0.001)
            bar.update(count, f"{human_size(done)}, {human_size(int(rate))}/s")

        yield advance
