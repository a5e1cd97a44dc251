"""The sections of the configuration that are the catalog's own, as models; it knows no driver.

A package adds a top-level section of its own through the entry-point group `imagefs.settings`.
Threading: values are immutable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from catalog.errors import InvalidSettings

_Model = TypeVar("_Model", bound=BaseModel)

DEFAULTS = "built-in defaults"
"""The value of `Settings.source` if no file was found."""

_CONTRIBUTED = "imagefs.settings"
# Not a relative SQLite path: it would be another catalog in every working directory.
_DATABASE_URL = re.compile(r"sqlite(\+\w+)?:////.+|(?!sqlite)\w+(\+\w+)?://.+")


def state_folder() -> Path:
    """The folder that has the catalog, the images and the staging area by default.

    `$IMAGEFS_STATE` if set, `/var/lib/imagefs` for root, else the user's folder
    (XDG Base Directory Specification, `$XDG_STATE_HOME`).
    """
    if override := os.environ.get("IMAGEFS_STATE"):
        return Path(override).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/imagefs")
    return xdg_folder("XDG_STATE_HOME", ".local/state") / "imagefs"


def xdg_folder(variable: str, default: str) -> Path:
    """One of the user's base folders; a relative value is ignored, as XDG requires."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else Path.home() / default


class CatalogSettings(BaseModel):
    """The `[catalog]` section."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(default_factory=lambda: f"sqlite:///{state_folder() / 'catalog.db'}")
    """The URL of the catalog's database, in SQLAlchemy's form."""

    default_store: str = "file"
    """The store for images that are added without naming a store."""

    os_hash_algo: Literal["sha256", "sha384", "sha512"] = "sha256"
    """The digest kept as `os_hash_value`.

    sha256 is what vendors publish; Glance's own default is sha512.
    """

    checksum: bool = False
    """Also keep Glance's md5 `checksum`, for old clients that compare it."""

    scrub_time: int = Field(default=7 * 86400, ge=0)
    """Seconds that an image stays in the trash before its data is deleted.

    A week, not 0 as in Glance: on a mount a wrong `rm` is easy, and is often noticed late.
    """

    history_time: int = Field(default=365 * 86400, ge=0)
    """Seconds that is kept who changed what of an image (`imagefs log`), also when it is deleted.

    A year: longer than most disputes, and some 200 bytes a change.
    """

    max_image_size: int | None = Field(default=None, gt=0)
    """Bytes; a larger upload is refused.  Unset: the store's own limit."""

    staging: Path = Field(default_factory=lambda: state_folder() / "staging")
    """The folder for uploads to stores that have no staging folder of their own."""

    staging_limit: int | None = Field(default=None, gt=0)
    """Bytes that all unfinished uploads of this host may stage together, so that they cannot fill
    a disk that others use as well.  Unset: the disk's free space."""

    @field_validator("url")
    @classmethod
    def _is_database_url(cls, url: str) -> str:
        if not _DATABASE_URL.fullmatch(url):
            raise ValueError(
                "should be a database URL with an absolute path,"
                " such as sqlite:////var/lib/imagefs/catalog.db"
            )
        return url

    @field_validator("staging")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path


class CacheSettings(BaseModel):
    """The `[cache]` section: verified chunks of remote images on this host's disk."""

    model_config = ConfigDict(frozen=True)

    path: Path = Field(default_factory=lambda: state_folder() / "cache")
    """A folder on a local file system; the programs of this host share it."""

    size: int = Field(default=10 << 30, ge=0)
    """Bytes of data it may hold, 256 MiB or more; 0 for none.  The last twentieth of the
    file system stays free in any case."""

    verify: Literal["strict", "lazy"] = "strict"
    """With `strict`, a byte is returned only after the digest of its chunk was compared.  With
    `lazy`, a small read at a random position is answered with the store's data, and the chunk is
    compared later in the background."""

    fill: bool = False
    """Whether to fetch the whole image in the background while it is open, so that it no longer
    needs its store.  An image larger than `size` is not fetched."""

    recheck: bool = False
    """Whether to compare a chunk on the cache's disk again when a program first reads it, for a
    disk that is not trusted.  The kernel then never reads the cache's files directly."""

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path

    @field_validator("size")
    @classmethod
    def _is_useful(cls, size: int) -> int:
        if 0 < size < 1 << 28:
            raise ValueError("should be 0, or at least 268435456 (256 MiB)")
        return size


Level = Literal["debug", "info", "warning", "error"]


