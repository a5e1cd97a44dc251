"""Adding and removing single tags of an image.

Users: the command `tag`.  In one transaction, so that two who tag at once both succeed;
setting the field `tags` replaces them all (DESIGN §8).
"""

from __future__ import annotations

from collections.abc import Collection

from catalog import access
from catalog.access import Principal
from catalog.catalog import Catalog
from catalog.errors import NotFound
from catalog.fields import FIELDS, parse


def change_tags(
    catalog: Catalog,
    number: int,
    principal: Principal,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
) -> None:
    """Add some tags and remove others.

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
