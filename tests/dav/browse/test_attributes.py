"""What a page changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from catalog.errors import CatalogError, Forbidden, InvalidValue
from catalog.model.access import Principal
from catalog.tree.vfs import Vfs
from tests.dav.browse.asking import document
from tests.kit.catalog import ALICE, BOB, entry, image_at, put

JSON_HEADERS = {"content-type": "application/json; charset=utf-8", "x-imagefs": "1"}


def post(vfs: Vfs, values: object, who: Principal = ALICE, **headers: str) -> Any:
    """Set attributes of /file/a.raw as the page does."""
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    sent = {**JSON_HEADERS, **{name.replace("_", "-"): text for name, text in headers.items()}}
    return document(
        vfs, "/file/a.raw", "properties", method="POST", headers=sent, body=body, who=who
    )


def test_attributes_are_set_and_removed(vfs: Vfs) -> None:
    """Null removes a property; the answer is the image as it is now."""
    put(vfs, "/file/a.raw")
    found = post(vfs, {"image.visibility": "private", "property.os_distro": "debian"})
    assert found["visibility"] == "private"
    assert found["properties"] == {"os_distro": "debian"}
    found = post(vfs, {"property.os_distro": None}, origin="http://images.test:8080")
    assert found["properties"] == {}


def test_a_failing_attribute_leaves_the_others_alone(vfs: Vfs) -> None:
    """All or nothing."""
    put(vfs, "/file/a.raw")
    with pytest.raises(InvalidValue):
        post(vfs, {"property.x": "1", "image.visibility": "nobody"})
    assert document(vfs, "/file/a.raw", "page")["properties"] == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"x_imagefs": ""},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://images.test:8080.evil.test"},
        {"content_type": "text/plain"},
    ],
)
def test_another_site_cannot_change_anything(vfs: Vfs, headers: dict[str, str]) -> None:
    """Without our header, with another origin, or as a form can send it."""
    put(vfs, "/file/a.raw")
    with pytest.raises(CatalogError):
        post(vfs, {"image.visibility": "private"}, ALICE, **headers)
    assert image_at(vfs, "/file/a.raw").visibility == "public"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"property.x": 1}',
        b'{"property.x": "\\ud800"}',
        b'{"property.x": "\\u0000"}',
    ],
)
def test_a_body_that_is_no_object_of_texts_is_refused(vfs: Vfs, body: bytes) -> None:
    """With a reason, and nothing is set."""
    put(vfs, "/file/a.raw")
    with pytest.raises(InvalidValue):
        post(vfs, body)


def test_only_its_owner_changes_an_image(vfs: Vfs) -> None:
    """The rule is the catalog's own."""
    put(vfs, "/file/a.raw")
    with pytest.raises(Forbidden):
        post(vfs, {"property.x": "1"}, who=BOB)
    assert dict(vfs.catalog.details(entry(vfs, "/file/a.raw").image.number).properties) == {}
