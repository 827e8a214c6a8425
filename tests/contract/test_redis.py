"""The Redis storage keeps the storage contract, on the oldest Redis that is supported and on Valkey."""

import pytest

from saga.clock import Clock
from saga.storage.redis import RedisSagaStorage
from saga.testing.storage_contract import SharedStorageContract, StorageContract


class TestRedisSagaStorage(StorageContract, SharedStorageContract):
    """Every promise of the contract."""

    @pytest.fixture(autouse=True)
    def place(self, redis_url: str, prefix: str) -> None:
        """Choose the server and the prefix of this test."""
        self.url = redis_url
        self.prefix = prefix

    def storage(self, clock: Clock) -> RedisSagaStorage:
        """Return a storage under the prefix of this test."""
        return RedisSagaStorage(self.url, prefix=self.prefix, clock=clock)


class TestValkeyOnOneConnection(StorageContract):
    """Every promise of the contract, where all calls share one connection to a Valkey server."""

    @pytest.fixture(autouse=True)
    def place(self, valkey_url: str, prefix: str) -> None:
        """Choose the server and the prefix of this test."""
        self.url = valkey_url
        self.prefix = prefix

    def storage(self, clock: Clock) -> RedisSagaStorage:
        """Return a storage under the prefix of this test."""
        return RedisSagaStorage(self.url, prefix=self.prefix, clock=clock, connections=1)
