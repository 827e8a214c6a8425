"""Runs one saga without an orchestrator, on private memory: nobody could carry it on, so it undoes before it goes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from saga.building import Buildable, belong_to, birth_of, definition_of, life_of
from saga.checks import check_seconds
from saga.clock import SystemClock
from saga.environment import CURRENT_SAGA, Environment
from saga.events import CancelRequested
from saga.exceptions import SagaExecutionError
from saga.executor import SagaRun
from saga.observers import Observer, Observers
from saga.results import result_of
from saga.storage.base import Claim
from saga.storage.memory import InMemorySagaStorage
from saga.types import Limits, SagaResult, StepStatus, UnknownReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from saga.definition import SagaDefinition
    from saga.events import Created

UNDO_SECONDS = 30.0
"""How long a saga undoes for when the caller of ``execute()`` is cancelled."""

_UNDONE = (StepStatus.NOT_STARTED, StepStatus.COMPENSATED, StepStatus.SKIPPED)


async def execute_alone(
    saga: Buildable,
    *,
    deadline: float | None,
    resources: Mapping[str, object],
    observers: Sequence[Observer],
) -> SagaResult:
    """Run the saga to its resting point, once; further calls wait for the same run.

    Raises:
        SagaExecutionError: If the saga belongs to an orchestrator, or would wait for itself.
    """
    check_seconds("deadline", deadline)
    life = life_of(saga)
    definition = await definition_of(saga)
    clock = SystemClock()
    saga_id = belong_to(life, life, clock.token())
    if life.run is None:
        env = Environment(InMemorySagaStorage(), clock, Observers(observers), resources, Limits(), ttl=None)
        life.run = _run_of(env, saga_id, definition, birth_of(life, definition, deadline))
        await env.storage.open()
        life.run.begin()
    run: SagaRun = life.run
    if CURRENT_SAGA.get() == run.saga_id:
        message = f"a step of saga {life.saga_name!r} {run.saga_id} waits for its own saga, which would never end"
        raise SagaExecutionError(message, saga_name=life.saga_name, saga_id=run.saga_id)
    try:
        await run.finished.wait()
    except asyncio.CancelledError as cancelled:
        await _host_cancelled(run, cancelled)
        raise
    return result_of(run.saga_id, definition, run.state, run.live_errors)


def _run_of(env: Environment, saga_id: str, definition: SagaDefinition, created: Created) -> SagaRun:
    claim = Claim(env.owner, env.clock.token(), env.ttl)
    return SagaRun(env, saga_id, definition, claim, first_facts=(created,), on_left=lambda _run: env.timers.close())


async def _host_cancelled(run: SagaRun, cancelled: asyncio.CancelledError) -> None:
    """Undo what can be undone before the caller's cancellation goes on, and say on it what is left (R13)."""
    if not run.exists:
        return
    if run.left is None:
        await _come_to_rest(run)
    left = [name for name, step in run.state.steps.items() if step.status not in _UNDONE]
    if left:
        cancelled.add_note(
            f"saga {run.definition.name} {run.saga_id} is {run.state.status}; these steps are not undone: {left}"
        )


async def _come_to_rest(run: SagaRun) -> None:
    """Turn the saga back, or where there is no way back stop it, and wait for that."""
    env = run.env
    if run.state.pivot_open or run.state.pivot_committed:
        run.hurry()
        run.interrupt(UnknownReason.INTERRUPTED)
        patience = env.limits.abandon_after
    else:
        request = CancelRequested("the caller of execute() was cancelled")
        await env.storage.append(
            run.saga_id, (request,), row=None, expected_version=None, claim=None, write_id=env.clock.token()
        )
        for stored in await env.storage.load([run.saga_id]):
            run.catch_up(stored.entries)
        patience = UNDO_SECONDS
    waiting = env.spawn(run.finished.wait_up_to(patience, env.clock))
    while not waiting.done():
        # The first cancellation is re-raised in the end; further ones must not cut the undoing short.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(waiting)
