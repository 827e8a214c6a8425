"""The SQLite storage keeps the storage contract, also where several storages use one file."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from saga.clock import Clock
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing.storage_contract import (
    CommitGate,
    GuestConnectionContract,
    HeldCommitContract,
    HostClockContract,
    StorageContract,
)


class HeldSQLiteSagaStorage(SQLiteSagaStorage):
    """Passes a gate before each COMMIT."""

    def __init__(self, path: Path, clock: Clock, gate: CommitGate) -> None:
        """Use this file, clock and gate."""
        super().__init__(path, clock=clock)
        self._gate = gate

    def _at(self, instant: str, saga_ids: Sequence[str]) -> None:
        if instant == "written":
            self._gate.pass_through()


class TestSQLiteSagaStorage(StorageContract, HeldCommitContract, HostClockContract, GuestConnectionContract):
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

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[sqlite3.Connection]:
        """A connection to the same file."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    async def execute(self, connection: sqlite3.Connection, sql: str) -> None:
        """Run a statement."""
        connection.execute(sql).close()

    async def begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock."""
        await self.execute(connection, "BEGIN IMMEDIATE")
