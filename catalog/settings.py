"""The configuration: one TOML file, or the built-in defaults.

Scope: which file is read, what it may contain, and the one line that reports a mistake in it.  A
package adds a top-level section of its own through the entry-point group `imagefs.settings`.
Threading: `load` reads the environment; its result is immutable.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from catalog.errors import InvalidSettings
from catalog.stores.base import Capability
from catalog.stores.broken import BrokenStoreSettings
from catalog.stores.glance_locations import explain_type
from catalog.stores.registry import DRIVERS, open_store

_Model = TypeVar("_Model", bound=BaseModel)

SYSTEM_FILE = Path("/etc/imagefs/imagefs.toml")
DEFAULTS = "built-in defaults"
"""The value of `Settings.source` if no file was found."""

_CONTRIBUTED = "imagefs.settings"
_STORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Not a relative SQLite path: it would be another catalog in every working directory.
_DATABASE_URL = re.compile(r"sqlite(\+\w+)?:////.+|(?!sqlite)\w+(\+\w+)?://.+")
_PASSWORD = re.compile(r"(://[^:/@]*):.*@")


def state_folder() -> Path:
    """The folder that has the catalog, the images and the staging area by default.

    `$IMAGEFS_STATE` if set, `/var/lib/imagefs` for root, else the user's folder
    (XDG Base Directory Specification, `$XDG_STATE_HOME`).
    """
    if override := os.environ.get("IMAGEFS_STATE"):
        return Path(override).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/imagefs")
    return _xdg_folder("XDG_STATE_HOME", ".local/state") / "imagefs"


def _xdg_folder(variable: str, default: str) -> Path:
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


class CommonStoreSettings(BaseModel):
    """The keys that a section `[stores.NAME]` of any type may have."""

    model_config = ConfigDict(frozen=True)

    replicas: tuple[str, ...] = ()
    """Stores that get a copy, in the background, of every image that is uploaded to this one."""


_COMMON = frozenset(CommonStoreSettings.model_fields)


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
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Store name -> the stores that get copies of its images."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Section name -> the file's table, for the sections that packages contribute."""

    def section(self, name: str) -> Any:
        """The contributed section `name`, an instance of that package's own model.

        It is validated only here, so that a mistake in it stops only the program that needs it.
        Raises InvalidSettings.
        """
        (point,) = entry_points(group=_CONTRIBUTED, name=name)
        return _section(self.source, name, point.load(), self.tables.get(name, {}))

    @property
    def problems(self) -> Mapping[str, str]:
        """Store name -> what is wrong with its section."""
        return {
            name: section.problem
            for name, section in self.stores.items()
            if isinstance(section, BrokenStoreSettings)
        }

    @property
    def sections(self) -> Mapping[str, BaseModel]:
        """Every contributed section, with its defaults.  Raises InvalidSettings."""
        return {name: self.section(name) for name in contributed_sections()}


def load(path: Path | None = None) -> Settings:
    """As `load_usable`, but raises InvalidSettings for a mistake in a store's section, too."""
    settings = load_usable(path)
    for problem in settings.problems.values():
        raise InvalidSettings(settings.source, problem)
    return settings


def load_usable(path: Path | None = None) -> Settings:
    """Read the first file that exists; a mistake in a store's section breaks only that store.

    The files are `path` (of `--config`), `$IMAGEFS_CONFIG`, `/etc/imagefs/imagefs.toml`, and
    `imagefs/imagefs.toml` in the user's configuration folder.  Raises InvalidSettings, also if
    one of the first two is given and missing.
    """
    source, table = _read_first(path)
    _refuse_unknown(source, table, ["catalog", "stores", "cache", *contributed_sections()])
    stores = _stores(source, table.get("stores"))
    settings = Settings(
        source=source,
        catalog=_section(source, "catalog", CatalogSettings, table.get("catalog", {})),
        stores=MappingProxyType(stores),
        replicas=_replicas(source, table.get("stores") or {}, stores),
        cache=_section(source, "cache", CacheSettings, table.get("cache", {})),
        tables=MappingProxyType(
            {name: table[name] for name in contributed_sections() if name in table}
        ),
    )
    _check_default_store(settings, _writable(stores))
    return settings


