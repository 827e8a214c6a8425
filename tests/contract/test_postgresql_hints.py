"""Hints over LISTEN and NOTIFY: they save the wait for a sweep, and their loss costs no more than that wait."""

import asyncio
from time import monotonic

import asyncpg
import pytest

from saga import PostgreSQLSagaStorage, Saga, SagaContext, SagaOrchestrator, SagaStatus

pytestmark = pytest.mark.asyncio

LISTENERS = "FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()"

SOON = 3.0
"""Far below the sweep interval of these tests, far above what a hint takes."""


class Sleeping(Saga):
    """One step, as long as it is told."""

    def __init__(self, seconds: float) -> None:
        """Keep the seconds."""
        self.seconds = seconds

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("sleep", self._sleep)

    async def _sleep(self, _ctx: SagaContext) -> None:
        await asyncio.sleep(self.seconds)


async def listening(schema: str, url: str) -> None:
    """Return once the orchestrator on this storage listens."""
    connection = await asyncpg.connect(url)
    channel = f'%LISTEN "saga {schema}"%'
    for _ in range(100):
        if await connection.fetchval(f"SELECT count(*) {LISTENERS}", channel):
            break
        await asyncio.sleep(0.05)
    await connection.close()


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_saga_started_in_a_transaction_begins_when_it_commits(
    postgres_url: str, schema: str, *, pooler: bool
) -> None:
    """At once with the hint; without it at the next sweep."""
    interval = 1.0 if pooler else 60.0
    async with (
        PostgreSQLSagaStorage(postgres_url, schema=schema, pooler=pooler) as storage,
        SagaOrchestrator(storage, sweep_interval=interval) as orchestrator,
    ):
        if not pooler:
            await listening(schema, postgres_url)
        connection = await asyncpg.connect(postgres_url)
        async with connection.transaction():
            handle = await orchestrator.start(Sleeping(0.0), connection=connection)
        begun = monotonic()
        assert (await handle.wait(10)).success
        assert monotonic() - begun < SOON
        await connection.close()


async def test_a_cancel_from_another_process_reaches_the_owner_at_once(postgres_url: str, schema: str) -> None:
    """Not only with its next heartbeat."""
    async with (
        PostgreSQLSagaStorage(postgres_url, schema=schema) as storage,
        SagaOrchestrator(storage, lease_ttl=60.0) as owner,
        PostgreSQLSagaStorage(postgres_url, schema=schema) as other_storage,
        SagaOrchestrator(other_storage, lease_ttl=60.0) as other,
    ):
        await listening(schema, postgres_url)
        handle = await owner.start(Sleeping(20.0))
        begun = monotonic()
        await other.cancel(handle.saga_id, "no longer wanted")
        assert (await handle.wait(10)).status is SagaStatus.ROLLED_BACK
        assert monotonic() - begun < SOON


async def test_a_listener_that_is_cut_off_costs_no_saga_anything(postgres_url: str, schema: str) -> None:
    """Its connection is killed by the server; sagas go on."""
    async with (
        PostgreSQLSagaStorage(postgres_url, schema=schema) as storage,
        SagaOrchestrator(storage, sweep_interval=0.5) as orchestrator,
    ):
        await listening(schema, postgres_url)
        connection = await asyncpg.connect(postgres_url)
        channel = f'%LISTEN "saga {schema}"%'
        assert await connection.fetchval(f"SELECT count(pg_terminate_backend(pid)) {LISTENERS}", channel)
        async with connection.transaction():
            handle = await orchestrator.start(Sleeping(0.0), connection=connection)
        assert (await handle.wait(10)).success
        await connection.close()
