"""One attempt of user code in an interruptible scope.

The scope carries the reason of an interruption, so that a timeout, a cancel, a sibling's failure, shutdown and a
lost claim are told apart without looking at exception types. A scope absorbs the cancellation that it asked for
before anything else is awaited; any other one is re-raised.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from saga import codec
from saga.context import SagaContext
from saga.exceptions import SagaSerializationError
from saga.foreign import read, tried
from saga.outcomes import NOTHING, Ended, record_of
from saga.types import Phase, UnknownReason
from saga.user_code import caught

if TYPE_CHECKING:
    from collections.abc import Callable

    from saga.clock import Clock, TimerHandle
    from saga.definition import SagaStep
    from saga.planner import Run

    OnEnded = Callable[[Ended, "Scope"], None]


class Scope:
    """An interruptible stretch of user code.

    Attributes:
        run: Which attempt it is.
        on_ended: Called with its end; where it is given up, then, and again when the user code ends after all. Kept
            here and not by the run, which would then refer to itself and need the garbage collector to go away.
        task: The task that runs it; None until it does.
        reason: Why it was interrupted; None if it was not.
        inline: Whether the saga's own driver runs it.
        entered: Whether its task has begun; before that, there is nothing to cancel.
        over: Whether the user code has ended.
        abandoned: Whether it was left to itself.
        cancels: How many cancellations its task had been asked for before: user code that swallows one leaves it there.
    """

    __slots__ = ("abandoned", "cancels", "entered", "inline", "on_ended", "over", "reason", "run", "task")

    def __init__(self, run: Run, on_ended: OnEnded, *, inline: bool) -> None:
        """Make a scope that nothing runs in yet."""
        self.run = run
        self.on_ended = on_ended
        self.inline = inline
        self.task: asyncio.Task[Any] | None = None
        self.reason: UnknownReason | None = None
        self.entered = inline
        self.over = False
        self.abandoned = False
        self.cancels = 0

    def interrupt(self, reason: UnknownReason) -> bool:
        """Cancel the user code unless it ended or was interrupted already; say whether this did it."""
        if self.over or self.reason is not None or self.task is None:
            return False
        self.reason = reason
        if self.entered:
            # What the user code awaits is asked to end first, and may raise.
            read(self.task.cancel, otherwise=False)
        return True

    async def absorb(self, *, fired: bool) -> bool:
        """Take back the cancellation that this scope asked for; say whether somebody else asked for one too.

        Args:
            fired: Whether the cancellation came out of the user code.
        """
        task = self.task
        if task is None:
            return False
        if self.reason is not None:
            if not fired:
                # Python 3.11's uncancel() leaves one that has not fired yet; a turn of the loop lets it fire.
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            task.uncancel()
        return task.cancelling() > self.cancels


class Timers:
    """Calls back for scopes that outlive a duration, with one loop timer per duration instead of one per scope."""

    def __init__(self, clock: Clock) -> None:
        """Keep the clock."""
        self._clock = clock
        self._lanes: dict[float, _Lane] = {}

    def watch(self, scope: Scope, seconds: float, callback: Callable[[Scope], None]) -> _Lane:
        """Call back if the scope is still watched after so many seconds; return what to drop it from."""
        lane = self._lanes.get(seconds)
        if lane is None:
            lane = self._lanes[seconds] = _Lane(self._clock, seconds)
        lane.add(scope, callback)
        return lane

    def close(self) -> None:
        """Forget everything."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()


class _Lane:
    """The scopes of one duration in the order in which they are due."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._waiting: dict[Scope, tuple[float, Callable[[Scope], None]]] = {}
        self._timer: TimerHandle | None = None

    def add(self, scope: Scope, callback: Callable[[Scope], None]) -> None:
        # One that waits here already goes to the end, or the order would no longer be that of the due times.
        self._waiting.pop(scope, None)
        self._waiting[scope] = (self._clock.monotonic() + self._seconds, callback)
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._fire)

    def drop(self, scope: Scope) -> None:
        self._waiting.pop(scope, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        due: list[tuple[Scope, Callable[[Scope], None]]] = []
        for scope, (at, callback) in self._waiting.items():
            if at > now:
                self._timer = self._clock.call_later(at - now, self._fire)
                break
            due.append((scope, callback))
        for scope, callback in due:
            del self._waiting[scope]
            callback(scope)


async def perform(
    scope: Scope, step: SagaStep, ctx: SagaContext, argument: Any, *, limit: int, warn_once: Callable[[str], None]
) -> Ended:
    """Run one attempt of user code to its end and say how it ended.

    Args:
        scope: The scope that it runs in; its task must be set.
        step: The step.
        ctx: What the attempt knows.
        argument: In a compensation: the action's result.
        limit: The most bytes that a result may take.
        warn_once: Called with what the author of the step should know.

    Raises:
        asyncio.CancelledError: If somebody else than the scope cancelled the task.
    """
    result: Any = None
    error: BaseException | None = None
    cancelled = False
    try:
        if ctx.phase is Phase.ACTION:
            result, error = await caught(step.action, ctx)
        elif step.compensation is not None:
            result, error = await caught(step.compensation, argument, ctx)
    except asyncio.CancelledError as raised:
        error, cancelled = raised, True
    scope.over = True
    if (cancelled or scope.reason is not None) and await scope.absorb(fired=cancelled):
        raise asyncio.CancelledError
    run = scope.run
    if error is not None:
        reason = scope.reason
        if reason is None and cancelled:
            reason = UnknownReason.RAISED
        return Ended(step=run.step, phase=run.phase, attempt=run.attempt, error=error, reason=reason)
    if result is None and (step.result_type is Any or run.phase is Phase.COMPENSATION):
        return Ended(step=run.step, phase=run.phase, attempt=run.attempt, result=NOTHING)
    if run.phase is Phase.COMPENSATION:
        warn_once(f"the compensation of step {step.name!r} returned {type(result).__name__}, which is ignored")
        return Ended(step=run.step, phase=run.phase, attempt=run.attempt, result=NOTHING)
    return _returned(run, step, result, limit)


def _returned(run: Run, step: SagaStep, result: Any, limit: int) -> Ended:
    found, error = tried(_encoded, step, result, limit)
    if found is not None:
        data, raw = found
        return Ended(step=run.step, phase=run.phase, attempt=run.attempt, result=raw, data=data)
    refused = error if isinstance(error, SagaSerializationError) else not_storable(error)
    message = f"the result of step {step.name!r} cannot be stored: {refused}"
    named = type(refused)(message, path=refused.path, step=step.name)
    named.__cause__ = refused.__cause__
    return Ended(step=run.step, phase=run.phase, attempt=run.attempt, error=named, reason=UnknownReason.NOT_STORABLE)


def not_storable(error: BaseException | None) -> SagaSerializationError:
    """Return the error for an object of the user's that raised this while it was written or read."""
    record = record_of(error)
    refused = SagaSerializationError(f"{record.type}: {record.message}")
    refused.__cause__ = error
    return refused


def _encoded(step: SagaStep, result: Any, limit: int) -> tuple[bool, msgspec.Raw]:
    if issubclass(type(result), SagaContext):
        if result.delta is None:
            message = "it returned its context unchanged; with_data() returns a new one, return that"
            raise SagaSerializationError(message)
        return True, msgspec.Raw(codec.encode(result.delta, limit=limit))
    if inspect.iscoroutine(result):
        result.close()
    return False, msgspec.Raw(codec.encode(result, step.result_type, limit=limit))
