"""The lifecycles of sagas and steps: the one place that knows which transition is legal.

The machines are declared with python-statemachine and have no callbacks. They say what is legal; the planner says
what comes next. Legality depends on the status and the event alone, so a real machine answers each pair once and
the answer is remembered: a machine costs a quarter of a millisecond, a remembered answer nothing that shows.
"""

from __future__ import annotations

from functools import cache

from statemachine import State, StateMachine
from statemachine.exceptions import TransitionNotAllowed

from saga.exceptions import SagaCorruptStateError
from saga.types import SagaStatus, StepStatus


class SagaLifecycle(StateMachine):
    """How a saga lives. FAILED is not final: a repair takes it back to COMPENSATING."""

    pending = State(value=SagaStatus.PENDING, initial=True)
    executing = State(value=SagaStatus.EXECUTING)
    completed = State(value=SagaStatus.COMPLETED, final=True)
    compensating = State(value=SagaStatus.COMPENSATING)
    rolled_back = State(value=SagaStatus.ROLLED_BACK, final=True)
    failed = State(value=SagaStatus.FAILED)

    begin = pending.to(executing)
    complete = executing.to(completed)
    turn_back = executing.to(compensating)
    roll_back = compensating.to(rolled_back)
    fail = compensating.to(failed)
    repair = failed.to(compensating)


class StepLifecycle(StateMachine):
    """How one step lives. Doubt stays: UNKNOWN leads to FAILED only through a further attempt of a pivot."""

    not_started = State(value=StepStatus.NOT_STARTED, initial=True)
    running = State(value=StepStatus.RUNNING)
    succeeded = State(value=StepStatus.SUCCEEDED)
    failed = State(value=StepStatus.FAILED)
    unknown = State(value=StepStatus.UNKNOWN)
    compensating = State(value=StepStatus.COMPENSATING)
    compensated = State(value=StepStatus.COMPENSATED, final=True)
    compensation_failed = State(value=StepStatus.COMPENSATION_FAILED)
    skipped = State(value=StepStatus.SKIPPED, final=True)

    start = not_started.to(running) | failed.to(running) | unknown.to(running)
    succeed = running.to(succeeded) | unknown.to(succeeded)
    fail = running.to(failed)
    lose = running.to(unknown)
    withdraw = running.to(not_started)
    compensate = (
        succeeded.to(compensating)
        | unknown.to(compensating)
        | failed.to(compensating)
        | compensation_failed.to(compensating)
    )
    undo = compensating.to(compensated)
    give_up = compensating.to(compensation_failed)
    skip = succeeded.to(skipped) | unknown.to(skipped) | failed.to(skipped)


@cache
def next_status(status: SagaStatus, event: str) -> SagaStatus:
    """Return the status that a saga has after the event.

    Raises:
        SagaCorruptStateError: If the event is not legal in this status.
    """
    return SagaStatus(_send(SagaLifecycle(start_value=status), status, event))


@cache
def next_step_status(status: StepStatus, event: str) -> StepStatus:
    """Return the status that a step has after the event.

    Raises:
        SagaCorruptStateError: If the event is not legal in this status.
    """
    return StepStatus(_send(StepLifecycle(start_value=status), status, event))


def _send(machine: StateMachine, status: SagaStatus | StepStatus, event: str) -> str:
    try:
        machine.send(event)
    except TransitionNotAllowed as error:
        message = f"a journal says {event!r} where the status is {status}, which no {type(machine).__name__} allows"
        raise SagaCorruptStateError(message) from error
    return str(machine.current_state_value)
