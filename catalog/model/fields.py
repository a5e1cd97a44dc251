"""An image's fields as text: one table for extended attributes, WebDAV and commands.

Source: docs/semantics.md#attributes.  A field with a `parse` can be set; one without is read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from catalog.errors import InvalidValue
from catalog.model.image import CONTAINER_FORMATS, DISK_FORMATS, Image, Visibility
from catalog.model.status import Status

MAX_PROPERTIES = 128
MAX_TAGS = 128
MAX_NAME_BYTES = 255
_NEAR = 0.85
"""How alike two names are (difflib) when one counts as a misspelling of the other.  With this
value `visiblity` and `tag` are misspelt fields, and `site` and `created_by` are not."""

_OTHER_WORDS = {"hidden": "os_hidden", "private": "visibility", "public": "visibility"}
"""Other words that people use for a field."""


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that can be shown of one image."""

    image: Image
    properties: Mapping[str, str]
    tags: tuple[str, ...]
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how it is written and, if it can be set, how it is read."""

    name: str
    render: Callable[[Details], str | None]
    parse: Callable[[str], Any] | None = None
    only_before_data: bool = False
    """Can be set only until the image has data: it describes the data."""
    default: str | None = None
    """The value in a new image; None for a field that is not copied with an image."""
    guards: bool = False
    """Whether the field restricts others.  It can be set to a value, but not removed: removing it
    would open the image to others without anybody having said so."""


def _column(name: str) -> Callable[[Details], str | None]:
    def render(details: Details) -> str | None:
        value = getattr(details.image, name)
        match value:
            case None:
                return None
            case bool():
                return "true" if value else "false"
            case datetime():
                return value.strftime("%Y-%m-%dT%H:%M:%SZ")
            case _:
                return str(value)

    return render


def _one_of(allowed: frozenset[str], **known_as: str) -> Callable[[str], str]:
    """A parser for these values; `known_as` maps other names to ours."""

    def parse(text: str) -> str:
        text = known_as.get(text, text)
        if text not in allowed:
            raise ValueError("is one of " + ", ".join(sorted(allowed)))
        return text

    return parse


def _boolean(text: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    raise ValueError("is true or false")


def whole(text: str, below: int) -> int:
    """A number that a column of the database holds.  Raises ValueError."""
    # The length first: int() refuses a very long number with a message of its own.
    if not text.isdecimal() or len(text) > 19 or int(text) >= below:
        raise ValueError("is a whole number, 0 or more")
    return int(text)


def _whole(text: str) -> int:
    return whole(text, 2**31)


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(tag.strip() for tag in text.split(",") if tag.strip())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if len(tags) > MAX_TAGS or any(len(tag.encode()) > MAX_NAME_BYTES for tag in tags):
        raise ValueError(f"holds at most {MAX_TAGS} tags of {MAX_NAME_BYTES} bytes")
    return tags


def _text(text: str) -> str:
    if not text or len(text) > 255 or not text.isprintable():
        raise ValueError("is 1 to 255 printable characters")
    return text


def _visibility(text: str) -> Visibility:
    return Visibility(_one_of(frozenset(Visibility))(text))


def _status(text: str) -> Status:
    if text not in (Status.ACTIVE, Status.DEACTIVATED):
        raise ValueError("can be set to active or deactivated")
    return Status(text)


_TABLE = (
    Field("id", _column("id")),
    Field("status", _column("status"), _status),
    Field("name", _column("name")),
    Field("size", _column("size")),
    Field("virtual_size", _column("virtual_size")),
    Field("disk_format", _column("disk_format"), _one_of(DISK_FORMATS, vpc="vhd"), True),
    Field("container_format", _column("container_format"), _one_of(CONTAINER_FORMATS), True),
    Field("visibility", _column("visibility"), _visibility, default="public", guards=True),
    Field("protected", _column("protected"), _boolean, default="false", guards=True),
    Field("os_hidden", _column("os_hidden"), _boolean, default="false"),
    Field("owner", _column("owner"), _text),
    Field("min_disk", _column("min_disk"), _whole, default="0"),
    Field("min_ram", _column("min_ram"), _whole, default="0"),
    Field("tags", lambda details: ",".join(details.tags), _tags, default=""),
    Field("created_at", _column("created_at")),
    Field("updated_at", _column("updated_at")),
    Field("os_hash_algo", _column("os_hash_algo")),
    Field("os_hash_value", _column("os_hash_value")),
    Field("checksum", _column("checksum")),
    Field("verified", _column("verified")),
    Field("stores", lambda details: ",".join(details.stores)),
    Field("message", lambda details: details.image.message),
)

FIELDS: Mapping[str, Field] = {field.name: field for field in _TABLE}
"""Every field by name, in the order in which they are shown."""


def parse(field: Field, text: str) -> Any:
    """The value `text` stands for.  Raises InvalidValue, telling what is allowed."""
    assert field.parse is not None
    try:
        return field.parse(text)
    except ValueError as error:
        raise InvalidValue(field.name, f"{text[:60]!r}: {field.name} {error}") from None


def field_meant(name: str) -> str | None:
    """The field with this name or nearly this name; None if a property may have the name.

    A user who sets the property `visiblity` means the field, and would believe that it is set.
    """
    # A property of another XML namespace is the client's own: no misspelling.
    if name.startswith("{"):
        return None
    plain = name.lower().replace("-", "_")
    for prefix in ("user.", "image.", "property."):
        plain = plain.removeprefix(prefix)
    if plain in _OTHER_WORDS:
        return _OTHER_WORDS[plain]
    letters = sorted(plain.replace("_", ""))
    for field in FIELDS:
        if letters == sorted(field.replace("_", "")):
            return field  # the same letters: equal, two exchanged, or `mindisk`
    close = get_close_matches(plain, FIELDS, n=1, cutoff=_NEAR)
    return close[0] if close else None


def check_property(name: str, value: str) -> None:
    """Raise InvalidValue unless a custom property can have this name and value."""
    if not name or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        raise InvalidValue(name[:60], f"a property's name is 1 to {MAX_NAME_BYTES} bytes")
    if len(value.encode()) > 65535:
        raise InvalidValue(name, "a property's value is at most 65535 bytes")
    meant = field_meant(name)
    if meant == name:
        raise InvalidValue(name, "is a field of every image, not a property: set the field")
    if meant is not None:
        raise InvalidValue(name, f"looks like the field {meant}: set that, or name it otherwise")
