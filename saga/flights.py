"""The attempts of one saga that run now: begun, interrupted, given up, and handed back when they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from saga.attempt import Scope, not_storable, perform
from saga.context import SagaContext
from saga.exceptions import SagaSerializationError
from saga.foreign import tried
from saga.outcomes import Ended
from saga.types import Phase, UnknownReason
from saga.view import StateView

if TYPE_CHECKING:
    from collections.abc import KeysView

    from saga.attempt import OnEnded
    from saga.definition import SagaDefinition
    from saga.environment import Environment
    from saga.planner import Decision, Run, Work
    from saga.state import SagaState
    from saga.types import SagaInfo


class Flights:
    """Runs the attempts of one saga and tells its driver how they end.

    Attributes:
        live_errors: The last exception of each step and phase that was raised here.
    """

    def __init__(self, env: Environment, definition: SagaDefinition) -> None:
        """Begin with nothing in flight."""
        self.live_errors: dict[Work, BaseException] = {}
        self._env = env
        self._definition = definition
        self._warn = env.warner(definition.name)
        self._scopes: dict[Work, Scope] = {}

    @property
    def works(self) -> KeysView[Work]:
        """What is in flight."""
        return self._scopes.keys()

    @property
    def held(self) -> bool:
        """Whether an attempt holds the driver itself."""
        return any(scope.inline for scope in self._scopes.values())

    async def inline(self, run: Run, state: SagaState, info: SagaInfo, on_ended: OnEnded) -> None:
        """Run an attempt in the calling task, which is the driver."""
        scope = Scope(run, on_ended, inline=True)
        scope.task = task = asyncio.current_task()
        scope.cancels = 0 if task is None else task.cancelling()
        self._scopes[run.step, run.phase] = scope
        ended: Ended | None = None
        try:
            ended = await self._attempt(scope, state, info)
        finally:
            scope.over = True
            # Without an end the user code has ended the driver itself.
            self._land(scope, _ended(run, UnknownReason.RAISED) if ended is None else ended)
        if task is not None and task.cancelling() > scope.cancels:
            # It asked for a cancellation and did not wait for it: it must not come in the middle of a write.
            await asyncio.sleep(0)

    def beside(self, run: Run, state: SagaState, info: SagaInfo, on_ended: OnEnded) -> None:
        """Run an attempt in a task of its own."""
        scope = Scope(run, on_ended, inline=False)
        self._scopes[run.step, run.phase] = scope
        scope.task = self._env.spawn(self._fly(scope, state, info))
        scope.task.add_done_callback(lambda _: None if scope.entered else self._never_ran(scope))

    def interrupt(self, reason: UnknownReason) -> None:
        """Interrupt all attempts."""
        for scope in list(self._scopes.values()):
            self._interrupt(scope, reason)

    def interrupt_as_decided(self, decision: Decision) -> None:
        """Interrupt the attempts that a decision names."""
        for work, reason in decision.interrupts:
            if work in self._scopes:
                self._interrupt(self._scopes[work], reason)

    async def _fly(self, scope: Scope, state: SagaState, info: SagaInfo) -> None:
        # Stays where the user code ends its own task in a way that nobody can catch.
        ended = _ended(scope.run, UnknownReason.RAISED)
        scope.entered = True
        try:
            if scope.reason is None:
                ended = await self._attempt(scope, state, info)
            else:
                # Interrupted between its write and its first line: definite, nothing has happened.
                scope.over = True
                ended = replace(ended, reason=None, not_run=True)
        finally:
            self._land(scope, ended)

    def _never_ran(self, scope: Scope) -> None:
        """Land an attempt whose task somebody cancelled before its first turn: definite, nothing has happened."""
        scope.entered = scope.over = True
        self._land(scope, replace(_ended(scope.run, UnknownReason.RAISED), reason=None, not_run=True))

    async def _attempt(self, scope: Scope, state: SagaState, info: SagaInfo) -> Ended:
        run, env = scope.run, self._env
        step = self._definition.steps[run.step]
        limit = env.limits.payload_bytes
        view = StateView(self._definition, state, env.resources, limit)
        ctx = SagaContext(saga_id=info.saga_id, step_name=run.step, attempt=run.attempt, phase=run.phase, source=view)
        argument, timeout = None, step.timeout
        if run.phase is Phase.COMPENSATION:
            found, error = tried(self._undoing, ctx, view)
            if found is None:
                refused = error if isinstance(error, SagaSerializationError) else not_storable(error)
                return replace(_ended(run, UnknownReason.NOT_STORABLE), error=refused)
            ctx, argument = found
            timeout = step.compensation_timeout
        lane = None if timeout is None else env.timers.watch(scope, timeout, self._timed_out)
        exits = env.observers.enter(info, ctx) if env.observers.present else ()
        ended: Ended | None = None
        try:
            ended = await perform(scope, step, ctx, argument, limit=limit, warn_once=self._warn)
        finally:
            if lane is not None:
                lane.drop(scope)
            for leave in exits:
                leave(None if ended is None else ended.error)
        if ended.error is not None and ended.reason is None and not issubclass(type(ended.error), _OURS):
            _report(ended.error)
        return ended

    def _undoing(self, ctx: SagaContext, view: StateView) -> tuple[SagaContext, object]:
        """Return what a compensation knows, and the result it gets."""
        state, step = view.state, ctx.step_name
        cause = state.failures[0].error if state.failures else None
        return replace(ctx, outcome=state.step(step).outcome, cause=cause), view.stored(step)

    def _timed_out(self, scope: Scope) -> None:
        self._interrupt(scope, UnknownReason.TIMEOUT)

    def _interrupt(self, scope: Scope, reason: UnknownReason) -> None:
        if scope.interrupt(reason):
            self._env.timers.watch(scope, self._env.limits.abandon_after, self._give_up)

    def _give_up(self, scope: Scope) -> None:
        """Leave an attempt that does not end to itself; its outcome is not known (R7)."""
        if not scope.over and scope.reason is not None:
            scope.abandoned = True
            del self._scopes[scope.run.step, scope.run.phase]
            scope.on_ended(_ended(scope.run, scope.reason), scope)

    def _land(self, scope: Scope, ended: Ended) -> None:
        if ended.error is not None:
            self.live_errors[ended.step, ended.phase] = ended.error
        if not scope.abandoned:
            del self._scopes[ended.step, ended.phase]
        scope.on_ended(ended, scope)


_OURS = (Exception, asyncio.CancelledError, GeneratorExit)
"""What may come out of a coroutine; anything else was meant for somebody further out."""


def _report(error: BaseException) -> None:
    """Tell of an error that is no Exception: it was meant for somebody else, and the saga goes on without him."""
    context = {"message": "user code raised what is no Exception", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


def _ended(run: Run, reason: UnknownReason) -> Ended:
    return Ended(step=run.step, phase=run.phase, attempt=run.attempt, reason=reason)