def contributed_sections() -> list[str]:
    """The names of the sections that packages contribute; each belongs to one program."""
    return sorted(point.name for point in entry_points(group=_CONTRIBUTED))


def database_of(settings: Settings) -> str:
    """The database's URL without its password."""
    return _PASSWORD.sub(r"\1:***@", settings.catalog.url)


def folders_of(settings: Settings) -> Mapping[str, Path]:
    """Key of the configuration -> a path on this host that the catalog uses."""
    found = {"catalog.staging": settings.catalog.staging, "cache.path": settings.cache.path}
    if settings.catalog.url.startswith("sqlite"):
        found["catalog.url"] = Path("/" + settings.catalog.url.partition(":////")[2])
    for name, section in settings.stores.items():
        path = getattr(section, "path", None)
        if isinstance(path, Path):
            found[f"stores.{name}.path"] = path
    return found


def describe(settings: Settings) -> dict[str, Any]:
    """The whole configuration as plain values for a person or JSON, without secrets."""
    catalog = settings.catalog.model_dump(mode="json")
    catalog["url"] = database_of(settings)
    return {
        "source": settings.source,
        "catalog": catalog,
        "stores": {
            name: section | _plain_replicas(settings, name)
            for name, section in _plain(settings.stores).items()
        },
        "cache": settings.cache.model_dump(mode="json"),
        **_plain(settings.sections),
    }


def _plain_replicas(settings: Settings, store: str) -> dict[str, Any]:
    replicas = settings.replicas.get(store)
    return {"replicas": list(replicas)} if replicas else {}


def _plain(sections: Mapping[str, BaseModel]) -> dict[str, Any]:
    """Sections as JSON values: a path becomes text, and a SecretStr becomes stars."""
    return {name: section.model_dump(mode="json") for name, section in sections.items()}


