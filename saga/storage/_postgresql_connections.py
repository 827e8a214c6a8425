"""Connections to PostgreSQL: few, each bounded in every wait, and thrown away once one of its calls was cut short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError
from saga.storage._postgresql_errors import DISCONNECTED, FAILURES, REFUSED_VALUES, TRY_AGAIN, translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Connection = Any
"""An asyncpg connection; the driver's own annotation names the type of its records, too."""

T = TypeVar("T")

TRIES = 5
"""How often a statement is tried that met a deadlock or a connection that had ended."""

_SETTINGS = {
    "application_name": "saga",
    # A statement meets tables of every size: planned once, by index, and never compiled.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class Connections:
    """A pool of one or more connections."""

    def __init__(self, url: str, place: str, size: int, timeout: float, *, pooler: bool) -> None:
        """Keep what is needed to connect.

        Args:
            url: Where to connect.
            place: The same for messages, without the password.
            size: How many connections at the most.
            timeout: Seconds after which a call is given up, connecting included.
            pooler: Whether a pooler in transaction mode stands between, so that nothing may be kept in a session.
        """
        self._url = url
        self._place = place
        self._size = size
        self._timeout = timeout
        self._pooler = pooler
        # The server must give up before this side does, so that nothing of a call given up waits there for a lock.
        waits = {
            "lock_timeout": f"{round(timeout * 500)}ms",
            "statement_timeout": f"{round(timeout * 900)}ms",
            "idle_in_transaction_session_timeout": f"{round(timeout * 500)}ms",
        }
        self._settings = {**_SETTINGS, **waits}
        self._set_local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in self._settings.items())
        self._pool: Any = None

    async def open(self) -> None:
        """Connect.

        Raises:
            SagaStorageError: If that is not possible; says why.
        """
        try:
            async with asyncio.timeout(self._timeout):
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,  # A connection is made where a call needs it, so its errors are that call's.
                    max_size=self._size,
                    max_inactive_connection_lifetime=0,
                    reset=_nothing_to_reset,
                    **self._options(),
                )
                async with self._pool.acquire():
                    pass
        except (*FAILURES, ValueError, asyncpg.ClientConfigurationError) as error:
            raise self._translated(error) from None

    async def connect(self) -> Connection:
        """Return a connection of its own, for a listener.

        Raises:
            SagaStorageError: If that is not possible; says why.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncpg.connect(self._url, **self._options())
        except FAILURES as error:
            raise self._translated(error) from None

    def _options(self) -> dict[str, Any]:
        if self._pooler:
            return {"timeout": self._timeout, "statement_cache_size": 0}
        return {
            "timeout": self._timeout,
            "max_cached_statement_lifetime": 0,
            "server_settings": self._settings,
        }

    async def close(self) -> None:
        """Disconnect; what does not answer is cut off."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(self._timeout):
                    await pool.close()
            except FAILURES:
                pool.terminate()

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, atomic: bool = False) -> T:
        """Do some work on a connection and return what it returns.

        The work must be such that doing it twice does no harm: where the connection had ended, or met a deadlock, it
        is done anew on another one.

        Args:
            work: One statement, or several if atomic.
            atomic: Whether to open a transaction around it.

        Raises:
            SagaStorageUnavailableError: If the server does not answer in time.
            SagaStorageError: If it refuses.
        """
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._run(work, atomic=atomic or self._pooler)
            except TimeoutError as error:
                raise self._translated(error) from error
            except (asyncpg.UniqueViolationError, *REFUSED_VALUES):
                raise  # The caller knows whose values these are.
            except (*TRY_AGAIN, *DISCONNECTED) as error:
                failed: BaseException = error
            except FAILURES as error:
                raise self._translated(error) from error
        raise self._translated(failed) from failed

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, atomic: bool) -> T:
        connection = await self._pool.acquire()
        whole = False
        try:
            result = await self._in_transaction(connection, work) if atomic else await work(connection)
            whole = True
        except (asyncpg.PostgresError, *REFUSED_VALUES):
            # The server's own answer, or the driver's refusal to send: the connection is as good as before.
            whole = not connection.is_in_transaction()
            raise
        finally:
            if not whole:
                connection.terminate()
            await self._pool.release(connection)
        return result

    async def _in_transaction(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        await connection.execute(f"BEGIN; {self._set_local}" if self._pooler else "BEGIN")
        try:
            result = await work(connection)
        except (asyncpg.PostgresError, *REFUSED_VALUES):
            await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
        return result

    def _translated(self, error: BaseException) -> SagaStorageError:
        if isinstance(error, SagaStorageError):
            return error
        if isinstance(error, ValueError | asyncpg.ClientConfigurationError):
            return SagaStorageUnavailableError(f"the URL {self._place} is not one of PostgreSQL: {error}")
        return translate(error, self._place)


async def _nothing_to_reset(_connection: Connection) -> None:
    """Spare the round trip: no statement here changes its session."""
