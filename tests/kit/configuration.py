"""The configuration that tests run the program with."""

from __future__ import annotations

from pathlib import Path

from tests.kit.databases import url_at

_TEXT = """\
[catalog]
url = "{url}"
staging = "{folder}/staging"
{catalog}
[stores.file]
type = "filesystem"
path = "{folder}/file"
[stores.other]
type = "filesystem"
path = "{folder}/other"
[stores.web]
type = "http"
allow_hosts = ["127.0.0.1"]
{sections}
"""


def configure(folder: Path, *, catalog: str = "", sections: str = "", url: str = "") -> Path:
    """Write `imagefs.toml` into `folder`, with the stores `file`, `other` and `web` below it.

    `catalog` is more lines of its section, `sections` more of those, `url` another database.
    """
    path = folder / "imagefs.toml"
    at = url or url_at(folder)
    path.write_text(_TEXT.format(folder=folder, url=at, catalog=catalog, sections=sections))
    return path
