"""Decide what a saga does next.

Pure: no clock, no randomness, no awaiting. The same definition, state, attempts in flight and instant always give the
same decision, so one function serves the first run, a retry, and the recovery of what another process left.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from saga.events import (
    AttemptStarted,
    AttemptUnknown,
    AttentionCleared,
    AttentionSet,
    Began,
    CompensationSkipped,
    Completed,
    Event,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.fold import apply
from saga.foreign import read
from saga.frontier import with_frontier
from saga.outcomes import explain, interrupted
from saga.state import UNTOUCHED, Failure, PhaseState, SagaState, StepState
from saga.strategies.base import RunningStep
from saga.types import (
    AttentionCode,
    Outcome,
    Phase,
    SagaStatus,
    SkipReason,
    StepStatus,
    TurnCause,
    UnknownReason,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from saga.definition import SagaDefinition, SagaStep

Work = tuple[str, Phase]
"""One of a step's two coroutines."""

RECOVERIES_MAX = 5
LONG_RETRY_ATTEMPTS = 20


class Run(msgspec.Struct, frozen=True):
    """Start this attempt; its AttemptStarted is among the facts of the decision."""

    step: str
    phase: Phase
    attempt: int


class Decision(msgspec.Struct, frozen=True):
    """What to do next.

    Attributes:
        facts: What to append, together with the outcomes that led here.
        state: The state after these facts, as if they were stored at the instant of the decision.
        runs: What to start once the facts are durable.
        interrupts: Running attempts to interrupt, with what to tell them.
        wake_at: When to decide again if nothing happens before; None if only an outcome or a request matters.
    """

    facts: tuple[Event, ...]
    state: SagaState
    runs: tuple[Run, ...]
    interrupts: tuple[tuple[Work, UnknownReason], ...]
    wake_at: float | None


def decide(
    definition: SagaDefinition, state: SagaState, in_flight: Collection[Work], now: float, *, hurry: bool = False
) -> Decision:
    """Return what a saga does next.

    Args:
        definition: The steps and the strategy.
        state: What the journal says, outcomes that are about to be appended included.
        in_flight: The attempts that run in this process; any other open attempt was cut off.
        now: The present instant (the storage's clock).
        hurry: Whether to begin nothing, since this process is about to stop.
    """
    plan = _Plan(definition, state, in_flight, now, hurry)
    if (
        state.status is SagaStatus.EXECUTING
        and not (state.open or state.failures or state.recoveries or hurry)
        and state.attention is None
        and state.cancel is None
        and state.deadline_at is None
    ):
        # By far the most decisions: nothing runs, nothing has failed, nobody asked for anything.
        plan.go_on()
    elif not state.at_rest:
        plan.make()
    return Decision(tuple(plan.facts), plan.state, tuple(plan.runs), tuple(plan.interrupts), plan.wake_at)


