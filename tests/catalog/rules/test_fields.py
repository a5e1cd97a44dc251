"""Fields and properties as text: what can be set, when, and to what.

Source: docs/semantics.md#attributes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from catalog.errors import (
    Forbidden,
    Immutable,
    InvalidTransition,
    InvalidValue,
    NotFound,
    QuotaExceeded,
)
from catalog.model.access import ADMIN
from catalog.model.fields import FIELDS, MAX_PROPERTIES
from catalog.rules import fields
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, BOB, begin, entry, image_at, link, put, remove, set_fields

SETTABLE = [
    ("visibility", "private"),
    ("protected", "true"),
    ("os_hidden", "true"),
    ("min_disk", "10"),
    ("min_ram", "512"),
    ("tags", "lts,stable"),
]
READ_ONLY = [
    "id",
    "name",
    "size",
    "virtual_size",
    "disk_format",
    "container_format",
    "created_at",
    "updated_at",
    "os_hash_algo",
    "os_hash_value",
    "checksum",
    "verified",
    "stores",
    "message",
]


def rendered(vfs: Vfs, number: int) -> dict[str, str | None]:
    """All fields of an image as text."""
    details = vfs.catalog.details(number)
    return {name: field.render(details) for name, field in FIELDS.items()}


def set_properties(vfs: Vfs, number: int, **values: str | None) -> None:
    """Set custom properties."""
    named = {f"property.{name}": value for name, value in values.items()}
    fields.set_attributes(vfs.catalog, number, named, ALICE)


def test_all_fields_of_an_image(vfs: Vfs) -> None:
    """Every field is there, and those of the data tell the truth."""
    data = b"some data"
    image = put(vfs, "/file/a", data)
    link(vfs, "/file/a", "/other/a")
    fields = rendered(vfs, image.number)
    assert set(fields) == {*READ_ONLY, "status", "owner", *(name for name, _ in SETTABLE)}
    assert fields["status"] == "active"
    assert fields["size"] == fields["virtual_size"] == "9"
    assert fields["os_hash_value"] == hashlib.sha256(data).hexdigest()
    assert fields["owner"] == "alice"
    assert fields["stores"] == "file,other"
    assert fields["checksum"] is None
    assert fields["verified"] == "true"


@pytest.mark.parametrize(("name", "value"), SETTABLE)
def test_a_field_that_can_be_set(vfs: Vfs, name: str, value: str) -> None:
    """What was set is what is read, before the upload and after it."""
    image = put(vfs, "/file/a")
    set_fields(vfs, "/file/a", **{name: value})
    assert rendered(vfs, image.number)[name] == value
    queued = vfs.create(vfs.place("/file/b"), ALICE).image
    set_fields(vfs, "/file/b", **{name: value})
    assert rendered(vfs, queued.number)[name] == value


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_read_only_field(vfs: Vfs, name: str) -> None:
    """Of an active image it takes its own value and refuses any other."""
    image = put(vfs, "/file/a")
    present = rendered(vfs, image.number)[name]
    with pytest.raises(Immutable):
        set_fields(vfs, "/file/a", **{name: f"{present}0"})
    if present is not None:
        set_fields(vfs, "/file/a", **{name: present})
    after = rendered(vfs, image.number)
    assert after[name] == present


def test_all_attributes_of_another_image_can_be_copied(vfs: Vfs) -> None:
    """`cp -a` and `rsync -X` set every field on the new image while it is saved."""
    data = b"the same data"
    source = put(vfs, "/file/a", data)
    link(vfs, "/file/a", "/other/a")
    set_fields(vfs, "/file/a", tags="lts", min_disk="3")
    upload = begin(vfs, "/file/b", data)
    values = {k: v for k, v in rendered(vfs, source.number).items() if v is not None}
    set_fields(vfs, "/file/b", **values)
    upload.commit()
    copied = rendered(vfs, upload.image.number)
    own = {"id", "name", "created_at", "updated_at", "stores"}
    assert {k: v for k, v in copied.items() if k not in own} == {
        k: v for k, v in rendered(vfs, source.number).items() if k not in own
    }
    assert copied["id"] != source.id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("visibility", "secret"),
        ("protected", "perhaps"),
        ("min_disk", "-1"),
        ("min_disk", "1.5"),
        ("min_ram", str(2**31)),
        ("min_ram", ""),
        ("tags", ",".join(map(str, range(129)))),
        ("tags", "a" * 256),
        ("owner", ""),
        ("owner", "a\nb"),
        ("status", "deleted"),
        ("status", "saving"),
    ],
)
def test_a_bad_value_is_refused(vfs: Vfs, name: str, value: str) -> None:
    """A value the field cannot hold is InvalidValue and changes nothing."""
    image = put(vfs, "/file/a")
    before = rendered(vfs, image.number)
    with pytest.raises(InvalidValue, match=name):
        set_fields(vfs, "/file/a", ADMIN, **{name: value})
    assert rendered(vfs, image.number) == before


@pytest.mark.parametrize("name", ["disk_format", "container_format"])
def test_a_format_that_is_none_is_refused(vfs: Vfs, name: str) -> None:
    """A declared format is one of Glance's."""
    begin(vfs, "/file/a")
    with pytest.raises(InvalidValue):
        set_fields(vfs, "/file/a", **{name: "docx"})


