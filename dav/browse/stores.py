"""The overview of all stores, with their free bytes and their images."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import CatalogError
from catalog.model.access import Principal
from catalog.model.listings import StoreTotals
from catalog.stores.base import Capability, Store, Usage
from catalog.tree.listings import store_totals
from catalog.tree.vfs import Vfs
from web.exchange.errors import told

_NOTHING = StoreTotals(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class StoreCard:
    """One store of the overview."""

    name: str
    is_default: bool
    takes: str
    """One word for what can be put there."""
    totals: StoreTotals
    usage: Usage
    problem: str
    """Why it does not answer, or empty."""

    @property
    def used(self) -> int | None:
        """Bytes that are used on the store's disk or service, by images and anything else."""
        if self.usage.total is None or self.usage.free is None:
            return None
        return self.usage.total - self.usage.free


def store_cards(vfs: Vfs, principal: Principal) -> tuple[StoreCard, ...]:
    """All configured stores, by name, with the totals of what the principal may see."""
    totals = store_totals(vfs.catalog, principal)
    stores = sorted(vfs.catalog.stores.items())
    return tuple(
        _card(vfs, name, store, totals.get(name, _NOTHING), principal) for name, store in stores
    )


def _card(
    vfs: Vfs, name: str, store: Store, totals: StoreTotals, principal: Principal
) -> StoreCard:
    problem, usage = "", Usage(None, None)
    try:
        usage = store.usage()
    except CatalogError as error:
        problem = told(error, principal)
    is_default = name == vfs.catalog.settings.default_store
    return StoreCard(name, is_default, _takes(store), totals, usage, problem)


def _takes(store: Store) -> str:
    if Capability.EXTERNAL in store.capabilities:
        return "links"
    return "uploads" if Capability.WRITE in store.capabilities else "read-only"
