"""Which store reads which of Glance's locations."""

from __future__ import annotations

import pytest

from catalog.errors import InvalidValue
from catalog.stores.glance_locations import DROPPED, RENAMED, explain_type, key_of, store_type_of
from catalog.stores.registry import DRIVERS

UUID = "2a5a5b1c-0a6c-4d29-9d2e-0f1f3a6b7c8d"
FSID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"file:///var/lib/glance/images/{UUID}", "filesystem"),
        (f"filesystem:///var/lib/glance/images/{UUID}", "filesystem"),
        ("http://mirror.example.net/disk.qcow2", "http"),
        ("HTTPS://mirror.example.net/disk.qcow2", "http"),
        (f"s3://KEY:SEC/RET@s3.example.net/images/{UUID}", "s3"),
        (f"s3+https://s3.example.net/images/{UUID}", "s3"),
        (f"swift://project%3Auser:key@auth.example.net/v3/images/{UUID}", "swift"),
        (f"swift+config://ref1/images/{UUID}", "swift"),
        (f"swift+https://swift.example.net/v1/AUTH_1/images/{UUID}", "swift"),
        (f"rbd://{UUID}/images/{UUID}/snap", "rbd"),
        (f"rbd://{UUID}", "rbd"),
        (f"cinder://{UUID}", "cinder"),
        (f"vsphere://vc.example.net/folder/glance/{UUID}?dsName=ds&dcPath=dc", "vmware"),
    ],
)
def test_scheme_tells_the_store(url: str, kind: str) -> None:
    """Each of Glance's schemes is one of our store types."""
    assert store_type_of(url) == kind


@pytest.mark.parametrize(
    "url",
    [
        f"file:///var/lib/glance/images/{UUID}",
        f"file:///srv/a#b/{UUID}",
        f"s3://KEY:SEC/RET@s3.example.net/images/{UUID}",
        f"s3+https://s3.example.net:8080/images/{UUID}",
        f"swift://project%3Auser:key@auth.example.net/v3/images/{UUID}",
        f"swift+config://ref1/images/{UUID}",
        f"swift+https://swift.example.net/v1/AUTH_1/images_1/{UUID}",
        f"rbd://{FSID}/images/{UUID}/snap",
        f"rbd://{UUID}",
        f"vsphere://vc.example.net/folder/glance/{UUID}?dsName=ds&dcPath=dc",
    ],
)
def test_location_tells_the_key(url: str) -> None:
    """The image's id, wherever a scheme has it."""
    assert key_of(url, store_type_of(url)) == UUID


@pytest.mark.parametrize(
    ("url", "kind", "reason"),
    [
        (f"s3://KEY:word@s3.example.net/images/{UUID}", "swift", "is read by a store of type 's3'"),
        ("s3://KEY:word@s3.example.net", "s3", "should be s3://"),
        (f"cinder://{UUID}", "cinder", "does not tell the image's id"),
        (f"http://user:word@mirror.example.net/{UUID}", "http", "does not tell the image's id"),
        (f"ftp://user:word@mirror.example.net/{UUID}", "http", "should begin with one of"),
    ],
)
def test_location_without_a_key_is_refused(url: str, kind: str, reason: str) -> None:
    """One of another store, a broken one, and one that Glance does not name by the image."""
    with pytest.raises(InvalidValue, match=reason) as caught:
        key_of(url, kind)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"sheepdog://10.0.0.1:7000:{UUID}", f"sheepdog://{UUID}", f"gridfs://{UUID}"]
)
def test_dropped_store_is_explained(url: str) -> None:
    """One line says what became of it, and how to get the images out."""
    with pytest.raises(InvalidValue, match=r"dropped.*then: imagefs add FILE$") as caught:
        store_type_of(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "a", "ftp://user:word@host/a", "file:/a", "://a", "rbd:a"])
def test_no_location_of_glance(url: str) -> None:
    """Anything else is refused, and nothing of it is shown that may be a password."""
    with pytest.raises(InvalidValue, match="should begin with one of") as caught:
        store_type_of(url)
    assert "word" not in str(caught.value)


def test_type_of_a_section_is_explained() -> None:
    """Glance's names that are none of ours have a line, and ours have none."""
    assert "'filesystem'" in str(explain_type("file"))
    for kind in (*DROPPED, *RENAMED):
        assert explain_type(kind)
        assert kind not in DRIVERS
    for kind in DRIVERS:
        assert explain_type(kind) is None
