"""Looking after what the stores hold: verify, scrub, fsck."""

from __future__ import annotations

import json
from pathlib import Path

from catalog.model.image import CHUNK_SIZE
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, Run, damage, paths
from tests.kit.configuration import configure
from tests.kit.damage import stored


def test_verify_names_bad_chunks(run: Run, image: str, vfs: Vfs) -> None:
    """One bad image of two is code 3, with the offset; only bad ones is code 1."""
    run("add", "-", "--name", "b", stdin=DATA)
    assert run("verify").stdout.count("intact") == 2
    damage(vfs, image)
    assert "offset 0" in run("verify", code=3).stdout
    (found,) = json.loads(run("verify", "--json", image, code=1).stdout)
    assert (found["id"], found["store"], found["verdict"]) == (image, "file", "damaged")
    assert found["bad_chunks"] == [{"offset": 0, "size": min(CHUNK_SIZE, len(DATA))}]
    run("verify", "/file/missing", code=4)


def test_scrub(run: Run, image: str, config: Path, tmp_path: Path) -> None:
    """Only what has been in the trash for long enough goes, and --dry-run only tells."""
    run("delete", image)
    assert json.loads(run("scrub", "--json").stdout) == []
    configure(tmp_path, catalog="scrub_time = 0")
    assert run("scrub", "--dry-run").stdout == f"would delete  {image}  a\n"
    assert paths(run, "--deleted") == ["/file/.trash/a"]
    (found,) = json.loads(run("scrub", "--json").stdout)
    assert (found["id"], found["deleted"]) == (image, True)
    assert paths(run, "--deleted") == []


def test_fsck(run: Run, image: str, vfs: Vfs) -> None:
    """A clean catalog is silent; missing data is a finding."""
    assert run("fsck").stdout == ""
    with vfs.catalog.read() as repository:
        stored(vfs.catalog, repository.image_by_id(image), "file").unlink()
    found = json.loads(run("fsck", "--json", code=1).stdout)
    assert found
    assert set(found[0]) == {"kind", "subject", "detail", "repaired"}
