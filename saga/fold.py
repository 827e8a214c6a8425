"""The fold: turns a journal into a state. Pure; the only place that knows what each fact means.

Legality is asked of ``state_machine``; what happens next is the planner's business. A state is never changed: each
fact gives a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from saga import events as e
from saga.exceptions import SagaCorruptStateError
from saga.frontier import ready_after, with_frontier, without
from saga.graph import graph_of
from saga.state import UNTOUCHED, Cancel, Failure, PhaseState, SagaState, StepState
from saga.state_machine import next_status, next_step_status
from saga.types import (
    Attention,
    AttentionCode,
    ErrorRecord,
    Outcome,
    Phase,
    SagaStatus,
    SkipReason,
    StepStatus,
    UnknownReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ACTION, _COMPENSATION = Phase.ACTION, Phase.COMPENSATION
_FRESH = PhaseState()


def fold(state: SagaState | None, version: int, at: float, events: Iterable[e.Event]) -> SagaState:
    """Return the state after one append.

    Args:
        state: The state before; None before the first append.
        version: The saga's version after the append.
        at: The storage's stamp of the append.
        events: The facts of the append.

    Raises:
        SagaCorruptStateError: If a fact is not legal here.
    """
    for event in events:
        state = apply(state, event, at)
    if state is None:
        message = "a journal must begin with Created"
        raise SagaCorruptStateError(message)
    return replace(state, version=version, updated_at=at)


def apply(state: SagaState | None, event: e.Event, at: float) -> SagaState:
    """Return the state after one fact that was stored at this instant.

    Raises:
        SagaCorruptStateError: If the fact is not legal in this state.
    """
    if state is None:
        if isinstance(event, e.Created):
            return _created(event, at)
        message = f"a journal begins with {type(event).__name__}, not with Created"
        raise SagaCorruptStateError(message)
    return _APPLY[type(event)](state, event, at)


def _created(event: e.Created, at: float) -> SagaState:
    graph = graph_of(event.shape)
    return SagaState(
        name=event.name,
        saga_version=event.version,
        graph=graph,
        arguments=event.arguments,
        headers=event.headers,
        created_at=at,
        updated_at=at,
        deadline_at=None if event.deadline is None else at + event.deadline,
        ready=graph.roots,
    )


def _created_again(state: SagaState, _event: e.Created, _at: float) -> SagaState:
    message = f"a journal of {state.name} holds Created twice"
    raise SagaCorruptStateError(message)


def _claimed(state: SagaState, event: e.Claimed, _at: float) -> SagaState:
    return replace(state, fence=event.fence, recoveries=event.recoveries)


def _began(state: SagaState, _event: e.Began, _at: float) -> SagaState:
    return replace(state, status=next_status(state.status, "begin"))


def _reshaped(state: SagaState, event: e.Reshaped, _at: float) -> SagaState:
    graph = graph_of(event.shape)
    succeeded = {name for name, step in state.steps.items() if step.result is not None}
    ready = tuple(
        step.name for step in event.shape if step.name not in succeeded and succeeded.issuperset(step.dependencies)
    )
    return replace(state, graph=graph, ready=ready)


def _started(state: SagaState, event: e.AttemptStarted, at: float) -> SagaState:
    step = state.steps.get(event.step, UNTOUCHED)
    before = step.action if event.phase is _ACTION else step.undo or _FRESH
    if before.open is not None:
        message = f"step {event.step!r}: attempt {event.attempt} started while attempt {before.open} was open"
        raise SagaCorruptStateError(message, step=event.step)
    after = PhaseState(
        attempts=event.attempt,
        open=event.attempt,
        started_at=at,
        first_at=at if before.first_at is None else before.first_at,
        spent=before.spent,
        error=before.error,
    )
    if event.phase is _ACTION:
        step = replace(step, status=next_step_status(step.status, "start"), action=after)
    else:
        state = with_frontier(state)
        status = step.status if step.status is StepStatus.COMPENSATING else next_step_status(step.status, "compensate")
        step = replace(step, status=status, undo=after)
    return replace(state, steps={**state.steps, event.step: step}, open=state.open | {(event.step, event.phase)})


def _succeeded(state: SagaState, event: e.AttemptSucceeded, _at: float) -> SagaState:
    step = state.steps.get(event.step, UNTOUCHED)
    if event.phase is _COMPENSATION:
        undo = replace(_undo(step, event.step), open=None, ended=True)
        step = replace(step, undo=undo, status=next_step_status(step.status, "undo"))
        return without(_with_step(state, event, step), event.step)
    # A late first attempt may succeed while a second one runs: that one stays open until it has ended.
    overtaken = step.action.open if step.action.open != event.attempt else None
    step = replace(
        step,
        action=replace(step.action, open=overtaken, retry_at=None, ended=True),
        status=next_step_status(step.status, "succeed"),
        result=event.result,
        data=event.data,
    )
    steps = {**state.steps, event.step: step}
    cancel = state.cancel
    if cancel is not None and event.step == state.graph.pivot:
        cancel = Cancel(cancel.reason, refused=True)
    return replace(
        state,
        steps=steps,
        open=state.open - {(event.step, _ACTION)} if overtaken is None else state.open,
        ready=ready_after(state, event.step, steps) if state.status is SagaStatus.EXECUTING else state.ready,
        cancel=cancel,
        attention=None if state.attention is None else _without_long_retry(state.attention),
        recoveries=0,
    )


def _failed(state: SagaState, event: e.AttemptFailed, at: float) -> SagaState:
    step = state.step(event.step)
    if event.phase is _COMPENSATION:
        return replace(_undo_failed(state, event, at), recoveries=0)
    if step.result is not None:
        return _with_step(state, event, replace(step, action=replace(step.action, open=None)))
    # The pivot's definite answer under the same key clears the doubt (R14); elsewhere doubt stays (R6).
    doubt = step.doubt and event.step != state.graph.pivot
    action = _after_failure(step.action, event.error, event.retry_in, at)
    status = next_step_status(step.status, "lose" if doubt else "fail")
    step = replace(step, action=action, status=status, doubt=doubt, failed=True)
    state = replace(_with_step(state, event, step), recoveries=0)
    if event.retry_in is None:
        state = replace(state, failures=(*state.failures, Failure(event.step, at, event.error)))
    return state


def _unknown(state: SagaState, event: e.AttemptUnknown, at: float) -> SagaState:
    step = state.step(event.step)
    reported = event.reason not in (UnknownReason.INTERRUPTED, UnknownReason.CANCELLED)
    if reported and state.recoveries:
        state = replace(state, recoveries=0)
    if event.phase is _COMPENSATION:
        return _undo_failed(state, event, at)
    if step.result is not None:
        # Another attempt succeeded meanwhile; this one only closes.
        return _with_step(state, event, replace(step, action=replace(step.action, open=None)))
    action = _after_failure(step.action, event.error, event.retry_in, at, free=event.free)
    status = next_step_status(step.status, "lose")
    step = replace(step, action=action, status=status, doubt=True, reason=event.reason)
    state = _with_step(state, event, step)
    went_forward = state.status is SagaStatus.EXECUTING and event.reason is not UnknownReason.CANCELLED
    if event.retry_in is None and (went_forward or reported):
        failure = Failure(event.step, at, event.error, event.reason)
        state = replace(state, failures=(*state.failures, failure))
    return state


def _not_run(state: SagaState, event: e.AttemptNotRun, at: float) -> SagaState:
    step = state.step(event.step)
    if event.phase is _COMPENSATION:
        undo = replace(_undo(step, event.step), open=None, retry_at=at)
        return _with_step(state, event, replace(step, undo=undo))
    if step.result is not None:
        return _with_step(state, event, replace(step, action=replace(step.action, open=None)))
    action = replace(step.action, open=None, retry_at=at if step.doubt or step.failed else None)
    back = "lose" if step.doubt else "fail" if step.failed else "withdraw"
    return _with_step(state, event, replace(step, action=action, status=next_step_status(step.status, back)))


def _late(state: SagaState, event: e.LateOutcome, at: float) -> SagaState:
    step = state.step(event.step)
    phase = step.action if event.phase is _ACTION else _undo(step, event.step)
    if phase.open == event.attempt:
        phase = replace(phase, open=None)
        step = replace(step, action=phase) if event.phase is _ACTION else replace(step, undo=phase)
        state = _with_step(state, event, step)
    # A pivot whose definite answer was taken is FAILED without doubt, and nothing will compensate it.
    gone = step.undo is not None or step.status is StepStatus.FAILED
    if event.phase is _ACTION and event.outcome is Outcome.SUCCEEDED and step.result is None and gone:
        message = (
            f"attempt {event.attempt} of step {event.step!r} succeeded after it had been given up and its compensation "
            f"had started: check whether its effect is undone"
        )
        return _set_attention(state, Attention(AttentionCode.LATE_EFFECT, message, at, blocking=False))
    return state


def _skipped(state: SagaState, event: e.CompensationSkipped, at: float) -> SagaState:
    state = with_frontier(state)
    step = state.step(event.step)
    step = replace(
        step,
        status=next_step_status(step.status, "skip"),
        undo=PhaseState(ended=True),
        skipped=event.reason,
    )
    state = replace(state, steps={**state.steps, event.step: step})
    if event.reason is SkipReason.IN_DOUBT:
        message = (
            f"whether step {event.step!r} had its effect is not known, and it is compensated after success only: "
            f"find out and undo it by hand if needed"
        )
        state = _set_attention(state, Attention(AttentionCode.IN_DOUBT, message, at, blocking=False))
    return without(state, event.step)


def _turned_back(state: SagaState, event: e.TurnedBack, _at: float) -> SagaState:
    status = next_status(state.status, "turn_back")
    return replace(state, status=status, cause=event.cause, attention=_without_long_retry(state.attention))


def _completed(state: SagaState, _event: e.Completed, at: float) -> SagaState:
    return replace(state, status=next_status(state.status, "complete"), rested_at=at)


def _rolled_back(state: SagaState, _event: e.RolledBack, at: float) -> SagaState:
    return replace(state, status=next_status(state.status, "roll_back"), rested_at=at)


def _rollback_failed(state: SagaState, _event: e.RollbackFailed, at: float) -> SagaState:
    return replace(state, status=next_status(state.status, "fail"), rested_at=at)


def _cancel_requested(state: SagaState, event: e.CancelRequested, _at: float) -> SagaState:
    if state.status not in (SagaStatus.PENDING, SagaStatus.EXECUTING):
        return state
    if state.cancel is not None and not state.cancel.refused:
        return state
    state = replace(state, cancel=Cancel(event.reason, refused=state.pivot_committed))
    if state.blocked and not state.pivot_committed:
        # A parked step counts as UNKNOWN and is compensated; nobody waits for its answer any more.
        steps = {name: _dropped(step) for name, step in state.steps.items()}
        state = replace(state, attention=None, rested_at=None, recoveries=0, steps=steps)
    return state


def _dropped(step: StepState) -> StepState:
    action = step.action
    if step.result is None and action.attempts and action.open is None:
        return replace(step, action=replace(action, ended=True, retry_at=None))
    return step


def _retry_requested(state: SagaState, _event: e.RetryRequested, at: float) -> SagaState:
    if state.status is SagaStatus.FAILED:
        steps = {
            name: replace(step, undo=replace(step.undo, ended=False, spent=0, first_at=None, retry_at=at))
            if step.status is StepStatus.COMPENSATION_FAILED and step.undo is not None
            else step
            for name, step in state.steps.items()
        }
        status = next_status(state.status, "repair")
        return with_frontier(replace(state, status=status, steps=steps, undoing=None, rested_at=None))
    if not state.blocked:
        return state
    steps = dict(state.steps)
    for name in state.ready:
        step = state.step(name)
        if step.action.ended and step.action.open is None:
            action = replace(step.action, ended=False, spent=0, first_at=None, retry_at=at)
            steps[name] = replace(step, action=action)
    return replace(state, steps=steps, attention=None, rested_at=None, failures=(), recoveries=0)


def _attention_set(state: SagaState, event: e.AttentionSet, at: float) -> SagaState:
    return _set_attention(state, Attention(event.code, event.message, at, event.blocking))


def _attention_cleared(state: SagaState, _event: e.AttentionCleared, _at: float) -> SagaState:
    return replace(state, attention=None)


def _set_attention(state: SagaState, attention: Attention) -> SagaState:
    # What blocks must stay visible until somebody deals with it.
    if state.blocked and not attention.blocking:
        return state
    rested_at = attention.since if attention.blocking else state.rested_at
    return replace(state, attention=attention, rested_at=rested_at)


def _without_long_retry(attention: Attention | None) -> Attention | None:
    """Return the attention, unless it speaks of a step that must succeed and now has, or need not any more."""
    return None if attention is not None and attention.code is AttentionCode.RETRYING_LONG else attention


def _with_step(state: SagaState, event: Any, step: StepState) -> SagaState:
    steps = {**state.steps, event.step: step}
    return replace(state, steps=steps, open=state.open - {(event.step, event.phase)})


def _undo(step: StepState, name: str) -> PhaseState:
    if step.undo is None:
        message = f"step {name!r}: an outcome of a compensation that never started"
        raise SagaCorruptStateError(message, step=name)
    return step.undo


def _after_failure(
    phase: PhaseState, error: ErrorRecord, retry_in: float | None, at: float, *, free: bool = False
) -> PhaseState:
    return replace(
        phase,
        open=None,
        spent=phase.spent if free else phase.spent + 1,
        retry_at=None if retry_in is None else at + retry_in,
        ended=retry_in is None,
        error=error,
    )


def _undo_failed(state: SagaState, event: e.AttemptFailed | e.AttemptUnknown, at: float) -> SagaState:
    step = state.step(event.step)
    free = isinstance(event, e.AttemptUnknown) and event.free
    step = replace(step, undo=_after_failure(_undo(step, event.step), event.error, event.retry_in, at, free=free))
    if event.retry_in is not None:
        return _with_step(state, event, step)
    step = replace(step, status=next_step_status(step.status, "give_up"))
    return without(_with_step(state, event, step), event.step)


_APPLY: dict[type, Callable[[SagaState, Any, float], SagaState]] = {
    e.Created: _created_again,
    e.Claimed: _claimed,
    e.Began: _began,
    e.Reshaped: _reshaped,
    e.AttemptStarted: _started,
    e.AttemptSucceeded: _succeeded,
    e.AttemptFailed: _failed,
    e.AttemptUnknown: _unknown,
    e.AttemptNotRun: _not_run,
    e.LateOutcome: _late,
    e.CompensationSkipped: _skipped,
    e.TurnedBack: _turned_back,
    e.Completed: _completed,
    e.RolledBack: _rolled_back,
    e.RollbackFailed: _rollback_failed,
    e.CancelRequested: _cancel_requested,
    e.RetryRequested: _retry_requested,
    e.AttentionSet: _attention_set,
    e.AttentionCleared: _attention_cleared,
}