def test_several_values_are_set_all_or_none(vfs: Vfs) -> None:
    """One bad value and none of the others is set."""
    image = put(vfs, "/file/a")
    with pytest.raises(InvalidValue):
        set_fields(vfs, "/file/a", min_disk="5", protected="perhaps")
    assert rendered(vfs, image.number)["min_disk"] == "0"


def test_deactivate_and_reactivate(vfs: Vfs) -> None:
    """Setting `status` leads to deactivated and back; setting it twice is no error."""
    put(vfs, "/file/a")
    for status in ("deactivated", "deactivated", "active", "active"):
        set_fields(vfs, "/file/a", status=status)
        assert image_at(vfs, "/file/a").status == status


def test_status_of_an_unfinished_image_is_ignored(vfs: Vfs) -> None:
    """Copying `status=active` along makes nothing active."""
    begin(vfs, "/file/a", b"x")
    set_fields(vfs, "/file/a", status="active")
    assert image_at(vfs, "/file/a").status == "saving"


def test_status_of_a_deleted_image_cannot_be_set(vfs: Vfs) -> None:
    """An image leaves the trash by a rename, not by its status."""
    put(vfs, "/file/a")
    remove(vfs, "/file/a")
    with pytest.raises(InvalidTransition):
        set_fields(vfs, "/file/.trash/a", status="active")


def test_only_an_administrator_gives_an_image_away(vfs: Vfs) -> None:
    """The owner may set the owner to what it is, and to nothing else."""
    put(vfs, "/file/a")
    set_fields(vfs, "/file/a", owner="alice")
    with pytest.raises(Forbidden):
        set_fields(vfs, "/file/a", owner="bob")
    set_fields(vfs, "/file/a", ADMIN, owner="bob")
    with pytest.raises(Forbidden):
        set_fields(vfs, "/file/a", min_disk="1")
    set_fields(vfs, "/file/a", BOB, min_disk="1")


@pytest.mark.parametrize("value", ["abc", "z" * 64, "a" * 32, ""])
def test_an_expected_digest_must_be_one(vfs: Vfs, value: str) -> None:
    """Only a sha256, sha384 or sha512 in hexadecimal can be expected."""
    begin(vfs, "/file/a", b"x")
    with pytest.raises(InvalidValue):
        set_fields(vfs, "/file/a", os_hash_value=value)


# Custom properties


def test_properties_are_set_changed_and_removed(vfs: Vfs) -> None:
    """A property is what was set last; removing one that is not there is NotFound."""
    image = put(vfs, "/file/a")
    set_properties(vfs, image.number, os_distro="debian", hw_disk_bus="virtio")
    set_properties(vfs, image.number, os_distro="ubuntu", hw_disk_bus=None)
    assert vfs.catalog.details(image.number).properties == {"os_distro": "ubuntu"}
    with pytest.raises(NotFound):
        set_properties(vfs, image.number, hw_disk_bus=None)


