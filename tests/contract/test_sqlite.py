"""The SQLite storage keeps the storage contract, also where several storages use one file."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from saga.clock import Clock
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing.storage_contract import CommitGate, HeldCommitContract, HostClockContract, StorageContract


class HeldSQLiteSagaStorage(SQLiteSagaStorage):
    """Passes a gate before each COMMIT."""

    def __init__(self, path: Path, clock: Clock, gate: CommitGate) -> None:
        """Use this file, clock and gate."""
        super().__init__(path, clock=clock)
        self._gate = gate

    def _at(self, instant: str, saga_ids: Sequence[str]) -> None:
        if instant == "written":
            self._gate.pass_through()


class TestSQLiteSagaStorage(StorageContract, HeldCommitContract, HostClockContract):
    """Every promise of the contract."""

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        """Choose the file of this test."""
        self.path = tmp_path / "sagas.db"

    def storage(self, clock: Clock) -> SQLiteSagaStorage:
        """Return a storage on the file of this test."""
        return SQLiteSagaStorage(self.path, clock=clock)

    def held(self, clock: Clock, gate: CommitGate) -> SQLiteSagaStorage:
        """Return a storage on the same file that passes the gate."""
        return HeldSQLiteSagaStorage(self.path, clock, gate)
