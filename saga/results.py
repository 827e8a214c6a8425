"""Builds results from what the journal says, with live exceptions as causes where this process saw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from saga.exceptions import (
    RecordedError,
    SagaCompensationError,
    SagaError,
    SagaExecutionError,
    SagaStepError,
    SagaTimeoutError,
)
from saga.state import UNTOUCHED
from saga.types import Outcome, Phase, SagaResult, SagaStatus, StepRecord, StepStatus, TurnCause, UnknownReason, masked
from saga.view import Results, StateView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from saga.definition import SagaDefinition
    from saga.state import SagaState, StepState
    from saga.types import ErrorRecord

NO_LIMIT = 0


class Named(NamedTuple):
    """Which saga an error speaks of."""

    saga_name: str
    saga_id: str


def result_of(
    saga_id: str,
    definition: SagaDefinition,
    state: SagaState,
    live_errors: Mapping[tuple[str, Phase], BaseException],
) -> SagaResult:
    """Return the result of a saga that rests.

    Args:
        saga_id: The saga's id.
        definition: Its steps.
        state: What its journal says.
        live_errors: Exceptions that were raised in this process, to be chained as causes.
    """
    who = Named(state.name, saga_id)
    records = [_record_of(step.name, state.steps.get(step.name, UNTOUCHED)) for step in state.graph.shape]
    success = state.status is SagaStatus.COMPLETED
    return SagaResult(
        success=success,
        saga_id=saga_id,
        saga_name=state.name,
        status=state.status,
        attention=state.attention,
        completed_steps=sum([record.outcome is Outcome.SUCCEEDED for record in records]),
        total_steps=len(records),
        error=None if success else _error_of(who, state, live_errors),
        compensation_errors=() if success else _compensation_errors(who, state, live_errors),
        context=Results(StateView(definition, state, {}, NO_LIMIT)),
        execution_time=(state.rested_at or state.updated_at) - state.created_at,
        steps=tuple(records),
    )


def _record_of(name: str, step: StepState) -> StepRecord:
    action, undo = step.action, step.undo
    return StepRecord(
        name=name,
        status=step.status,
        attempts=action.attempts,
        outcome=step.outcome,
        error=action.error,
        compensation_attempts=0 if undo is None else undo.attempts,
        compensation_error=None if undo is None else undo.error,
        skipped=step.skipped,
    )


def _error_of(who: Named, state: SagaState, live_errors: Mapping[tuple[str, Phase], BaseException]) -> SagaError | None:
    if state.cause is TurnCause.CANCEL and state.cancel is not None:
        message = f"saga {who.saga_name} {who.saga_id} was cancelled: {masked(state.cancel.reason)}"
        return SagaExecutionError(message, saga_name=who.saga_name, saga_id=who.saga_id)
    if state.cause is TurnCause.DEADLINE:
        message = f"saga {who.saga_name} {who.saga_id} passed its deadline"
        return SagaTimeoutError(message, saga_name=who.saga_name, saga_id=who.saga_id)
    if not state.failures:
        if state.attention is None:
            return None
        message = f"saga {who.saga_name} {who.saga_id} rests: {masked(state.attention.message)}"
        return SagaExecutionError(message, saga_name=who.saga_name, saga_id=who.saga_id)
    first, *others = state.failures
    kind = SagaTimeoutError if first.reason is UnknownReason.TIMEOUT else SagaStepError
    text = _text(first.error)
    message = f"step {first.step!r} of saga {who.saga_name} {who.saga_id} failed: {text}"
    error = kind(message, saga_name=who.saga_name, saga_id=who.saga_id, step=first.step)
    error.__cause__ = _cause(first.step, Phase.ACTION, first.error, live_errors)
    for other in others:
        error.add_note(f"step {other.step!r} failed as well: {_text(other.error)}")
    return error


def _compensation_errors(
    who: Named, state: SagaState, live_errors: Mapping[tuple[str, Phase], BaseException]
) -> tuple[SagaError, ...]:
    errors: list[SagaError] = []
    for name, step in state.steps.items():
        if step.status is not StepStatus.COMPENSATION_FAILED or step.undo is None or step.undo.error is None:
            continue
        message = (
            f"step {name!r} of saga {who.saga_name} {who.saga_id} could not be undone "
            f"in {step.undo.attempts} attempts: {_text(step.undo.error)}; mend the cause and retry the saga"
        )
        error = SagaCompensationError(message, saga_name=who.saga_name, saga_id=who.saga_id, step=name)
        error.__cause__ = _cause(name, Phase.COMPENSATION, step.undo.error, live_errors)
        errors.append(error)
    return tuple(errors)


def _text(record: ErrorRecord) -> str:
    return ": ".join(part for part in (record.type, masked(record.message)) if part)


def _cause(
    step: str, phase: Phase, record: ErrorRecord, live_errors: Mapping[tuple[str, Phase], BaseException]
) -> BaseException | None:
    live = live_errors.get((step, phase))
    if live is not None and type(live).__name__ == record.type:
        return live
    return RecordedError(record.type, masked(record.message)) if record.type else None
