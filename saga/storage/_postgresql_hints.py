"""Hints that a saga has become due, by LISTEN and NOTIFY: they save the wait for a sweep; nothing depends on them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from saga.exceptions import SagaStorageError
from saga.storage._postgresql_errors import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from saga.storage._postgresql_connections import Connection, Connections

RECONNECT_SECONDS = 5.0


class Hints:
    """Listens on a connection of its own, and connects again where that ends."""

    def __init__(self, connections: Connections, schema: str) -> None:
        """Keep where to listen."""
        self._connections = connections
        self._channel = f"saga {schema}"
        self._task: asyncio.Task[None] | None = None

    def begin(self, wake: Callable[[str], None]) -> None:
        """Call this function with the id of each saga that is hinted at."""
        self._task = asyncio.create_task(self._listen(wake))

    async def end(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self, wake: Callable[[str], None]) -> None:
        while True:
            with suppress(SagaStorageError, *FAILURES):
                await self._listen_once(wake)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen_once(self, wake: Callable[[str], None]) -> None:
        connection = await self._connections.connect()
        ended = asyncio.Event()

        def hear(_connection: Connection, _process: int, _channel: str, saga_id: str) -> None:
            wake(saga_id)

        try:
            connection.add_termination_listener(lambda _connection: ended.set())
            await connection.add_listener(self._channel, hear)
            await ended.wait()
        finally:
            connection.terminate()
