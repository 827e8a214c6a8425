"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is left to do.

Whatever a coroutine does takes no time but what it sleeps, so an hour of waiting passes in a millisecond and the same
seed gives the same run. For code that waits for timers and for other coroutines only: threads and sockets are not
waited for, since time would run away meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""The wall time at which virtual time begins."""

TURNS_MAX = 100_000
"""Turns of the loop at one instant after which it counts as running in circles."""


class VirtualTimeError(AssertionError):
    """Time cannot go on: nothing would ever happen, no instant ends, or the limit is reached."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything runs, and then jumps to the next timer.

    Attributes:
        turns: How often the loop has turned.
        on_turn: Called at each turn, before anything else runs in it.
        reported: What was given to the exception handler; ``run_virtual`` fails on it.
    """

    def __init__(self, seconds_max: float = math.inf) -> None:
        """Begin at 0 seconds.

        Args:
            seconds_max: The instant after which the run fails.
        """
        super().__init__(_Jumping(self))
        self.turns = 0
        self.on_turn: Callable[[], None] = lambda: None
        self.reported: list[dict[str, Any]] = []
        self._seconds = 0.0
        self._seconds_max = seconds_max
        self._turns_here = 0
        self.set_exception_handler(lambda _loop, context: self.reported.append(context))

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._seconds

    def turn(self, timeout: float | None) -> None:
        """Move time on, if the loop has nothing to do for so many seconds (None: for ever)."""
        self.turns += 1
        self._turns_here += 1
        if timeout is not None and timeout <= 0:
            if self._turns_here > TURNS_MAX:
                message = f"{TURNS_MAX} turns at {self._seconds} s and still not idle: something runs in circles"
                raise VirtualTimeError(message)
            return
        if timeout is None:
            message = f"everything waits at {self._seconds} s and no timer is set: {_waiting(self)}"
            raise VirtualTimeError(message)
        self._turns_here = 0
        # Where the wait is too short to show in the sum, time must go on all the same.
        self._seconds = max(self._seconds + timeout, math.nextafter(self._seconds, math.inf))
        if self._seconds > self._seconds_max:
            message = f"not over after {self._seconds_max} s: {_waiting(self)}"
            raise VirtualTimeError(message)


class _Jumping(selectors.SelectSelector):
    """Never blocks: what would be a wait moves the loop's time on."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            self._loop.turn(timeout)
        self._loop.on_turn()
        return found


class VirtualClock:
    """A ``saga.clock.Clock`` of the running VirtualLoop, with chance from a seed."""

    def __init__(self, seed: int | str = 0) -> None:
        """Begin.

        Args:
            seed: Decides what ``random`` and ``token`` return; clocks that share a storage need different ones.
        """
        self._chance = random.Random(seed)  # noqa: S311 - a test must be able to repeat it

    def now(self) -> float:
        """Return the wall time, in seconds since the epoch."""
        return EPOCH + self.monotonic()

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def boot_time(self) -> float:
        """Return the loop's time."""
        return self.monotonic()

    def boot_id(self) -> str:
        """Return always the same."""
        return "virtual"

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back on the running loop after so many virtual seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self._chance.random()

    def token(self) -> str:
        """Return a string that no other call returns."""
        return f"{self._chance.getrandbits(64):016x}"


def run_virtual(main: Coroutine[Any, Any, T], *, seconds_max: float = 1_000_000.0, collect: bool = True) -> T:
    """Run a coroutine to its end in virtual time and return its result.

    Args:
        main: What to run.
        seconds_max: The virtual instant by which it must have ended.
        collect: Whether to collect garbage afterwards, so that what nobody retrieved is reported here and not later.

    Raises:
        AssertionError: If it left tasks behind, or anything was reported to the loop's exception handler (an
            exception that nobody retrieved, for one).
        VirtualTimeError: If it waits for what never comes, or runs in circles.
    """
    loop = VirtualLoop(seconds_max)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            result = runner.run(_to_its_end(main))
    finally:
        if collect:
            gc.collect()
    assert not loop.reported, f"reported to the loop's exception handler: {loop.reported}"
    return result


async def _to_its_end(main: Coroutine[Any, Any, T]) -> T:
    result = await main
    # What has just been cancelled or set may need some turns to end.
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, f"tasks left behind: {left}"
    return result


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    return "; ".join(sorted(repr(task) for task in asyncio.all_tasks(loop))) or "no task is left"
