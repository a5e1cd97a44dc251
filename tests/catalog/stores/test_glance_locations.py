"""Which store reads which of Glance's locations."""

from __future__ import annotations

import pytest

from catalog.errors import InvalidValue
from catalog.stores.glance_locations import DROPPED, RENAMED, explain_type, store_type_of
from catalog.stores.registry import DRIVERS

UUID = "2a5a5b1c-0a6c-4d29-9d2e-0f1f3a6b7c8d"


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
