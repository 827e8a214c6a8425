"""The storage contract: sagas that are created in a transaction of the caller's own."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from saga.clock import SystemClock
from saga.core import Saga
from saga.exceptions import SagaAlreadyExistsError, SagaNotFoundError, SagaValidationError
from saga.orchestrator import SagaOrchestrator
from saga.storage.base import NewSaga, Row
from saga.testing.contract_kit import FACTS, ContractBase, all_ids, claim_due, create, record, write_id
from saga.types import SagaStatus

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from saga.context import SagaContext
    from saga.storage.base import SagaStorage
    from saga.testing.clock import FakeClock

PENDING = Row(status=SagaStatus.PENDING)


class Paying(Saga):
    """One step that does nothing."""

    def __init__(self, amount: int) -> None:
        """Keep the amount."""
        self.amount = amount

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("pay", self._pay)

    async def _pay(self, _ctx: SagaContext) -> int:
        return self.amount


class GuestConnectionContract(ContractBase):
    """What holds where a storage writes on a connection of the caller's. Mix it in where a storage offers it."""

    @abstractmethod
    def connection(self) -> AbstractAsyncContextManager[Any]:
        """Return a connection to the data of ``storage``, outside any transaction."""

    @abstractmethod
    async def execute(self, connection: Any, sql: str) -> None:
        """Run a statement on it."""

    async def begin(self, connection: Any) -> None:
        """Begin a transaction that writes."""
        await self.execute(connection, "BEGIN")

    async def _put(self, storage: SagaStorage, saga_id: str, connection: Any) -> None:
        new = NewSaga(saga_id=saga_id, saga_name="order", saga_version="1", row=PENDING)
        await storage.create(new, FACTS, claim=None, write_id=write_id(), connection=connection)

    @pytest.mark.asyncio
    async def test_a_saga_exists_once_the_callers_transaction_commits(self, clock: FakeClock) -> None:
        """Together with what else it wrote; before, nobody sees it or can claim it."""
        async with self.storage(clock) as storage, self.connection() as connection:
            await self.execute(connection, "CREATE TABLE IF NOT EXISTS saga_test_orders (id integer)")
            await self.begin(connection)
            await self.execute(connection, "INSERT INTO saga_test_orders VALUES (1)")
            await self._put(storage, "s", connection)
            assert await all_ids(storage) == []
            await self.execute(connection, "COMMIT")
            found = await record(storage, "s")
            assert (found.status, found.version, found.owner, found.fence) == (SagaStatus.PENDING, 1, None, 0)
            assert await claim_due(storage, "t") == ["s"]
            await self.execute(connection, "DROP TABLE saga_test_orders")

    @pytest.mark.asyncio
    async def test_a_saga_is_gone_with_a_transaction_that_is_rolled_back(self, clock: FakeClock) -> None:
        """And can be created again."""
        async with self.storage(clock) as storage, self.connection() as connection:
            await self.begin(connection)
            await self._put(storage, "s", connection)
            await self.execute(connection, "ROLLBACK")
            assert await all_ids(storage) == []
            assert await claim_due(storage, "t") == []
            assert (await create(storage, "s")).version == 1

    @pytest.mark.asyncio
    async def test_a_taken_id_is_refused_and_the_transaction_goes_on(self, clock: FakeClock) -> None:
        """Whether another transaction took it or this one."""
        async with self.storage(clock) as storage, self.connection() as connection:
            await create(storage, "old")
            await self.begin(connection)
            await self._put(storage, "new", connection)
            for saga_id in ("old", "new"):
                with pytest.raises(SagaAlreadyExistsError):
                    await self._put(storage, saga_id, connection)
            await self.execute(connection, "COMMIT")
            assert sorted(await all_ids(storage)) == ["new", "old"]

    @pytest.mark.asyncio
    async def test_what_is_no_connection_in_a_transaction_is_refused(self, clock: FakeClock) -> None:
        """By name, and nothing is written."""
        async with self.storage(clock) as storage, self.connection() as connection:
            with pytest.raises(SagaValidationError, match="connection"):
                await self._put(storage, "s", object())
            with pytest.raises(SagaValidationError, match="transaction"):
                await self._put(storage, "s", connection)
            assert await all_ids(storage) == []

    @pytest.mark.asyncio
    async def test_an_orchestrator_starts_in_the_callers_transaction(self) -> None:
        """Until the commit and after a rollback the saga is not found; then a sweep runs it, once."""
        async with (
            self.storage(SystemClock()) as storage,
            self.connection() as connection,
            SagaOrchestrator(storage, sweep_interval=0.05) as orchestrator,
        ):
            saga = Paying(3)
            await self.begin(connection)
            handle = await orchestrator.start(saga, connection=connection)
            with pytest.raises(SagaNotFoundError):
                await handle.status()
            await self.execute(connection, "ROLLBACK")
            with pytest.raises(SagaNotFoundError):
                await handle.wait()
            await self.begin(connection)
            again = await orchestrator.start(saga, connection=connection)
            assert again.saga_id == handle.saga_id
            await self.execute(connection, "COMMIT")
            result = await again.wait(10)
            assert (result.success, result.context["pay"]) == (True, 3)
            await self.begin(connection)
            third = await orchestrator.start(Paying(3), saga_id=saga.saga_id, connection=connection)
            with pytest.raises(SagaAlreadyExistsError, match="amount"):
                await orchestrator.start(Paying(4), saga_id=saga.saga_id, connection=connection)
            await self.execute(connection, "ROLLBACK")
            assert (await third.wait(10)).steps == result.steps

    @pytest.mark.asyncio
    async def test_a_deadline_counts_from_the_start_in_the_transaction(self) -> None:
        """A saga whose transaction took too long goes back with nothing done."""
        async with (
            self.storage(SystemClock()) as storage,
            self.connection() as connection,
            SagaOrchestrator(storage, sweep_interval=0.05) as orchestrator,
        ):
            await self.begin(connection)
            handle = await orchestrator.start(Paying(3), deadline=0.05, connection=connection)
            await asyncio.sleep(0.2)
            await self.execute(connection, "COMMIT")
            result = await handle.wait(10)
            assert (result.status, result.completed_steps) == (SagaStatus.ROLLED_BACK, 0)
