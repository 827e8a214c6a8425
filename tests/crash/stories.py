"""The sagas that are killed, and how each of their stories must end, whoever was killed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from saga import DAGSaga, RetryPolicy, Saga, SagaContext, SagaStatus

SLOW_SECONDS = 0.01
"""A slow step goes on so long after its effect: its siblings' outcomes are written while its own is not known."""


class DeclinedError(Exception):
    """A definite failure: the step had no effect."""


class Acting:
    """What every step does: it notes the call, has its effect in the bank, and tells what it is."""

    dependencies: ClassVar[dict[str, set[str]]]
    declines: str
    slow: frozenset[str] = frozenset()
    stumbles: frozenset[str] = frozenset()

    async def act(self, ctx: SagaContext) -> dict[str, str]:
        """Do the step, or decline."""
        world = ctx.resource("world")
        seen = sorted(name for name in self.dependencies if ctx.get(name) is not None)
        before = world.call(ctx, "action", seen=seen)
        await ctx.resource("gate")(ctx.step_name)
        if ctx.step_name == self.declines or (ctx.step_name in self.stumbles and before == 0):
            raise DeclinedError(ctx.step_name)
        world.do(ctx)
        if ctx.step_name in self.slow:
            await asyncio.sleep(SLOW_SECONDS)
        return {"from": ctx.step_name}

    async def undo(self, result: Any, ctx: SagaContext) -> None:
        """Undo the step."""
        world = ctx.resource("world")
        world.call(ctx, "compensation", result=result)
        world.undo(ctx)
        if ctx.step_name in self.slow:
            await asyncio.sleep(SLOW_SECONDS)


class Chain(Acting, Saga):
    """Four steps in a row."""

    dependencies: ClassVar[dict[str, set[str]]] = {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}

    def __init__(self, declines: str = "") -> None:
        self.declines = declines

    async def build(self) -> None:
        """Add the chain."""
        for name in self.dependencies:
            await self.add_step(name, self.act, self.undo)


class Diamond(Acting, DAGSaga):
    """One step, two side by side of which one is slow, and one that needs both."""

    dependencies: ClassVar[dict[str, set[str]]] = {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}
    slow = frozenset({"c"})

    def __init__(self, declines: str = "") -> None:
        self.declines = declines

    async def build(self) -> None:
        """Add the diamond."""
        for name, needed in self.dependencies.items():
            await self.add_dag_step(name, self.act, self.undo, dependencies=needed)


class Purchase(Acting, Saga):
    """A step, the point of no return, and a step that fails the first time it is called and must succeed."""

    dependencies: ClassVar[dict[str, set[str]]] = {"reserve": set(), "charge": {"reserve"}, "ship": {"charge"}}
    stumbles = frozenset({"ship"})

    def __init__(self, declines: str = "") -> None:
        self.declines = declines

    async def build(self) -> None:
        """Add the steps."""
        await self.add_step("reserve", self.act, self.undo)
        await self.add_step("charge", self.act, self.undo, pivot=True)
        again = RetryPolicy(max_attempts=None, initial_interval=0.01, max_interval=0.01)
        await self.add_step("ship", self.act, self.undo, retry=again)


@dataclass(frozen=True)
class Story:
    """A saga and its end.

    Attributes:
        make: Makes the saga.
        end: The status that it must reach.
        dependencies: Which step needs which.
        writes: How many durable writes it takes where nobody dies; None where siblings may share one.
    """

    make: Callable[[], Saga]
    end: SagaStatus
    dependencies: dict[str, set[str]]
    writes: int | None


STORIES = {
    "chain forward": Story(Chain, SagaStatus.COMPLETED, Chain.dependencies, writes=5),
    "chain backward": Story(lambda: Chain("d"), SagaStatus.ROLLED_BACK, Chain.dependencies, writes=8),
    "diamond forward": Story(Diamond, SagaStatus.COMPLETED, Diamond.dependencies, writes=None),
    "diamond backward": Story(lambda: Diamond("d"), SagaStatus.ROLLED_BACK, Diamond.dependencies, writes=None),
    "diamond sibling": Story(lambda: Diamond("b"), SagaStatus.ROLLED_BACK, Diamond.dependencies, writes=None),
    "pivot forward": Story(Purchase, SagaStatus.COMPLETED, Purchase.dependencies, writes=None),
    "pivot declined": Story(lambda: Purchase("charge"), SagaStatus.ROLLED_BACK, Purchase.dependencies, writes=4),
}
CLASSES: list[type[Saga]] = [Chain, Diamond, Purchase]
