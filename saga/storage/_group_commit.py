"""Writes of many sagas leave together: what arrives while a flush is in flight shares the next one.

There is no timer: a lone write leaves at the loop's next turn and waits for nobody. The flush runs in a thread that
the storage owns, so that a waiter which is cancelled takes nothing with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future

WRITES_MAX = 512
"""Writes of one flush."""


class Answerable(Protocol):
    """A write, which gets its answer when it was flushed."""

    saga_id: str | None
    answer: object


W = TypeVar("W", bound=Answerable)


class GroupCommit(Generic[W]):
    """Gathers writes and hands them to the writing thread, one flush at a time."""

    def __init__(self, flush: Callable[[Sequence[W]], None], thread: Executor, answer_timeout: float) -> None:
        """Begin with nothing to write.

        Args:
            flush: Does the writes and sets their answers, in the thread; raises if it failed as a whole.
            thread: Where it runs.
            answer_timeout: After how many seconds those who wait for a flush are told that the storage does not
                answer. The flush itself is left alone.
        """
        self._flush = flush
        self._thread = thread
        self._answer_timeout = answer_timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[W, asyncio.Future[object]]] = deque()
        self._in_flight: list[tuple[W, asyncio.Future[object]]] = []
        self._busy = False
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
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: whoever runs in this turn of the loop can still join.
            self._loop.call_soon(self._start)
        return answer

    async def drain(self) -> None:
        """Return when everything that was put is answered."""
        await self._idle.wait()

    def _start(self) -> None:
        self._in_flight = self._take()
        # A real timer even where the storage has another clock: this watches a disk, not a saga.
        watch = self._loop.call_later(self._answer_timeout, self._give_up)
        future = self._thread.submit(self._flush, [write for write, _ in self._in_flight])

        def flushed(future: Future[None]) -> None:
            self._loop.call_soon_threadsafe(self._flushed, future, watch)

        future.add_done_callback(flushed)

    def _take(self) -> list[tuple[W, asyncio.Future[object]]]:
        """Return the next flush: at most one write of each saga, in the order of arrival."""
        taken: list[tuple[W, asyncio.Future[object]]] = []
        sagas: set[str] = set()
        later: list[tuple[W, asyncio.Future[object]]] = []
        while self._waiting and len(taken) < WRITES_MAX:
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

    def _flushed(self, future: Future[None], watch: asyncio.TimerHandle) -> None:
        watch.cancel()
        self._stuck = False
        failed = future.exception()
        for write, answer in self._in_flight:
            if answer.done():
                continue
            answer.set_result(write.answer if failed is None else _each_its_own(failed))
        self._in_flight = []
        if self._waiting:
            # Whom the answers above woke runs first, and what they write next leaves in this flush.
            self._loop.call_soon(self._start)
        else:
            self._busy = False
            self._loop.call_soon(self._rest)

    def _rest(self) -> None:
        if not self._busy:
            self._idle.set()

    def _give_up(self) -> None:
        """Tell everybody who waits; what is in flight may still be stored."""
        self._stuck = True
        for _, answer in (*self._in_flight, *self._waiting):
            if not answer.done():
                answer.set_result(self._silent())
        self._waiting.clear()

    def _silent(self) -> SagaStorageUnavailableError:
        message = f"the storage has not answered for {self._answer_timeout} seconds; check the disk it lies on"
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
