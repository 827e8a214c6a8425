"""What all sagas of one orchestrator (or of one lone ``Saga.execute``) share while they run."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import warnings
from collections import deque
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from saga.attempt import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractContextManager
    from contextvars import Context

    from saga.clock import Clock
    from saga.observers import Observers
    from saga.storage.base import SagaStorage
    from saga.types import Limits


ANEW_AFTER = 0.1
"""Seconds after which what user code has cancelled of the engine's own begins anew."""

CURRENT_SAGA: ContextVar[str | None] = ContextVar("current_saga", default=None)
"""The id of the saga whose step runs here; None outside of steps."""


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


class Seat:
    """One saga's slot: given back while it sleeps, or while one of its steps waits for another saga."""

    __slots__ = ("_gone", "_lent", "_slots", "_taken")

    def __init__(self, slots: Slots) -> None:
        """Hold a slot that was taken before."""
        self._slots = slots
        self._taken = True
        self._gone = False
        self._lent = 0

    def leave(self, *, for_good: bool = False) -> None:
        """Give the slot back, if it is held."""
        self._gone = self._gone or for_good
        if self._taken:
            self._taken = False
            self._slots.give_back()

    def forget(self) -> None:
        """Hold nothing: the slot was never taken."""
        self._taken, self._gone = False, True

    async def take(self, *, at_once: bool) -> None:
        """Take a slot again, unless one is held or none is needed.

        While it is lent, none is: what runs beside the step that waits goes on above the bound and waits for nobody.
        """
        if self._taken or self._gone or self._lent:
            return
        await self._slots.take(at_once=at_once)
        # Only the driver takes, and what is not held is not lent, so nothing but the end can have come meanwhile.
        self._taken = True
        if self._gone:
            self.leave()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the slot to others until all steps that wait have waited; then take one at once, above the bound."""
        if not (self._taken or self._lent):
            yield
            return
        self._lent += 1
        self.leave()
        try:
            yield
        finally:
            self._lent -= 1
            if not (self._lent or self._taken or self._gone):
                self._slots.free -= 1
                self._taken = True


_NOBODY = nullcontext()


class Seated(Protocol):
    """A saga that holds a slot, or did."""

    seat: Seat


def lent_seat(runs: Mapping[str, Seated]) -> AbstractContextManager[None]:
    """Return what is entered where a saga is waited for: a step that waits leaves its saga's slot to others.

    Otherwise sagas that wait for others could hold all slots, and those others would never get one.
    """
    current = CURRENT_SAGA.get()
    parent = None if current is None else runs.get(current)
    return _NOBODY if parent is None else parent.seat.lent()


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
        closing: Whether what still runs is being cancelled, and nothing begins any more.
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
        self.closing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warned: set[str] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], context: Context | None = None) -> asyncio.Task[Any]:
        """Run a coroutine in a task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def warner(self, saga_name: str) -> Callable[[str], None]:
        """Return what warns of a saga's steps, each text once."""

        def warn_once(text: str) -> None:
            message = f"saga {saga_name!r}: {text}"
            if message not in self._warned:
                self._warned.add(message)
                try:
                    warnings.warn(message, RuntimeWarning, stacklevel=2)
                except RuntimeWarning as warning:
                    # Where warnings are errors, they are nobody's here: what happened must be recorded all the same.
                    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": warning})

        return warn_once

    async def close(self) -> None:
        """Cancel what is left and wait for it, for at most as long as an attempt may take to end."""
        self.closing = True
        self.timers.close()
        left = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.limits.abandon_after)
