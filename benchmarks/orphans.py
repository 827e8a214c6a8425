"""How long one process takes for everything that a dead one left."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from benchmarks.runners import storage_of
from benchmarks.workloads import WORKLOADS
from saga import SagaOrchestrator, SagaStatus
from saga.building import birth_of, definition_of, life_of
from saga.events import AttemptStarted, Began, Claimed
from saga.storage.base import Claim, NewSaga, Row
from saga.types import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from saga import SagaStorage

LEASE = 0.001
AT_ONCE = 500


async def adopt(name: str, orphans: int, directory: Path) -> float:
    """Return for how many seconds an orchestrator is busy with so many sagas whose owner died in their first step."""
    async with storage_of(name, directory) as storage:
        make = WORKLOADS["W1"]
        for first in range(0, orphans, AT_ONCE):
            await asyncio.gather(
                *(_leave(storage, make(number)) for number in range(first, min(first + AT_ONCE, orphans)))
            )
        await asyncio.sleep(2 * LEASE)
        begun = time.perf_counter()
        async with SagaOrchestrator(storage, sagas=[type(make(0))]):
            while True:
                await asyncio.sleep(0.1)
                counted = next(iter((await storage.statistics()).by_status.values()))
                if counted == {SagaStatus.COMPLETED: orphans}:
                    return time.perf_counter() - begun


async def _leave(storage: SagaStorage, saga: object) -> None:
    """Store a saga as a process leaves it that dies in its first step."""
    definition = await definition_of(saga)  # type: ignore[arg-type]
    created = birth_of(life_of(saga), definition, None)  # type: ignore[arg-type]
    token = f"dead-{uuid4().hex}"
    facts = (created, Claimed("dead:1", 1), Began(), AttemptStarted(next(iter(definition.steps)), Phase.ACTION, 1))
    new = NewSaga(
        saga_id=f"orphan-{uuid4().hex}",
        saga_name=definition.name,
        saga_version=definition.version,
        row=Row(status=SagaStatus.EXECUTING),
    )
    await storage.create(new, facts, claim=Claim("dead:1", token, LEASE), write_id=token)
