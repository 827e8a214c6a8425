"""Sagas that two processes in a row died with: few at a time, so that the guilty one harms few others (R18)."""

from __future__ import annotations

import asyncio

import pytest

from saga import Saga, SagaContext, SagaStorage
from saga.ownership import SUSPECTS_MAX
from tests.unit.kit import chain, leave, memory, orchestrator, step

SAGAS = 100


class Work:
    """What the sagas do: counts how many do it at once."""

    def __init__(self, seconds: float) -> None:
        """Let each of them take so long."""
        self.seconds = seconds
        self.now = 0
        self.peaks: list[int] = []

    async def __call__(self, ctx: SagaContext) -> None:
        """Do it."""
        self.now += 1
        self.peaks.append(self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1


async def leave_suspects(storage: SagaStorage, cls: type[Saga]) -> None:
    """Store sagas that two processes claimed and then died."""
    for number in range(SAGAS):
        await leave(storage, cls(), f"s-{number}")
    for owner in ("first", "second"):
        found = await storage.claim_due(owner, owner, 1.0, SAGAS, definitions=[("Sample", "1")], exclude=())
        assert len(found) == SAGAS
        await asyncio.sleep(2)


@pytest.mark.asyncio
async def test_one_suspect_at_a_time_until_it_proves_harmless() -> None:
    """While the first is at it, no other is claimed: if it is the guilty one, it dies alone."""
    work = Work(1_000)
    cls = chain(step("work", work, timeout=2_000))
    async with memory() as storage:
        await leave_suspects(storage, cls)
        async with orchestrator(storage, sagas=[cls], drain_timeout=0.0):
            await asyncio.sleep(500)
            assert work.peaks == [1]


@pytest.mark.asyncio
async def test_suspects_that_prove_harmless_let_more_follow_and_nobody_waits_for_a_sweep() -> None:
    """A fleet that was killed twice is back soon, although its steps take a while."""
    work = Work(1.0)
    cls = chain(step("work", work))
    async with memory() as storage:
        await leave_suspects(storage, cls)
        async with orchestrator(storage, sagas=[cls], sweep_interval=3_600.0) as runs:
            await runs.recover()
            await asyncio.sleep(1.5 * SAGAS / SUSPECTS_MAX)
            assert len(work.peaks) == SAGAS
    assert max(work.peaks) == SUSPECTS_MAX
