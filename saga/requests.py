"""What people ask of a stored saga from outside: to turn back, or to try again what rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saga.checks import check_saga_id, refuse
from saga.events import AttentionCleared, CancelRequested, Event, RetryRequested
from saga.exceptions import SagaNotCancellableError
from saga.types import ENDED, SagaStatus
from saga.visits import info_of, load_state, visit

if TYPE_CHECKING:
    from saga.environment import Environment
    from saga.state import SagaState

REASON_LENGTH_MAX = 1_000


async def request_cancel(env: Environment, saga_id: str, reason: str) -> None:
    """Append a request to cancel and see what became of it (R13).

    Raises:
        SagaNotFoundError: If there is no such saga.
        SagaNotCancellableError: If it completed or its pivot has succeeded.
    """
    request = CancelRequested(_checked(saga_id, reason))
    _, state = await load_state(env.storage, saga_id)
    if state.status in ENDED:
        # Nothing leads out of these, so nothing is lost between the look and the answer.
        pass
    elif state.blocked:
        # Blocked sagas are not due for anybody, so the row must change together with the request.
        state = await visit(env, saga_id, lambda _state: (request,))
    else:
        answer = await env.storage.append(
            saga_id, (request,), row=None, expected_version=None, claim=None, write_id=env.clock.token()
        )
        # What counts is the place of the request in the journal, not what came after it.
        stored, state = await load_state(env.storage, saga_id, up_to=answer.version)
        if stored.record.attention is not None and stored.record.attention.blocking and not state.blocked:
            # It parked between the look and the request, which ended that; the row must say so, too.
            await visit(env, saga_id, lambda now: None if now.at_rest else (AttentionCleared(),))
        env.observers.on_events(info_of(saga_id, state), (request,))
    if state.status is SagaStatus.COMPLETED or (state.cancel is not None and state.cancel.refused):
        what = "has completed" if state.status is SagaStatus.COMPLETED else "has passed its point of no return"
        message = f"saga {state.name} {saga_id} {what}, so it cannot be cancelled"
        raise SagaNotCancellableError(message, saga_name=state.name, saga_id=saga_id)


async def request_retry(env: Environment, saga_id: str, reason: str) -> None:
    """Append a request to try again, if there is something at rest to try again, or attention left to take away.

    Raises:
        SagaNotFoundError: If there is no such saga.
    """
    request = RetryRequested(_checked(saga_id, reason))

    def facts_for(state: SagaState) -> tuple[Event, ...] | None:
        if state.status is SagaStatus.FAILED or state.blocked:
            return (request,)
        return (request, AttentionCleared()) if state.status in ENDED and state.attention is not None else None

    await visit(env, saga_id, facts_for)


def _checked(saga_id: str, reason: Any) -> str:
    check_saga_id(saga_id)
    text = reason if isinstance(reason, str) else ""
    if not text.strip() or len(text) > REASON_LENGTH_MAX or text != text.encode("utf-8", "replace").decode():
        refuse("reason", reason, f"a text of 1 to {REASON_LENGTH_MAX} characters that says why")
    return text