def test_names_and_values_may_be_anything(vfs: Vfs) -> None:
    """Neither blanks, quotes nor other alphabets do any harm; an empty value is one."""
    image = put(vfs, "/file/a")
    values: dict[str, str | None] = {"ключ 'x\"": "値%_;--", "empty": "", "long": "v" * 65535}
    set_properties(vfs, image.number, **values)
    assert vfs.catalog.details(image.number).properties == values


@pytest.mark.parametrize(("name", "value"), [("", "v"), ("n" * 256, "v"), ("n", "v" * 65536)])
def test_a_property_that_cannot_be(vfs: Vfs, name: str, value: str) -> None:
    """Names are 1 to 255 bytes, values at most 65535."""
    image = put(vfs, "/file/a")
    with pytest.raises(InvalidValue):
        set_properties(vfs, image.number, **{name: value})


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("visibility", "visibility"),
        ("visiblity", "visibility"),
        ("Visibility", "visibility"),
        ("user.image.visibility", "visibility"),
        ("private", "visibility"),
        ("min-ram", "min_ram"),
        ("mindisk", "min_disk"),
        ("tag", "tags"),
        ("onwer", "owner"),
        ("protcted", "protected"),
        ("status", "status"),
        ("id", "id"),
    ],
)
def test_a_fields_name_is_no_property(vfs: Vfs, name: str, field: str) -> None:
    """Nor is a near miss of one: it would be set, and change nothing."""
    image = put(vfs, "/file/a")
    with pytest.raises(InvalidValue, match=field):
        set_properties(vfs, image.number, **{name: "private"})
    assert vfs.catalog.details(image.number).properties == {}


GLANCE = """
    architecture kernel_id ramdisk_id instance_uuid os_distro os_version os_type os_admin_user
    os_secure_boot os_require_quiesce os_shutdown_timeout os_command_line hypervisor_type vm_mode
    hw_disk_bus hw_machine_type hw_vif_model hw_qemu_guest_agent hw_rng_model hw_scsi_model
    hw_video_model hw_video_ram img_config_drive img_signature img_signature_hash_method
    img_hide_hypervisor_id img_linked_clone auto_disk_config block_device_mapping mappings
    base_image_ref image_type image_location image_state user_id cache_in_nova description
    vmware_disktype vmware_ostype owner_specified.openstack.md5 direct_url self schema locations
"""


def test_glances_own_properties_are_properties(vfs: Vfs) -> None:
    """None of them is taken for a slip of a field's name."""
    image = put(vfs, "/file/a")
    values: dict[str, str | None] = dict.fromkeys(GLANCE.split(), "v")
    values |= dict.fromkeys("created_by site state note min_cpu {urn:x}name".split(), "v")
    set_properties(vfs, image.number, **values)
    assert vfs.catalog.details(image.number).properties == values


def test_an_old_property_with_a_fields_name_goes(vfs: Vfs) -> None:
    """What was set by an older imagefs can be removed, and is copied along."""
    image = put(vfs, "/file/a")
    with vfs.catalog.write() as repository:
        repository.set_properties(image.number, {"visibility": "private"})
    vfs.copy(entry(vfs, "/file/a"), vfs.place("/file/b"), ALICE, replace=False)
    set_properties(vfs, image.number, visibility=None)
    assert vfs.catalog.details(image.number).properties == {}


def test_an_image_has_at_most_128_properties(vfs: Vfs) -> None:
    """One more is QuotaExceeded; changing one of 128 is not."""
    image = put(vfs, "/file/a")
    set_properties(vfs, image.number, **{f"p{i}": "v" for i in range(MAX_PROPERTIES)})
    with pytest.raises(QuotaExceeded):
        set_properties(vfs, image.number, one_more="v")
    set_properties(vfs, image.number, p0="other")
    assert len(vfs.catalog.details(image.number).properties) == MAX_PROPERTIES


@pytest.mark.parametrize("name", ["image.nonsense", "nonsense", "user.image.status", ""])
def test_an_attribute_that_is_neither(vfs: Vfs, name: str) -> None:
    """A name outside both groups is InvalidValue."""
    values: Any = {name: "v"}
    image = put(vfs, "/file/a")
    with pytest.raises(InvalidValue):
        fields.set_attributes(vfs.catalog, image.number, values, ALICE)
