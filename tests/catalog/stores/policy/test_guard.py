"""A store with all its policy around it is still a store."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from catalog.errors import InvalidSettings
from catalog.service.configuration import load
from catalog.stores import registry
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.stores.policy.guard import Operation
from catalog.stores.policy.remote import RemoteStore
from catalog.stores.policy.settings import PolicySettings, RemoteStoreSettings
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all


class TestContract(WriteContract):
    @pytest.fixture(
        params=[PolicySettings(), PolicySettings(read_rate=1 << 30, write_rate=1 << 30)]
    )
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        """With and without a limited rate."""
        store = RemoteStore(MemoryStore("mem", MemoryStoreSettings()), request.param)
        return Subject(store, put_by_writer(store), store.url_of("missing"))


class FarSettings(RemoteStoreSettings):
    """`[stores.NAME]` of a driver that is remote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = "far"


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote driver, registered as any."""

    def driver(name: str, settings: BaseModel) -> MemoryStore:
        return MemoryStore(name, MemoryStoreSettings())

    drivers = {**registry.DRIVERS, "far": (FarSettings, driver)}
    monkeypatch.setattr(registry, "DRIVERS", drivers)
    monkeypatch.setattr("catalog.service.configuration.DRIVERS", drivers)


@pytest.mark.usefixtures("far")
def test_configured(tmp_path) -> None:
    """A remote store gets the policy of its section, a local one none."""
    path = tmp_path / "imagefs.toml"
    path.write_text('[stores.file]\ntype = "far"\n[stores.file.policy]\nweight = 7\ndeadline = 5\n')
    settings = load(path)
    store = registry.open_store("file", settings.stores["file"])
    assert isinstance(store, RemoteStore)
    assert store.weight == 7
    assert isinstance(registry.open_store("m", MemoryStoreSettings()), MemoryStore)
    path.write_text('[stores.file]\ntype = "far"\n[stores.file.policy]\nretries = 7\n')
    with pytest.raises(InvalidSettings, match=r"stores\.file\.policy\.retries"):
        load(path)


def test_metrics_count_what_the_driver_was_asked() -> None:
    """Requests, bytes and time of each operation."""
    store = RemoteStore(MemoryStore("mem", MemoryStoreSettings()), PolicySettings())
    url = put_by_writer(store)("a", DATA)
    assert read_all(store, url) == DATA
    counts = store.metrics()
    assert counts[Operation.READ].bytes == counts[Operation.WRITE].bytes == len(DATA)
    assert counts[Operation.COMMIT].requests == counts[Operation.OPEN].requests == 1
    assert counts[Operation.READ].errors == 0
