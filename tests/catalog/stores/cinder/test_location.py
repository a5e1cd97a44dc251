"""The URLs of Cinder, as glance_store writes them."""

from __future__ import annotations

import pytest

from catalog.errors import InvalidValue
from catalog.stores.cinder.location import CinderLocation, id_of

UUID = "2a5a5b1c-0a6c-4d29-9d2e-0f1f3a6b7c8d"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (f"cinder://{UUID}", CinderLocation(UUID)),
        (f"cinder://fast/{UUID}", CinderLocation(UUID, "fast")),
        (f"cinder://{UUID.upper()}", CinderLocation(UUID.upper())),
    ],
)
def test_cinder_url_is_read_and_written(url: str, location: CinderLocation) -> None:
    """With and without the store of a Glance that has several."""
    assert CinderLocation.parse(url) == location
    assert str(location) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "cinder://", "cinder://a", f"cinder:///{UUID}", f"cinder://a/b/{UUID}"),
        *(f"rbd://{UUID}", f"cinder://{UUID}/", f"cinder://user:word@a/{UUID}", UUID),
    ],
)
def test_no_cinder_url(url: str) -> None:
    """A volume is named by a UUID."""
    with pytest.raises(InvalidValue, match="cinder://VOLUME") as caught:
        CinderLocation.parse(url)
    assert "word" not in str(caught.value)


def test_a_key_is_its_own_id_if_it_is_one() -> None:
    """Ids of images stay as they are; any other key has one of its own."""
    assert id_of(UUID) == UUID
    assert id_of("a") == id_of("a") != id_of("b")
    assert str(CinderLocation.parse(f"cinder://{id_of('a')}")).endswith(id_of("a"))
