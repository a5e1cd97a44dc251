"""The configuration that tests run the program with."""

from __future__ import annotations

from pathlib import Path

_TEXT = """\
[catalog]
url = "sqlite:///{folder}/catalog.db"
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


def configure(folder: Path, *, catalog: str = "", sections: str = "") -> Path:
    """Write `imagefs.toml` into `folder`, with the stores `file`, `other` and `web` below it.

    `catalog` is more lines of its section, `sections` more of those.
    """
    path = folder / "imagefs.toml"
    path.write_text(_TEXT.format(folder=folder, catalog=catalog, sections=sections))
    return path
