"""The URLs of vSphere, as glance_store writes them."""

from __future__ import annotations

import pytest

from catalog.errors import InvalidValue
from catalog.stores.vmware.location import VmwareLocation

UUID = "2a5a5b1c-0a6c-4d29-9d2e-0f1f3a6b7c8d"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (
            f"vsphere://vc.example.net/folder/openstack_glance/{UUID}?dsName=ds1&dcPath=dc1",
            VmwareLocation("vc.example.net", f"openstack_glance/{UUID}", "ds1", "dc1"),
        ),
        (
            f"vsphere://[2001:db8::1]:8443/folder/a/b/{UUID}?dsName=ds+1&dcPath=dc%2Ffolder%2Fdc1",
            VmwareLocation("[2001:db8::1]:8443", f"a/b/{UUID}", "ds 1", "dc/folder/dc1"),
        ),
        (
            f"vsphere://esx.example.net/folder/a%20b/{UUID}?dsName=ds1",
            VmwareLocation("esx.example.net", f"a b/{UUID}", "ds1"),
        ),
    ],
)
def test_vmware_url_is_read_and_written(url: str, location: VmwareLocation) -> None:
    """Parts and URL are each other's."""
    assert VmwareLocation.parse(url) == location
    assert str(location) == url


def test_order_of_a_query_does_not_matter() -> None:
    """Glance has written both."""
    one = VmwareLocation.parse("vsphere://a/folder/b?dsName=c&dcPath=d")
    assert VmwareLocation.parse("vsphere://a/folder/b?dcPath=d&dsName=c") == one
    assert one.file == "[c] b"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "vsphere://",
            "vsphere://a",
            "vsphere://a/folder/?dsName=b",
            "vsphere://a/b?dsName=c",
        ),
        *(
            "vsphere://a/folder/b",
            "vsphere://a/folder/b?dcPath=c",
            "vsphere://a/folder/b/?dsName=c",
        ),
        *("https://a/folder/b?dsName=c", "vsphere:///folder/b?dsName=c"),
        "vsphere://user:word@a/folder/b?dsName=c",
        "vsphere://a/folder/../b?dsName=c",
        "vsphere://a/folder/b?dsName=c&dsName=d",
        "vsphere://[a/folder/b?dsName=c",
    ],
)
def test_no_vmware_url(url: str) -> None:
    """Anything else is refused; a password in it is not shown."""
    with pytest.raises(InvalidValue, match="dsName=DATASTORE") as caught:
        VmwareLocation.parse(url)
    assert "word" not in str(caught.value)
