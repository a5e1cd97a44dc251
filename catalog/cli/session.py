"""The parts that one run of the command works with; each is opened when it is first needed.

Threading: one thread.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalog import cause
from catalog.errors import CatalogDamaged, Forbidden
from catalog.model.access import Principal
from catalog.service import host_users

if TYPE_CHECKING:
    from catalog.catalog import Catalog
    from catalog.settings import Settings
    from catalog.tree.vfs import Vfs


class Session:
    """The settings, the catalog and the principal."""

    def __init__(self, config: Path | None = None) -> None:
        """`config` is the file of `--config`."""
        self._config = config
        self.reads_only = False
        """As `Catalog.reads_only`; set before the catalog is opened."""

    @cached_property
    def settings(self) -> Settings:
        """The configuration.  Raises InvalidSettings."""
        return self.reread()

    def reread(self) -> Settings:
        """The configuration as its file is now.  Raises InvalidSettings."""
        from catalog.service.configuration import load_usable

        return load_usable(self._config)

    @cached_property
    def vfs(self) -> Vfs:
        """The tree over the open catalog.  Raises as `bootstrap.open_catalog`."""
        from catalog.service.bootstrap import open_catalog
        from catalog.tree.vfs import Vfs

        cause.begin("command", principal=self.principal.name)
        return Vfs(open_catalog(self.settings, reads_only=self.reads_only))

    @property
    def catalog(self) -> Catalog:
        """The open catalog.  Raises as `vfs`."""
        return self.vfs.catalog

    @cached_property
    def principal(self) -> Principal:
        """The user who runs the command."""
        return host_users.principal_of_uid(
            os.geteuid(), host_users.admin_uids(self.settings.catalog.url)
        )

    def require_admin(self, what: str) -> None:
        """Raise Forbidden unless an administrator runs the command."""
        if not self.principal.is_admin:
            raise Forbidden(what, "needs root or the owner of the catalog's database")

    def damage(self) -> CatalogDamaged | None:
        """The damage of the open catalog's database, if any is found."""
        if "vfs" not in self.__dict__:
            return None
        from catalog.service.configuration import database_of

        found = self.catalog.damages()
        return CatalogDamaged(database_of(self.settings), found[0]) if found else None

    def close(self) -> None:
        """Close what was opened."""
        if "vfs" in self.__dict__:
            self.vfs.close()


pass_session = click.make_pass_decorator(Session)
