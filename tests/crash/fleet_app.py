"""What the workers of the fleet tests run: transfers between two accounts, kept by a ledger outside the storage.

``saga worker tests.crash.fleet_app:fleet`` reads what it needs from the environment variable ``FLEET``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from saga import Saga, SagaContext, SagaOrchestrator, SagaStorage, open_storage


class Plan(msgspec.Struct, frozen=True):
    """What a worker needs to know.

    Attributes:
        url: The storage.
        options: Of the storage's constructor.
        ledger: The file of the ledger.
        ttl: The lease, in seconds.
        sweep: The sweep interval, in seconds.
        drain: How long running steps may take to end on SIGTERM, in seconds.
    """

    url: str
    options: dict[str, Any]
    ledger: str
    ttl: float = 1.5
    sweep: float = 1.0
    drain: float = 30.0

    def storage(self) -> SagaStorage:
        """Return the storage."""
        return open_storage(self.url, **self.options)


class Ledger:
    """The service: books each key once, and notes each call."""

    def __init__(self, path: Path | str) -> None:
        """Open the file."""
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS booked "
            "(key TEXT PRIMARY KEY, saga TEXT, step TEXT, account TEXT, amount INTEGER);"
            "CREATE TABLE IF NOT EXISTS calls (at REAL, process INTEGER, saga TEXT, step TEXT);"
        )

    def book(self, ctx: SagaContext, account: str, amount: int) -> None:
        """Book an amount, once under this key."""
        step = ctx.idempotency_key.partition(":")[2]
        call = (time.time(), os.getpid(), ctx.saga_id, step)
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", call)
        booking = (ctx.idempotency_key, ctx.saga_id, step, account, amount)
        self._database.execute("INSERT OR IGNORE INTO booked VALUES (?, ?, ?, ?, ?)", booking)
        self._database.execute("COMMIT")

    def ask(self, sql: str, *values: object) -> list[Any]:
        """Return rows."""
        return self._database.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Transfer(Saga):
    """Takes from one account, pauses, gives to the other; every third one is refused at the end and undone."""

    def __init__(self, number: int, amount: int, pause: float = 0.0) -> None:
        """Keep what is to be transferred."""
        self.number = number
        self.amount = amount
        self.pause = pause

    async def build(self) -> None:
        """Add the steps."""
        await self.add_step("debit", self._debit, self._undo_debit)
        await self.add_step("hold", self._hold, self._unhold, timeout=60.0)
        await self.add_step("credit", self._credit, max_retries=0)

    async def _debit(self, ctx: SagaContext) -> None:
        ctx.resource("ledger").book(ctx, "giver", -self.amount)

    async def _undo_debit(self, _result: None, ctx: SagaContext) -> None:
        ctx.resource("ledger").book(ctx, "giver", self.amount)

    async def _hold(self, ctx: SagaContext) -> None:
        ctx.resource("ledger").book(ctx, "hold", 0)
        await asyncio.sleep(self.pause)

    async def _unhold(self, _result: None, ctx: SagaContext) -> None:
        ctx.resource("ledger").book(ctx, "hold", 0)

    async def _credit(self, ctx: SagaContext) -> None:
        if self.number % 3 == 0:
            message = "the account is closed"
            raise ValueError(message)
        ctx.resource("ledger").book(ctx, "taker", self.amount)


@asynccontextmanager
async def fleet() -> AsyncIterator[SagaOrchestrator]:
    """One worker's orchestrator."""
    plan = msgspec.json.decode(os.environ["FLEET"], type=Plan)
    ledger = Ledger(plan.ledger)
    try:
        async with (
            plan.storage() as storage,
            SagaOrchestrator(
                storage,
                sagas=[Transfer],
                resources={"ledger": ledger},
                lease_ttl=plan.ttl,
                sweep_interval=plan.sweep,
                drain_timeout=plan.drain,
            ) as orchestrator,
        ):
            yield orchestrator
    finally:
        ledger.close()