def _read_first(path: Path | None) -> tuple[str, dict[str, Any]]:
    """The source's name and its content."""
    for candidate, required in _candidates(path):
        try:
            return str(candidate), tomllib.loads(candidate.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if required:
                raise InvalidSettings(str(candidate), "there is no such file") from None
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            raise InvalidSettings(str(candidate), reason) from error
        except UnicodeDecodeError as error:
            raise InvalidSettings(str(candidate), "is not UTF-8 text") from error
        except tomllib.TOMLDecodeError as error:
            raise InvalidSettings(str(candidate), f"is not valid TOML: {error}") from error
    return DEFAULTS, {}


def _candidates(path: Path | None) -> Iterator[tuple[Path, bool]]:
    """The files that may hold the configuration, and whether each must exist."""
    if path is not None:
        yield path, True
    if named := os.environ.get("IMAGEFS_CONFIG"):
        yield Path(named), True
    yield SYSTEM_FILE, False
    yield _xdg_folder("XDG_CONFIG_HOME", ".config") / "imagefs/imagefs.toml", False


def _section(source: str, key: str, model: type[_Model], table: Any) -> _Model:
    """Validate one table; `key` is its dotted name in the file.

    It is validated as JSON: strict mode then accepts text for a path, but neither "yes" for
    true nor "60" for 60.  It is strict here, so that no model can forget to be.
    """
    if not isinstance(table, dict):
        _refuse(source, key, "should be a section")
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
        _refuse(source, where, _explain(problem, model) + more)


def _explain(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """What is allowed, but never the value itself, as it may be a secret."""
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        allowed = _allowed(model)
        close = get_close_matches(str(problem["loc"][0]), allowed, n=1, cutoff=0.7)
        hint = f", did you mean {close[0]}?" if close else ";"
        return f"unknown key{hint} allowed: {_listed(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "should").replace("Field required", "is required")


def _allowed(model: type[BaseModel]) -> set[str]:
    is_store = any(model is of_store for of_store, _driver in DRIVERS.values())
    return set(model.model_fields) | (_COMMON if is_store else set())


def _stores(source: str, table: Any) -> dict[str, BaseModel]:
    if table is None:
        table = {"file": {"type": "filesystem", "path": str(state_folder() / "images")}}
    if not isinstance(table, dict):
        _refuse(source, "stores", "should be sections [stores.NAME]")
    for name in table:
        if not _STORE_NAME.fullmatch(name):
            told = "a store's name is letters, digits, _ and -, and no _ or - first"
            _refuse(source, f"stores.{name}", told)
    return {name: _usable_store(source, name, each) for name, each in table.items()}


def _usable_store(source: str, name: str, table: Any) -> BaseModel:
    """A store's section; if it has a mistake, a BrokenStoreSettings."""
    try:
        return _store(source, name, table)
    except InvalidSettings as error:
        return BrokenStoreSettings(problem=error.reason)


def _store(source: str, name: str, table: Any) -> BaseModel:
    key = f"stores.{name}"
    if not isinstance(table, dict):
        _refuse(source, key, "should be a section")
    kind = str(table.get("type"))
    if kind not in DRIVERS:
        allowed = f"should be one of {_listed(DRIVERS)}"
        _refuse(source, f"{key}.type", explain_type(kind) or allowed)
    model, _ = DRIVERS[kind]
    own = {name: value for name, value in table.items() if name not in _COMMON}
    return _section(source, key, model, own)


def _replicas(
    source: str, table: Mapping[str, Any], stores: dict[str, BaseModel]
) -> Mapping[str, tuple[str, ...]]:
    """The replicas that the stores' sections ask for; a section with a mistake is broken."""
    found = {}
    writable = _writable(stores)
    for name, section in table.items():
        if isinstance(stores[name], BrokenStoreSettings):
            continue
        common = {key: value for key, value in section.items() if key in _COMMON}
        key = f"stores.{name}"
        try:
            wanted = _section(source, key, CommonStoreSettings, common).replicas
            _check_replicas(source, f"{key}.replicas", wanted, {*writable} - {name})
        except InvalidSettings as error:
            stores[name] = BrokenStoreSettings(problem=error.reason)
            continue
        found[name] = wanted
    return MappingProxyType({name: wanted for name, wanted in found.items() if wanted})


def _writable(stores: Mapping[str, BaseModel]) -> list[str]:
    """The names of the stores that take data."""
    return [
        name
        for name, store in stores.items()
        if Capability.WRITE in open_store(name, store).capabilities
    ]


def _check_replicas(source: str, key: str, wanted: Collection[str], allowed: set[str]) -> None:
    """Refuse replicas unless each is a different store that exists and takes data."""
    if not set(wanted) <= allowed or len(set(wanted)) < len(wanted):
        told = f"should be some of {_listed(allowed)}" if allowed else "no other store takes data"
        _refuse(source, key, told)


def _check_default_store(settings: Settings, writable: list[str]) -> None:
    """Raise InvalidSettings unless the default store exists and takes data."""
    if settings.catalog.default_store not in writable:
        for problem in settings.problems.values():
            # Report a broken store instead: it may be why the default store is missing.
            raise InvalidSettings(settings.source, problem)
        allowed = f"should be one of {_listed(writable)}" if writable else "no store takes data"
        _refuse(settings.source, "catalog.default_store", allowed)


def _refuse_unknown(source: str, table: Mapping[str, Any], allowed: list[str]) -> None:
    for key in table:
        if key not in allowed:
            _refuse(source, key, f"unknown section; allowed: {_listed(allowed)}")


def _refuse(source: str, key: str, reason: str) -> NoReturn:
    raise InvalidSettings(source, f"{key}: {reason}")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