class LogSettings(BaseModel):
    """The `[log]` section: what a mount and a server log, and where; read again at SIGHUP."""

    model_config = ConfigDict(frozen=True)

    file: Path | None = None
    """A file of one line an event, as `key=value`; opened anew at SIGHUP, for logrotate.  Unset:
    the journal, or standard error."""

    level: Level = "info"
    """The least that is logged; `debug` also logs what failed only for one program."""

    levels: Mapping[str, Level] = Field(default_factory=dict)
    """Levels of single modules and all that is below them, such as `catalog.stores`: to look into
    one thing on a busy host."""

    @field_validator("file")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path


_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]+):(\d{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT; the host without brackets.  Raises ValueError."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or int(found[2]) > 65535:
        raise ValueError("should be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return found[1].strip("[]"), int(found[2])


def is_loopback(host: str) -> bool:
    """Whether only this host can connect there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_monitoring(address: str) -> str:
    host, _port = host_and_port(address)
    if not is_loopback(host):
        raise ValueError("should be a loopback address: whoever may connect reads all of it")
    return address


MonitoringAddress = Annotated[str, AfterValidator(_checked_monitoring)]
"""HOST:PORT on this host, for `/metrics`, `/healthz` and `/readyz`."""


class CommonStoreSettings(BaseModel):
    """The keys that a section `[stores.NAME]` of any type may have."""

    model_config = ConfigDict(frozen=True)

    replicas: tuple[str, ...] = ()
    """Stores that get a copy, in the background, of every image that is uploaded to this one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A valid configuration."""

    source: str
    """The file it came from, or `DEFAULTS`."""
    catalog: CatalogSettings
    stores: Mapping[str, BaseModel]
    """Store name -> its section, validated by the model of its type; a section with a mistake is
    a BrokenStoreSettings."""
    cache: CacheSettings = field(default_factory=lambda: CacheSettings(size=0))
    """No cache unless it is given; `load` always gives it."""
    log: LogSettings = field(default_factory=LogSettings)
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Store name -> the stores that get copies of its images."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Section name -> the file's table, for the sections that packages contribute."""

    def section(self, name: str) -> Any:
        """The contributed section `name`, an instance of that package's own model.

        It is validated only here, so that a mistake in it stops only the program that needs it.
        Raises InvalidSettings.
        """
        point = _contributed()[name]
        return validated(self.source, name, point.load(), self.tables.get(name, {}))

    @property
    def sections(self) -> Mapping[str, BaseModel]:
        """Every contributed section, with its defaults.  Raises InvalidSettings."""
        return {name: self.section(name) for name in contributed_sections()}


def contributed_sections() -> list[str]:
    """The names of the sections that packages contribute; each belongs to one program."""
    return sorted(_contributed())


@cache
def _contributed() -> dict[str, EntryPoint]:
    """The sections by their names; asking each installed distribution takes some 5 ms."""
    return {point.name: point for point in entry_points(group=_CONTRIBUTED)}


def validated(
    source: str, key: str, model: type[_Model], table: Any, also: Collection[str] = ()
) -> _Model:
    """Validate one table; `key` is its dotted name in the file.

    `also` are keys that are allowed beside it, and validated elsewhere.

    It is validated as JSON: strict mode then accepts text for a path, but neither "yes" for
    true nor "60" for 60.  It is strict here, so that no model can forget to be.
    """
    if not isinstance(table, dict):
        refuse(source, key, "should be a section")
    text = json.dumps(table, default=str)
    try:
        return model.model_validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        # A misspelt key is unknown, and its right name may be missing as well.  Report the
        # unknown key first.
        problems = error.errors(include_url=False)
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        problem, others = problems[0], len(problems) - 1
        where = ".".join([key, *map(str, problem["loc"])])
        more = f" (and {others} more)" if others else ""
        refuse(source, where, _explain(problem, {*model.model_fields, *also}) + more)


def _explain(problem: ErrorDetails, allowed: Collection[str]) -> str:
    """What is allowed, but never the value itself, as it may be a secret."""
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        close = get_close_matches(str(problem["loc"][0]), allowed, n=1, cutoff=0.7)
        hint = f", did you mean {close[0]}?" if close else ";"
        return f"unknown key{hint} allowed: {listed(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "should").replace("Field required", "is required")


def refuse(source: str, key: str, reason: str) -> NoReturn:
    """Raise InvalidSettings for a key of the file."""
    raise InvalidSettings(source, f"{key}: {reason}")


def listed(names: Any) -> str:
    """Names as a person reads them, in order."""
    return ", ".join(sorted(names))
