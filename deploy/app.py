"""A worker's application: what ``saga worker deploy.app:orchestrator`` runs.

Copy it, and name your own sagas and clients. The storage comes from the environment: ``SAGA_STORAGE_URL``, for example
``postgresql://saga@database/app``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saga import Saga, SagaContext, SagaOrchestrator, open_storage


class Greeting(Saga):
    """Stands for your own sagas."""

    def __init__(self, name: str) -> None:
        """Keep whom to greet."""
        self.name = name

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("greet", self._greet)

    async def _greet(self, _ctx: SagaContext) -> str:
        return f"Hello {self.name}"


@asynccontextmanager
async def orchestrator() -> AsyncIterator[SagaOrchestrator]:
    """Open what a worker needs, and close it in reverse order."""
    async with (
        open_storage(os.environ["SAGA_STORAGE_URL"]) as storage,
        SagaOrchestrator(storage, sagas=[Greeting], drain_timeout=30.0) as orchestrator,
    ):
        yield orchestrator
