"""Inode numbers follow from the catalog's; lookup counts follow the kernel's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.tree.namespace import BY_ID, ROOT
from imagefs import inodes
from imagefs.inodes import InodeKind, Inodes

NUMBERS = st.integers(min_value=ROOT + 1, max_value=2**40)


@given(NUMBERS)
def test_each_number_comes_back(number: int) -> None:
    """From an inode to what it stands for; no two are the same."""
    made = {
        inodes.of_folder(number): (InodeKind.FOLDER, number),
        inodes.of_image(number): (InodeKind.IMAGE, number),
        inodes.of_link(number): (InodeKind.LINK, number),
        inodes.of_fresh(number): (InodeKind.FRESH, number),
    }
    assert len(made) == 4
    assert {inode: inodes.kind_of(inode) for inode in made} == made


@given(NUMBERS, NUMBERS)
def test_folders_and_images_never_share_one(folder: int, image: int) -> None:
    """Whatever their numbers are."""
    assert inodes.of_folder(folder) != inodes.of_image(image)


@pytest.mark.parametrize("number", [ROOT, BY_ID])
def test_fixed_folders(number: int) -> None:
    """The root and /.by-id."""
    assert inodes.kind_of(inodes.of_folder(number)) == (InodeKind.FOLDER, number)


@given(st.lists(st.integers(min_value=1, max_value=5), max_size=30))
def test_an_inode_is_known_until_it_is_forgotten(counts: list[int]) -> None:
    """As often as it was handed out."""
    known = Inodes()
    for _ in range(sum(counts)):
        known.remember(7)
    for position, count in enumerate(counts):
        assert 7 in known
        known.forget([(7, count)])
        assert (7 in known) == (position < len(counts) - 1)
    assert len(known) == 0


def test_the_root_is_always_known() -> None:
    """The kernel holds it without a lookup."""
    assert inodes.of_folder(ROOT) in Inodes()