class _Plan:
    """One decision while it is made: the facts so far and the state that they lead to."""

    __slots__ = ("definition", "facts", "hurry", "in_flight", "interrupts", "now", "runs", "state", "wake_at")

    def __init__(
        self,
        definition: SagaDefinition,
        state: SagaState,
        in_flight: Collection[Work],
        now: float,
        hurry: bool,  # noqa: FBT001 - private
    ) -> None:
        self.definition = definition
        self.state = state
        self.in_flight = in_flight
        self.now = now
        self.hurry = hurry
        self.facts: list[Event] = []
        self.runs: list[Run] = []
        self.interrupts: list[tuple[Work, UnknownReason]] = []
        self.wake_at: float | None = None

    def make(self) -> None:
        if self.state.recoveries > RECOVERIES_MAX:
            self._block(
                AttentionCode.CRASH_LOOP,
                f"{self.state.recoveries} processes in a row stopped while running this saga: find out why, then retry",
            )
            return
        if self.state.attention is not None and self.state.attention.code is AttentionCode.BAD_CODE:
            self._add(AttentionCleared())
        if self.state.status is SagaStatus.PENDING:
            self._add(Began())
        if self.state.open:
            self._settle_orphans()
        if self.state.status is SagaStatus.EXECUTING:
            self._forward()
        if self.state.status is SagaStatus.COMPENSATING:
            self._backward()

    def _add(self, fact: Event) -> None:
        self.facts.append(fact)
        self.state = apply(self.state, fact, self.now)

    def _block(self, code: AttentionCode, message: str) -> None:
        self._add(AttentionSet(code, message, blocking=True))

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def _start(self, step: str, phase: Phase, before: PhaseState) -> None:
        attempt = before.attempts + 1
        fact = AttemptStarted(step, phase, attempt)
        self.facts.append(fact)
        self.state = apply(self.state, fact, self.now)
        self.runs.append(Run(step, phase, attempt))

    def _settle_orphans(self) -> None:
        """Record attempts that nobody here runs as UNKNOWN (R2)."""
        for name, phase in sorted(self.state.open.difference(self.in_flight)):
            step, before = self.definition.steps[name], self.state.step(name)
            reason = UnknownReason.INTERRUPTED
            if phase is Phase.ACTION:
                attempt = before.action.open or 0
                retry_in, free = interrupted(step, self.state, reason)
            else:
                attempt = (before.undo.open if before.undo is not None else None) or 0
                retry_in, free = 0.0, True
            self._add(AttemptUnknown(name, phase, attempt, reason, explain(reason), retry_in, free))

    # forward

    def _forward(self) -> None:
        if self.in_flight:
            self._drop_overtaken()
        # Most decisions have nothing that could turn the saga back; the questions below are asked of the others.
        state = self.state
        if (state.failures or state.cancel is not None or state.deadline_at is not None) and self._turned_or_parked():
            return
        self.go_on()

    def go_on(self) -> None:
        """Start what is ready, or complete."""
        if not self.state.ready:
            self._add(Completed())
        elif not self.hurry:
            self._start_ready()

    def _turned_or_parked(self) -> bool:
        """Turn back or park if there is a reason; say whether the saga goes forward no more."""
        exhausted = self._exhausted()
        if exhausted is not None and self._parks(exhausted):
            # What runs may end, nothing new begins; the person who retries lets all go on together.
            if not self.in_flight:
                self._park(exhausted)
            return True
        turn = self._turn(exhausted)
        if turn is not None:
            self._add(turn)
            return True
        self._note_lateness()
        return False

    def _drop_overtaken(self) -> None:
        """Interrupt attempts of steps that succeeded through an earlier attempt which was thought lost (R3)."""
        for work in self.in_flight:
            if work[1] is Phase.ACTION and self.state.step(work[0]).result is not None:
                self.interrupts.append((work, UnknownReason.CANCELLED))

    def _exhausted(self) -> Failure | None:
        for failure in self.state.failures:
            if self.state.step(failure.step).result is None:
                return failure
        return None

    def _parks(self, failure: Failure) -> bool:
        step = self.definition.steps[failure.step]
        if self._cancelled() or failure.step in self.state.graph.after_pivot:
            return not self._cancelled()
        if failure.reason is None:
            return False
        if step.pivot:
            return True
        return step.on_interrupt == "park" and failure.reason is UnknownReason.INTERRUPTED

    def _cancelled(self) -> bool:
        return self.state.cancel is not None and not self.state.cancel.refused

    def _turn(self, failure: Failure | None) -> TurnedBack | None:
        state = self.state
        if state.pivot_committed:
            return None
        if failure is not None:
            return TurnedBack(TurnCause.FAILURE, failure.step)
        if state.pivot_open:
            return None
        if self._cancelled():
            return TurnedBack(TurnCause.CANCEL)
        if state.deadline_at is not None:
            if state.deadline_at <= self.now:
                return TurnedBack(TurnCause.DEADLINE)
            self._wake(state.deadline_at)
        return None

    def _park(self, failure: Failure) -> None:
        text = f"{failure.error.type}: {failure.error.message}".strip(": ")
        if failure.reason is None or failure.step in self.state.graph.after_pivot:
            why = f"step {failure.step!r} cannot go on and there is no way back ({text})"
        else:
            why = f"whether step {failure.step!r} had its effect is not known ({text})"
        self._block(AttentionCode.PARKED, f"{why}: mend the cause, then retry, or cancel if that is still possible")

    def _note_lateness(self) -> None:
        deadline = self.state.deadline_at
        if (
            deadline is None
            or self.state.attention is not None
            or not (self.state.pivot_committed or self.state.pivot_open)
        ):
            return
        if deadline <= self.now:
            self._add(AttentionSet(AttentionCode.PAST_DEADLINE, "the deadline passed when there was no way back"))
        else:
            self._wake(deadline)

    def _start_ready(self) -> None:
        steps = self.state.steps
        for name in self.state.ready:
            step = steps.get(name, UNTOUCHED)
            action = step.action
            if action.open is not None or action.ended:
                continue
            if action.retry_at is not None and action.retry_at > self.now:
                self._wake(action.retry_at)
            else:
                self._start(name, Phase.ACTION, action)
            if action.attempts >= LONG_RETRY_ATTEMPTS:
                self._note_long_retry(name, step)

    def _note_long_retry(self, name: str, step: StepState) -> None:
        if self.state.attention is not None:
            return
        if name == self.state.graph.pivot or name in self.state.graph.after_pivot:
            message = f"step {name!r} was tried {step.action.attempts} times and must succeed; see its last error"
            self._add(AttentionSet(AttentionCode.RETRYING_LONG, message))

    # backward

    def _backward(self) -> None:
        running = [name for name, phase in self.state.open if phase is Phase.ACTION]
        if running:
            for name in sorted(running, key=self.state.graph.rank.__getitem__):
                self._cancel_or_wait(name)
            return
        if self.state.undoing is None:
            self.state = with_frontier(self.state)
        self._undo_ready()
        if not self.state.undoing and not self.state.open:
            failed = any(step.status is StepStatus.COMPENSATION_FAILED for step in self.state.steps.values())
            self._add(RollbackFailed() if failed else RolledBack())

    def _cancel_or_wait(self, name: str) -> None:
        work = (name, Phase.ACTION)
        at: float | None = self.now
        overtaken = self.state.step(name).result is not None
        # A cancel that took effect before the failure was recorded interrupts whatever the strategy (R13).
        if self.state.cause is TurnCause.FAILURE and not overtaken and not self._cancelled():
            step = RunningStep(name, self.state.step(name).action.started_at)
            at = self._chosen(step)
        if at is None:
            return
        if at <= self.now:
            self.interrupts.append((work, UnknownReason.CANCELLED))
        else:
            self._wake(at)

    def _chosen(self, step: RunningStep) -> float | None:
        """Return from when on the strategy has a running step cancelled; at once where it cannot say."""
        at_once: float | None = self.now
        at = read(self.definition.strategy.cancel_at, step, self.state.failures[0].at, otherwise=at_once)
        return at if at is None or (isinstance(at, int | float) and not math.isnan(at)) else self.now

    def _undo_ready(self) -> None:
        waiting = list(self.state.undoing or ())
        while waiting:
            name = waiting.pop(0)
            step = self.state.step(name)
            skip = self._skip_reason(self.definition.steps[name], step) if step.undo is None else None
            if skip is not None:
                before = self.state.undoing or ()
                self._add(CompensationSkipped(name, skip))
                waiting.extend(other for other in self.state.undoing or () if other not in before)
                continue
            undo = step.undo or PhaseState()
            if undo.open is not None:
                continue
            if undo.retry_at is not None and undo.retry_at > self.now:
                self._wake(undo.retry_at)
            elif not self.hurry:
                self._start(name, Phase.COMPENSATION, undo)

    def _skip_reason(self, step: SagaStep, state: StepState) -> SkipReason | None:
        """Return why a started step is not compensated, or None if it is (R6)."""
        outcome = state.outcome
        # A pivot's definite answer clears its doubt, but an earlier UNKNOWN attempt is undone all the same (R14).
        doubtful = outcome is Outcome.UNKNOWN or (step.pivot and state.reason is not None)
        if outcome is Outcome.FAILED and not doubtful and step.compensate_on != "started":
            return SkipReason.NO_EFFECT
        if step.compensation is None:
            return SkipReason.NO_COMPENSATION
        if doubtful and outcome is not Outcome.SUCCEEDED and step.compensate_on == "success":
            return SkipReason.IN_DOUBT
        return None


def due_in(decision: Decision, now: float) -> float | None:
    """Return in how many seconds anybody may claim the saga once its claim is gone; None at rest."""
    if decision.state.at_rest:
        return None
    if decision.state.open or decision.wake_at is None:
        return 0.0
    return max(0.0, decision.wake_at - now)
