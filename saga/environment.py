"""What all sagas of one orchestrator (or of one lone ``Saga.execute``) share while they run."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from saga.attempt import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from saga.clock import Clock
    from saga.observers import Observers
    from saga.storage.base import SagaStorage
    from saga.types import Limits


class Slots:
    """Bounds how many sagas run at once; first come, first served."""

    def __init__(self, size: int) -> None:
        """Set the bound."""
        self.size = size
        self.free = size
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, *, at_once: bool = False) -> None:
        """Take a slot, waiting for a free one unless it must be had at once, above the bound."""
        if at_once or (self.free > 0 and not self._waiting):
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a slot back, to whoever waits longest."""
        while self._waiting and self.free >= 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


class Environment:
    """The collaborators of running sagas.

    Attributes:
        storage: Where journals live.
        clock: Time and randomness.
        observers: Who is told of facts.
        resources: Live objects for contexts, by name.
        limits: The engine's bounds.
        owner: A label of this process, for people.
        ttl: Seconds that a claim stands without a renewal.
        patient: Whether sagas that sleep long are released to the sweep; alone there is none.
        slots: The bound on sagas that run at once.
        timers: The shared timers of attempts.
    """

    def __init__(
        self,
        storage: SagaStorage,
        clock: Clock,
        observers: Observers,
        resources: Mapping[str, object],
        limits: Limits,
        *,
        ttl: float | None,
    ) -> None:
        """Keep the collaborators; a ttl of None means that nobody could take a saga over."""
        self.storage = storage
        self.clock = clock
        self.observers = observers
        self.resources = dict(resources)
        self.limits = limits
        self.owner = f"{platform.node()}:{os.getpid()}"
        self.ttl = math.inf if ttl is None else float(ttl)
        self.patient = ttl is not None
        self.slots = Slots(limits.max_in_flight)
        self.timers = Timers(clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warned: set[str] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in a task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def warner(self, saga_name: str) -> Callable[[str], None]:
        """Return what warns of a saga's steps, each text once."""

        def warn_once(text: str) -> None:
            message = f"saga {saga_name!r}: {text}"
            if message not in self._warned:
                self._warned.add(message)
                warnings.warn(message, RuntimeWarning, stacklevel=2)

        return warn_once

    async def close(self) -> None:
        """Cancel what is left and wait for it, for at most as long as an attempt may take to end."""
        self.timers.close()
        left = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.limits.abandon_after)
