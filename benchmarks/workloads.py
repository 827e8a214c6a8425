"""The sagas that are measured. Their steps do nothing (or sleep), so what is measured is the engine and the storage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from saga import DAGSaga, RetryPolicy, Saga, SagaContext

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 5
FAN = [1, 4, 1]
SLEEP = 0.01
"""Seconds that each step of S3 and S4 sleeps."""

SLEEPING_LAYERS = {"S3": FAN, "S4": [1, 4, 4, 1]}


class DeclinedError(Exception):
    """A definite failure: the step had no effect."""


async def act(ctx: SagaContext) -> None:
    """Do nothing."""


async def undo(result: Any, ctx: SagaContext) -> None:
    """Undo nothing."""


async def decline(ctx: SagaContext) -> None:
    """Fail definitely."""
    raise DeclinedError


class Linear(Saga):
    """W1, and W2 where ``fails`` is true: five steps, each with a compensation."""

    def __init__(self, order_id: str, amount: int, fails: bool) -> None:  # noqa: FBT001 - only given by name
        self.order_id = order_id
        self.amount = amount
        self.fails = fails

    async def build(self) -> None:
        """Add the chain."""
        for number in range(1, STEPS):
            await self.add_step(f"step{number}", act, undo)
        await self.add_step(f"step{STEPS}", decline if self.fails else act, undo)


class Layers(DAGSaga):
    """W3, S3 and S4: layers of steps, each step depending on the whole layer before."""

    def __init__(self, order_id: str, widths: list[int], seconds: float = 0.0) -> None:
        self.order_id = order_id
        self.widths = widths
        self.seconds = seconds

    async def build(self) -> None:
        """Add layer after layer."""
        before: set[str] = set()
        for depth, width in enumerate(self.widths):
            layer = {f"step{depth}_{place}" for place in range(width)}
            for name in sorted(layer):
                await self.add_dag_step(name, self._sleep if self.seconds else act, undo, dependencies=before)
            before = layer

    async def _sleep(self, ctx: SagaContext) -> None:
        await asyncio.sleep(self.seconds)


class Sleeper(Saga):
    """Fails at once and then sleeps in a retry for longer than the measurement takes, claimed all the while."""

    calls: ClassVar[int] = 0

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id

    async def build(self) -> None:
        """Add the step that fails and one that would follow."""
        retry = RetryPolicy(max_attempts=3, initial_interval=55.0, max_interval=60.0, jitter="none")
        await self.add_step("fails", self._fail, undo, retry=retry)
        await self.add_step("follows", act, undo)

    async def _fail(self, ctx: SagaContext) -> None:
        type(self).calls += 1
        raise DeclinedError


WORKLOADS: dict[str, Callable[[int], Saga]] = {
    "W1": lambda number: Linear(f"order-{number}", number, fails=False),
    "W2": lambda number: Linear(f"order-{number}", number, fails=True),
    "W3": lambda number: Layers(f"order-{number}", FAN),
    "S3": lambda number: Layers(f"order-{number}", SLEEPING_LAYERS["S3"], SLEEP),
    "S4": lambda number: Layers(f"order-{number}", SLEEPING_LAYERS["S4"], SLEEP),
}
