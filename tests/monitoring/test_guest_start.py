"""A start in the caller's own transaction, as observers hear of it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from saga import (
    LeaveReason,
    Observer,
    SagaAlreadyExistsError,
    SagaContext,
    SagaInfo,
    SagaOrchestrator,
    SQLiteSagaStorage,
)
from tests.unit.kit import chain, step


class Leaves(Observer):
    """Writes down when it is told that this process drives a saga no more."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.reasons: list[LeaveReason] = []

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Write it down."""
        self.reasons.append(reason)


@pytest.mark.asyncio
async def test_a_start_in_the_callers_transaction_of_a_saga_that_runs_here_disturbs_nobody(tmp_path: Path) -> None:
    """Observers know it already: they are neither asked for headers again nor told that it was left."""
    leaves, go_on = Leaves(), asyncio.Event()

    async def wait(ctx: SagaContext) -> None:
        await go_on.wait()

    cls = chain(step("a", wait))
    file = tmp_path / "sagas.db"
    async with (
        SQLiteSagaStorage(file) as storage,
        SagaOrchestrator(storage, sagas=[cls], observers=[leaves]) as runs,
    ):
        first = await runs.start(cls(), saga_id="s")
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await runs.start(cls(), saga_id="s", connection=connection)
            connection.execute("ROLLBACK")
        assert LeaveReason.RELEASED not in leaves.reasons
        go_on.set()
        assert (await first.wait()).success
    assert leaves.reasons == [LeaveReason.REST]


@pytest.mark.asyncio
async def test_a_start_in_the_callers_transaction_that_is_refused_is_lost(tmp_path: Path) -> None:
    """What an observer has begun for it came to nothing."""
    leaves = Leaves()
    file = tmp_path / "sagas.db"
    async with SQLiteSagaStorage(file) as storage, SagaOrchestrator(storage, observers=[leaves]) as runs:
        await runs.execute(chain(step("a"))(), saga_id="s")
        leaves.reasons.clear()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(SagaAlreadyExistsError):
                await runs.start(chain(step("a"), name="Other")(), saga_id="s", connection=connection)
            connection.execute("ROLLBACK")
    assert leaves.reasons == [LeaveReason.LOST]
