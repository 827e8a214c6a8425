"""The PostgreSQL storage keeps the contract: for its owner, for a role with few rights, and on one connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from saga.clock import Clock
from saga.storage._postgresql_connections import Connection
from saga.storage.postgresql import PostgreSQLSagaStorage
from saga.testing.storage_contract import CommitGate, GuestConnectionContract, HeldCommitContract, StorageContract
from tests.servers import PASSWORD


class HeldPostgreSQLSagaStorage(PostgreSQLSagaStorage):
    """Passes a gate before each COMMIT."""

    def __init__(self, url: str, schema: str, clock: Clock, gate: CommitGate) -> None:
        """Use this schema, clock and gate."""
        super().__init__(url, schema=schema, clock=clock)
        run = self._connections.run

        async def run_held(work: Callable[[Connection], Awaitable[Any]], *, atomic: bool = False) -> Any:
            async def hold(connection: Connection) -> Any:
                answer = await work(connection)
                await asyncio.to_thread(gate.pass_through)
                return answer

            return await run(hold, atomic=True)

        self._connections.run = run_held  # type: ignore[method-assign]


class TestPostgreSQLSagaStorage(StorageContract, HeldCommitContract, GuestConnectionContract):
    """Every promise of the contract."""

    @pytest.fixture(autouse=True)
    def place(self, postgres_url: str, schema: str) -> None:
        """Choose the server and the schema of this test."""
        self.url = postgres_url
        self.schema = schema

    def storage(self, clock: Clock) -> PostgreSQLSagaStorage:
        """Return a storage on the schema of this test."""
        return PostgreSQLSagaStorage(self.url, schema=self.schema, clock=clock)

    def held(self, clock: Clock, gate: CommitGate) -> PostgreSQLSagaStorage:
        """Return a storage on the same schema that passes the gate."""
        return HeldPostgreSQLSagaStorage(self.url, self.schema, clock, gate)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection to the same database."""
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, connection: Any, sql: str) -> None:
        """Run a statement."""
        await connection.execute(sql)


class TestPostgreSQLOnOneConnection(StorageContract):
    """Every promise, where all calls share one connection and nothing is kept in its session."""

    @pytest.fixture(autouse=True)
    def place(self, postgres_url: str, schema: str) -> None:
        """Choose the server and the schema of this test."""
        self.url = postgres_url
        self.schema = schema

    def storage(self, clock: Clock) -> PostgreSQLSagaStorage:
        """Return a storage with one connection."""
        return PostgreSQLSagaStorage(self.url, schema=self.schema, clock=clock, connections=1, pooler=True)


@pytest.fixture(scope="module")
def plain_role(postgres_url: str) -> Iterator[str]:
    """The URL of a role that may do nothing but what it is granted."""
    role = "saga_plain_role"
    asyncio.run(
        _execute(postgres_url, f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    )
    place = postgres_url.partition("@")[2]
    yield f"postgresql://{role}:{PASSWORD}@{place}"
    asyncio.run(_execute(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}"))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class TestPostgreSQLAsAPlainRole(StorageContract):
    """Every promise, for a role with the rights that docs/storage-postgresql.md lists and no other."""

    @pytest.fixture(autouse=True)
    def place(self, postgres_url: str, plain_role: str, schema: str) -> None:
        """Make the schema as somebody else, and grant the role what the documentation lists."""
        self.url = plain_role
        self.schema = schema
        grants = PostgreSQLSagaStorage.grants("saga_plain_role", schema)
        asyncio.run(_execute(postgres_url, PostgreSQLSagaStorage.migrations(schema), grants))

    def storage(self, clock: Clock) -> PostgreSQLSagaStorage:
        """Return a storage that the role uses."""
        return PostgreSQLSagaStorage(self.url, schema=self.schema, clock=clock)
