"""The configuration: one TOML file, or the built-in defaults.

Scope: which file is read, what its sections are, and what is shown of them.
Threading: `load` reads the environment; its result is immutable.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from catalog.errors import InvalidSettings
from catalog.settings import (
    DEFAULTS,
    CacheSettings,
    CatalogSettings,
    CommonStoreSettings,
    LogSettings,
    Settings,
    contributed_sections,
    listed,
    refuse,
    state_folder,
    validated,
    xdg_folder,
)
from catalog.stores.base import Capability
from catalog.stores.broken import BrokenStoreSettings
from catalog.stores.glance_locations import explain_type
from catalog.stores.registry import DRIVERS, open_store

SYSTEM_FILE = Path("/etc/imagefs/imagefs.toml")


_STORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


_PASSWORD = re.compile(r"(://[^:/@]*):.*@")


_COMMON = frozenset(CommonStoreSettings.model_fields)


def load(path: Path | None = None) -> Settings:
    """As `load_usable`, but raises InvalidSettings for a mistake in a store's section, too."""
    settings = load_usable(path)
    for problem in problems_of(settings).values():
        raise InvalidSettings(settings.source, problem)
    return settings


def load_usable(path: Path | None = None) -> Settings:
    """Read the first file that exists; a mistake in a store's section breaks only that store.

    The files are `path` (of `--config`), `$IMAGEFS_CONFIG`, `/etc/imagefs/imagefs.toml`, and
    `imagefs/imagefs.toml` in the user's configuration folder.  Raises InvalidSettings, also if
    one of the first two is given and missing.
    """
    source, table = _read_first(path)
    _refuse_unknown(source, table, ["catalog", "stores", "cache", "log", *contributed_sections()])
    stores = _stores(source, table.get("stores"))
    replicas = _replicas(source, table.get("stores") or {}, stores)
    settings = Settings(
        source=source,
        catalog=validated(source, "catalog", CatalogSettings, table.get("catalog", {})),
        stores=MappingProxyType(stores),
        replicas=replicas,
        cache=validated(source, "cache", CacheSettings, table.get("cache", {})),
        log=validated(source, "log", LogSettings, table.get("log", {})),
        tables=MappingProxyType(
            {name: table[name] for name in contributed_sections() if name in table}
        ),
    )
    _check_default_store(settings, _writable(stores))
    return settings


def problems_of(settings: Settings) -> Mapping[str, str]:
    """Store name -> what is wrong with its section."""
    return {
        name: section.problem
        for name, section in settings.stores.items()
        if isinstance(section, BrokenStoreSettings)
    }


def database_of(settings: Settings) -> str:
    """The database's URL without its password."""
    return _PASSWORD.sub(r"\1:***@", settings.catalog.url)


def folders_of(settings: Settings) -> Mapping[str, Path]:
    """Key of the configuration -> a path on this host that the catalog uses."""
    found = {"catalog.staging": settings.catalog.staging, "cache.path": settings.cache.path}
    if settings.catalog.url.startswith("sqlite"):
        found["catalog.url"] = Path("/" + settings.catalog.url.partition(":////")[2])
    if settings.log.file is not None:
        found["log.file"] = settings.log.file
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
        "log": settings.log.model_dump(mode="json"),
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
    yield xdg_folder("XDG_CONFIG_HOME", ".config") / "imagefs/imagefs.toml", False


def _stores(source: str, table: Any) -> dict[str, BaseModel]:
    if table is None:
        table = {"file": {"type": "filesystem", "path": str(state_folder() / "images")}}
    if not isinstance(table, dict):
        refuse(source, "stores", "should be sections [stores.NAME]")
    for name in table:
        if not _STORE_NAME.fullmatch(name):
            told = "a store's name is letters, digits, _ and -, and no _ or - first"
            refuse(source, f"stores.{name}", told)
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
        refuse(source, key, "should be a section")
    kind = str(table.get("type"))
    if kind not in DRIVERS:
        allowed = f"should be one of {listed(DRIVERS)}"
        refuse(source, f"{key}.type", explain_type(kind) or allowed)
    model, _ = DRIVERS[kind]
    own = {name: value for name, value in table.items() if name not in _COMMON}
    return validated(source, key, model, own, also=_COMMON)


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
            wanted = validated(source, key, CommonStoreSettings, common).replicas
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
        told = f"should be some of {listed(allowed)}" if allowed else "no other store takes data"
        refuse(source, key, told)


def _check_default_store(settings: Settings, writable: list[str]) -> None:
    """Raise InvalidSettings unless the default store exists and takes data."""
    if settings.catalog.default_store not in writable:
        for problem in problems_of(settings).values():
            # Report a broken store instead: it may be why the default store is missing.
            raise InvalidSettings(settings.source, problem)
        allowed = f"should be one of {listed(writable)}" if writable else "no store takes data"
        refuse(settings.source, "catalog.default_store", allowed)


def _refuse_unknown(source: str, table: Mapping[str, Any], allowed: list[str]) -> None:
    for key in table:
        if key not in allowed:
            refuse(source, key, f"unknown section; allowed: {listed(allowed)}")
