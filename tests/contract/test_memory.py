"""The memory storage keeps the storage contract."""

from saga.clock import Clock
from saga.storage.memory import InMemorySagaStorage
from saga.testing.storage_contract import HostClockContract, StorageContract


class TestInMemorySagaStorage(StorageContract, HostClockContract):
    """Every promise of the contract."""

    def storage(self, clock: Clock) -> InMemorySagaStorage:
        """Return an empty storage."""
        return InMemorySagaStorage(clock=clock)
