"""The storage contract in PostgreSQL: durable, and shared by the processes of many hosts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from saga.checks import is_int, is_number, refuse
from saga.exceptions import SagaStorageError
from saga.storage import _postgresql_reader as reader
from saga.storage._checks import already_exists, check_query
from saga.storage._group_commit import GroupCommit
from saga.storage._grouped import GroupedStorage
from saga.storage._postgresql_connections import Connections
from saga.storage._postgresql_errors import FAILURES, translate
from saga.storage._postgresql_hints import Hints
from saga.storage._postgresql_migrations import grants_sql, migrate, migration_sql, missing
from saga.storage._postgresql_statements import Statements, check_name
from saga.storage._postgresql_writer import Writer
from saga.storage._urls import masked
from saga.storage.cursor import EntryPlace, RowPlace, read_cursor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from saga.clock import Clock
    from saga.storage._postgresql_connections import Connection
    from saga.storage._writes import Create, Write
    from saga.storage.base import Appended, Entry, StoredSaga
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics

T = TypeVar("T")

LANES = 2
"""Flushes that may be on their way at once: while one is being made durable, the next is being gathered and sent."""


class PostgreSQLSagaStorage(GroupedStorage):
    """Keeps sagas in a schema of a PostgreSQL database: what is answered survives as the server's commits do."""

    def __init__(
        self,
        url: str,
        *,
        schema: str = "saga",
        connections: int = 3,
        answer_timeout: float = 10.0,
        pooler: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Name the database; nothing is connected before the storage is entered.

        Args:
            url: ``postgresql://user:password@host:port/database``, with libpq's parameters.
            schema: Where the tables are; made when the storage is entered, if the role may.
            connections: How many connections at the most, 1 or more.
            answer_timeout: After how many seconds a call is told that the server does not answer.
            pooler: Whether the URL leads to a pooler in transaction mode (PgBouncer), which keeps no session. Nobody is
                told then that a saga has become due before the next sweep.
            clock: For tests: stamps what is stored and judges leases instead of the server's clock, which is the same
                for all processes.

        Raises:
            SagaValidationError: If a value is none of these.
        """
        super().__init__()
        if not isinstance(url, str) or not url.startswith(("postgresql://", "postgres://")):
            refuse("url", masked(url), "postgresql://user:password@host:port/database")
        if not (is_int(connections) and connections >= 1):
            refuse("connections", connections, "an integer, at least 1")
        if not (is_number(answer_timeout) and answer_timeout > 0):
            refuse("answer_timeout", answer_timeout, "a finite number of seconds above 0")
        self._place = masked(url)
        self._statements = Statements(check_name("schema", schema))
        self._lanes = min(LANES, connections)
        self._answer_timeout = answer_timeout
        self._connections = Connections(url, self._place, connections, answer_timeout, pooler=pooler)
        self._writer = Writer(self._connections, self._statements, clock, hints=not pooler)
        self._hints = None if pooler else Hints(self._connections, self._statements.schema)
        self._flushes: set[asyncio.Task[None]] = set()

    @staticmethod
    def migrations(schema: str = "saga") -> str:
        """Return the SQL that makes the schema, for whoever applies such things by hand; applying it twice is refused.

        Args:
            schema: The schema's name.

        Raises:
            SagaValidationError: If the name is not a plain one.
        """
        return migration_sql(schema)

    @staticmethod
    def grants(role: str, schema: str = "saga") -> str:
        """Return the SQL that grants a role what running sagas needs, and no right to change the tables.

        Args:
            role: The role's name.
            schema: The schema's name.

        Raises:
            SagaValidationError: If a name is not a plain one.
        """
        return grants_sql(role, schema)

    def __repr__(self) -> str:
        """Return the class, the URL without its password, and the schema."""
        return f"{type(self).__name__}({self._place!r}, schema={self._statements.schema!r})"

    async def open(self) -> None:
        """Connect, and make or complete the schema.

        Raises:
            SagaStorageError: If the server cannot be reached, refuses, or holds a schema of another version.
        """
        self._session.enter()
        async with AsyncExitStack() as undo:
            undo.callback(self._session.leave)
            undo.push_async_callback(self._connections.close)
            await self._connections.open()
            await self._connections.run(self._check_durability)
            schema = self._statements.schema
            if await self._connections.run(partial(missing, schema=schema)):
                await self._connections.run(partial(migrate, schema=schema), atomic=True)
            undo.pop_all()
        # More than a call of its own may take: a flush answers for itself.
        self._commits = GroupCommit(self._flush, 4 * self._answer_timeout, lanes=self._lanes)

    async def _check_durability(self, connection: Connection) -> None:
        setting = await connection.fetchval("SELECT current_setting('synchronous_commit')")
        if setting == "off":
            message = (
                f"PostgreSQL at {self._place} has synchronous_commit off for this role or database, so that a commit "
                "may be lost after it was answered: set it to on, or use another role"
            )
            raise SagaStorageError(message)

    async def close(self) -> None:
        """Wait for the writes that were accepted and disconnect."""
        if self._session.is_open:
            self._session.check()
            self._session.leave()
            await asyncio.shield(asyncio.create_task(self._close()))

    async def _close(self) -> None:
        if self._hints is not None:
            await self._hints.end()
        await self._commits.drain()
        await self._connections.close()

    def _flush(self, writes: Sequence[Write], flushed: Callable[[BaseException | None], object]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._flushes.discard(task)
            flushed(asyncio.CancelledError() if task.cancelled() else task.exception())

        task = asyncio.create_task(self._writer.flush(writes))
        self._flushes.add(task)
        task.add_done_callback(done)

    async def _read(self, question: Callable[..., Awaitable[T]], *values: Any) -> T:
        self._session.check()
        return await self._connections.run(lambda on: question(on, self._statements, *values))

    def listen(self, wake: Callable[[str], None]) -> None:
        """Call this function with the id of a saga that somebody made due, on a connection of its own."""
        self._session.check()
        if self._hints is not None:
            self._hints.begin(wake)

    async def _create_on(self, connection: Any, new: Create) -> Appended:
        if not isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
            refuse("connection", connection, f"a connection of asyncpg to the database of saga {new.saga_id}'s storage")
        if not connection.is_in_transaction():
            refuse("connection", connection, "inside a transaction: async with connection.transaction()")
        try:
            async with asyncio.timeout(self._answer_timeout):
                answer = await self._writer.create_on(connection, new)
        except FAILURES as error:
            raise translate(error, self._place) from error
        if answer is None:
            raise already_exists(new.saga_id)
        return answer

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals."""
        return await self._read(reader.load, list(dict.fromkeys(saga_ids)))

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time."""
        check_query(limit)
        return await self._read(reader.query, selected, read_cursor(cursor, RowPlace), limit)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Return a journal, oldest entry first, a page at a time."""
        check_query(limit)
        return await self._read(reader.history, saga_id, read_cursor(cursor, EntryPlace), limit)

    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status."""
        return await self._read(reader.statistics)

    async def health_check(self) -> None:
        """Return if the server answers."""
        self._session.check()
        await self._connections.run(reader.check)
