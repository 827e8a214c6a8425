"""Writes of many sagas leave together: what arrives while a flush is in flight shares the next one.

There is no timer: a lone write leaves at the loop's next turn and waits for nobody. Flushes belong to the storage, so
that a waiter which is cancelled takes nothing with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRITES_MAX = 512
"""Writes of one flush."""

WRITES_APART_MIN = 16
"""Writes that are worth a flush of their own where several may be on their way: with all in one, everybody would wait
for the storage, and then the storage for everybody."""


class Answerable(Protocol):
    """A write, which gets its answer when it was flushed."""

    saga_id: str | None
    answer: object


W = TypeVar("W", bound=Answerable)
Waiting = tuple[W, "asyncio.Future[object]"]


class _Flush(Generic[W]):
    """Writes that are on their way, and the timer that watches them."""

    __slots__ = ("items", "watch")

    def __init__(self, items: list[Waiting[W]], watch: asyncio.TimerHandle) -> None:
        self.items = items
        self.watch = watch


class GroupCommit(Generic[W]):
    """Gathers writes and lets them leave together; at most one write of each saga is on its way."""

    def __init__(
        self,
        flush: Callable[[Sequence[W], Callable[[BaseException | None], object]], object],
        answer_timeout: float,
        lanes: int = 1,
    ) -> None:
        """Begin with nothing to write.

        Args:
            flush: Begins to do the writes; when they are done and their answers are set, it calls its second argument
                in the event loop, with the error if they failed as a whole.
            answer_timeout: After how many seconds those who wait for a flush are told that the storage does not
                answer. The flush itself is left alone.
            lanes: How many flushes may be on their way at once.
        """
        self._flush = flush
        self._answer_timeout = answer_timeout
        self._lanes = lanes
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiting[W]] = deque()
        self._in_flight: set[_Flush[W]] = set()
        self._sagas: set[str] = set()
        self._starting = False
        self._stuck = False
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, write: W) -> asyncio.Future[object]:
        """Let this write leave with the next flush.

        Returns:
            A future of its answer, set once it is durable: a value, or an error to raise. Errors are results too, so
            that a waiter which is cancelled leaves none behind unseen.

        Raises:
            SagaStorageUnavailableError: If the storage has not answered for long, so that nothing is taken on.
        """
        if self._stuck:
            raise self._silent()
        answer: asyncio.Future[object] = self._loop.create_future()
        self._waiting.append((write, answer))
        self._idle.clear()
        self._start_soon()
        return answer

    async def drain(self) -> None:
        """Return when everything that was put is answered."""
        await self._idle.wait()

    def _start_soon(self) -> None:
        if not self._starting and len(self._in_flight) < self._lanes:
            self._starting = True
            # Not at once: whoever runs in this turn of the loop can still join.
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._starting = False
        while len(self._in_flight) < self._lanes:
            lanes = self._lanes - len(self._in_flight)
            items = self._take(min(WRITES_MAX, max(WRITES_APART_MIN, -(-len(self._waiting) // lanes))))
            if not items:
                break
            self._send(items)
        self._rest()

    def _send(self, items: list[Waiting[W]]) -> None:
        # A real timer even where the storage has another clock: this watches a database, not a saga.
        flush = _Flush(items, self._loop.call_later(self._answer_timeout, self._give_up))
        self._in_flight.add(flush)

        def flushed(error: BaseException | None) -> None:
            self._flushed(flush, error)

        self._flush([write for write, _ in items], flushed)

    def _take(self, most: int) -> list[Waiting[W]]:
        """Return the next flush: at most one write of each saga, in the order of arrival."""
        taken: list[Waiting[W]] = []
        sagas = self._sagas
        later: list[Waiting[W]] = []
        while self._waiting and len(taken) < most:
            item = self._waiting.popleft()
            saga_id = item[0].saga_id
            if saga_id is None:
                taken.append(item)
            elif saga_id in sagas:
                later.append(item)
            else:
                sagas.add(saga_id)
                taken.append(item)
        self._waiting.extendleft(reversed(later))
        return taken

    def _flushed(self, flush: _Flush[W], error: BaseException | None) -> None:
        flush.watch.cancel()
        self._in_flight.discard(flush)
        self._stuck = False
        for write, answer in flush.items:
            if write.saga_id is not None:
                self._sagas.discard(write.saga_id)
            if not answer.done():
                answer.set_result(write.answer if error is None else _each_its_own(error))
        if self._waiting:
            # Whom the answers above woke runs first, and what they write next leaves in this flush.
            self._start_soon()
        else:
            self._loop.call_soon(self._rest)

    def _rest(self) -> None:
        if not (self._waiting or self._in_flight):
            self._idle.set()

    def _give_up(self) -> None:
        """Tell everybody who waits; what is in flight may still be stored."""
        self._stuck = True
        in_flight = [item for flush in self._in_flight for item in flush.items]
        for _, answer in (*in_flight, *self._waiting):
            if not answer.done():
                answer.set_result(self._silent())
        self._waiting.clear()

    def _silent(self) -> SagaStorageUnavailableError:
        message = (
            f"the storage has not answered for {self._answer_timeout} seconds; check its server, or the disk it lies on"
        )
        return SagaStorageUnavailableError(message)


def value_of(answer: Any) -> Any:
    """Return the answer to a write, or raise it where it is an error."""
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _each_its_own(failed: BaseException) -> BaseException:
    """Return an error for one of several waiters: each raises its own, with its own traceback."""
    if isinstance(failed, SagaStorageError):
        error = type(failed)(str(failed))
        error.__cause__ = failed.__cause__
    else:
        error = SagaStorageError(f"the storage failed unexpectedly: {failed!r}")
        error.__cause__ = failed
    return error
