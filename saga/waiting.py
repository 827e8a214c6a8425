"""Something that happens once and that several may wait for, each of them free to give up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from saga.clock import Clock

T = TypeVar("T")


class Latch(Generic[T]):
    """Holds a value or an error once it is set; a waiter that is cancelled disturbs nobody else."""

    __slots__ = ("_error", "_value", "_waiting", "done")

    def __init__(self) -> None:
        """Make an open latch."""
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def set(self, value: T) -> None:
        """Set the value, unless something is set already."""
        if not self.done:
            self._value = value
            self._open()

    def fail(self, error: BaseException) -> None:
        """Set the error that every waiter gets, unless something is set already."""
        if not self.done:
            self._error = error
            self._open()

    async def wait(self) -> T:
        """Wait until something is set.

        Raises:
            BaseException: The error that was set.
        """
        if not self.done:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                self._leave(turn)
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    async def wait_up_to(self, seconds: float | None, clock: Clock) -> bool:
        """Wait until something is set, but no longer than this; say whether it is set."""
        if not self.done and seconds is not None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            timer = clock.call_later(max(0.0, seconds), lambda: None if turn.done() else turn.set_result(None))
            self._waiting.append(turn)
            try:
                await turn
            finally:
                timer.cancel()
                self._leave(turn)
        elif not self.done:
            await self.wait()
        return self.done

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if not self.done:
            self._waiting.remove(turn)

    def _open(self) -> None:
        self.done = True
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
