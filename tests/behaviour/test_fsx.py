"""Random writes, truncations and reads of an upload, as fsx does, against a plain file."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from tests.behaviour.trees import Tree
from tests.kit.daemon import wait_until

pytestmark = pytest.mark.stress

STEPS = 600
LARGEST = 12 * 1024 * 1024


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "anywhere"])
def test_an_upload_is_what_a_plain_file_would_be(
    tree: Tree, name: str, tmp_path: Path, seed: int, forward: bool
) -> None:
    """The same steps on both; every read and at last the whole and its digest agree."""
    chance = random.Random(seed)
    path = f"/file/{name}/image"
    with (tmp_path / "plain").open("w+b", buffering=0) as plain, tree.upload(path) as upload:
        for _ in range(STEPS):
            offset = chance.randrange(LARGEST)
            size = chance.choice([1, 511, 4096, 65_537, 200_000])
            match chance.choices(["write", "truncate", "read"], [6, 0 if forward else 1, 3])[0]:
                case "write":
                    if forward:
                        offset = plain.seek(0, 2) + chance.choice([0, 0, 0, 10_000])
                    data = chance.randbytes(min(size, LARGEST - min(offset, LARGEST - 1)))
                    plain.seek(offset)
                    plain.write(data)
                    upload.write(offset, data)
                case "truncate":
                    plain.truncate(offset)
                    upload.truncate(offset)
                case "read":
                    plain.seek(offset)
                    assert upload.read(offset, size) == plain.read(size)
    expected = (tmp_path / "plain").read_bytes()
    # On a busy host close(2) may return before anybody knows who else has the file open.
    wait_until(lambda: tree.get(path, "image.status") == "active", "the image is active")
    assert tree.read(path) == expected
    assert tree.get(path, "image.os_hash_value") == hashlib.sha256(expected).hexdigest()
    tree.remove(path)
