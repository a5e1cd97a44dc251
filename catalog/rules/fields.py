"""Sets an image's fields and properties from text (docs/semantics.md#attributes).

Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from catalog.catalog import Catalog
from catalog.errors import Forbidden, Immutable, InvalidValue, NotFound, QuotaExceeded
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.digests import hash_algorithm
from catalog.model.fields import (
    FIELDS,
    MAX_PROPERTIES,
    Details,
    Field,
    check_property,
    field_meant,
    parse,
    whole,
)
from catalog.model.image import ChunkDigests, Image
from catalog.model.status import HAS_DATA, Status
from catalog.repository.database import Repository

IMAGE = "image."
PROPERTY = "property."

_WITHOUT_DATA = frozenset({Status.QUEUED, Status.SAVING, Status.UPLOADING, Status.IMPORTING})


def _apply(
    repository: Repository,
    number: int,
    values: Mapping[str, str | None],
    principal: Principal,
) -> None:
    """Set each `image.<field>` and `property.<name>`; None removes a property.

    A read-only field is ignored until the image has its data, so that all attributes of
    another image can be copied; afterwards only its present value is accepted.  Removing a
    field sets it to its default; a field without a default, or one that guards, raises
    Immutable.
    """
    properties: dict[str, str | None] = {}
    for name, value in values.items():
        if name.startswith(PROPERTY):
            properties[name.removeprefix(PROPERTY)] = value
        elif name.startswith(IMAGE) and name.removeprefix(IMAGE) in FIELDS:
            field = FIELDS[name.removeprefix(IMAGE)]
            _set_field(repository, number, field, _or_default(field, value), principal)
        else:
            meant = field_meant(name)
            hint = f": did you mean image.{meant}?" if meant else ""
            raise InvalidValue(name, f"is neither a field of an image nor a property{hint}")
    if properties:
        _set_properties(repository, number, properties)


def _or_default(field: Field, value: str | None) -> str:
    if value is not None:
        return value
    if field.default is None or field.guards:
        raise Immutable(field.name, "cannot be removed: every image has it")
    return field.default


def _set_field(
    repository: Repository, number: int, field: Field, text: str, principal: Principal
) -> None:
    image = repository.image(number)
    if _may_expect(image, field):
        _expect(repository, image, field.name, text)
        return
    fixed = field.parse is None or (field.only_before_data and image.status in HAS_DATA)
    if fixed or (field.name == "status" and image.status in _WITHOUT_DATA):
        if image.status not in _WITHOUT_DATA and text != _present(repository, image, field):
            raise Immutable(field.name, "is read-only")
        return
    value = parse(field, text)
    match field.name:
        case "tags":
            repository.set_tags(number, value)
        case "status":
            _set_status(repository, image, value, principal)
        case "owner" if value != image.owner and not principal.is_admin:
            raise Forbidden("owner", "only an administrator gives an image away")
        case _:
            repository.set_image(number, **{field.name: value})


def _set_status(repository: Repository, image: Image, value: Status, principal: Principal) -> None:
    if value is image.status:
        return
    if value is Status.ACTIVE and not image.is_accepted and not principal.is_admin:
        told = "no format gate of this version has accepted it (imagefs fsck)"
        raise Forbidden(image.name, f"{told}: only an administrator reactivates it")
    repository.change_status(image.number, value, only_from=HAS_DATA)


def _may_expect(image: Image, field: Field) -> bool:
    """Whether setting the field says beforehand what the data will be."""
    if image.status in _WITHOUT_DATA:
        return field.name in ("size", "os_hash_value")
    # An external location has no digest until `verify` has read it.
    return field.name == "os_hash_value" and image.os_hash_value is None


def _present(repository: Repository, image: Image, field: Field) -> str | None:
    stores = repository.stores_of(image.number)
    details = Details(image, {}, repository.tags(image.number), stores)
    return field.render(details)


def _expect(repository: Repository, image: Image, name: str, text: str) -> None:
    if name == "size":
        try:
            size = whole(text, 2**63)
        except ValueError:
            raise InvalidValue("size", "is a whole number of bytes") from None
        repository.set_image(image.number, expected_size=size)
    else:
        hash_algorithm(text)
        repository.set_image(image.number, expected_hash=text.lower())


def _set_properties(repository: Repository, number: int, values: Mapping[str, str | None]) -> None:
    present = repository.properties(number)
    for name, value in values.items():
        if value is not None:
            check_property(name, value)
        elif name not in present:
            raise NotFound(name)
    wanted = {name: value for name, value in {**present, **values}.items() if value is not None}
    if len(wanted) > MAX_PROPERTIES:
        raise QuotaExceeded(f"image {number}", f"an image has at most {MAX_PROPERTIES} properties")
    repository.set_properties(number, values)


class _Undo(Exception):
    """Rolls back a transaction that was only a trial."""


def record_digests(
    catalog: Catalog, number: int, algo: str, value: str, chunks: ChunkDigests
) -> None:
    """Record digests for an active image without any; if it has some already, they stay."""
    with catalog.write() as repository:
        if repository.image(number).os_hash_value is not None:
            return
        repository.set_image(number, os_hash_algo=algo, os_hash_value=value, expected_hash=None)
        repository.set_chunk_digests(number, chunks)


def set_attributes(
    catalog: Catalog, number: int, values: Mapping[str, str | None], principal: Principal
) -> None:
    """Set image fields and custom properties from text, all or nothing.

    Names are `image.<field>` and `property.<name>`; None removes a property.  Raises
    InvalidValue, Immutable, Forbidden, NotFound, QuotaExceeded, InvalidTransition.
    """
    with catalog.write() as repository:
        access.check_change(principal, repository.image(number))
        _apply(repository, number, values, principal)


def check_attributes(
    catalog: Catalog, number: int, values: Mapping[str, str | None], principal: Principal
) -> None:
    """Raise what `set_attributes` would raise, and change nothing."""
    with suppress(_Undo), catalog.write() as repository:
        access.check_change(principal, repository.image(number))
        _apply(repository, number, values, principal)
        raise _Undo


def change_tags(
    catalog: Catalog,
    number: int,
    principal: Principal,
    *,
    add: Collection[str],
    remove: Collection[str],
) -> None:
    """Add some tags and remove others, so that two changes at the same time both succeed.

    Raises InvalidValue, Forbidden, and NotFound for a tag to remove that is not there.
    """
    with catalog.write() as repository:
        access.check_change(principal, repository.image(number))
        present = repository.tags(number)
        for tag in remove:
            if tag not in present:
                raise NotFound(tag, "the image has no such tag")
        wanted = (set(present) | set(add)) - set(remove)
        repository.set_tags(number, parse(FIELDS["tags"], ",".join(wanted)))


def set_mtime(catalog: Catalog, number: int, mtime: int, principal: Principal) -> None:
    """Set the modification time, in nanoseconds since 1970."""
    with catalog.write() as repository:
        access.check_change(principal, repository.image(number))
        repository.set_image(number, mtime=mtime)
