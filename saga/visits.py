"""Appends by somebody who does not own the saga: requests, repairs, and outcomes that came too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from saga.arguments import differing
from saga.clock import sleep
from saga.events import AttentionSet
from saga.exceptions import (
    SagaAlreadyExistsError,
    SagaCorruptStateError,
    SagaNotFoundError,
    SagaStorageUnavailableError,
    SagaVersionMovedError,
)
from saga.fold import fold
from saga.outcomes import late_outcome
from saga.recording import folded
from saga.storage.base import Row
from saga.types import Attention, AttentionCode, SagaInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from saga.environment import Environment
    from saga.events import Created, Event
    from saga.exceptions import SagaStateLostError
    from saga.outcomes import Ended
    from saga.state import SagaState
    from saga.storage.base import SagaStorage, StoredSaga
    from saga.types import SagaRecord


NO_CODE_AFTER = 60.0
"""Seconds that a due saga may stay unclaimed before ``get`` and ``query`` say that nobody has code for it."""


async def load_state(storage: SagaStorage, saga_id: str, *, up_to: int | None = None) -> tuple[StoredSaga, SagaState]:
    """Return a stored saga and what its journal says, or said up to a version.

    Raises:
        SagaNotFoundError: If there is no such saga.
        SagaCorruptStateError: If its journal cannot be understood.
    """
    found = await storage.load([saga_id])
    if not found:
        message = f"no saga {saga_id} is stored: check the id, or whether it was pruned"
        raise SagaNotFoundError(message, saga_id=saga_id)
    if found[0].unreadable is not None:
        raise SagaCorruptStateError(found[0].unreadable, saga_id=saga_id)
    entries = found[0].entries
    return found[0], folded(entries if up_to is None else entries[:up_to])


def info_of(saga_id: str, state: SagaState) -> SagaInfo:
    """Return what observers are told a saga is."""
    return SagaInfo(saga_id, state.name, state.saga_version, state.headers, state.created_at)


async def visit(env: Environment, saga_id: str, facts_for: Callable[[SagaState], Sequence[Event] | None]) -> SagaState:
    """Append the facts that fit the saga as it is stored, deciding again if somebody else was first.

    Args:
        env: Where the saga is stored, and who is told.
        saga_id: The saga.
        facts_for: Returns what to append to this state, or None for nothing.

    Returns:
        The state afterwards.
    """
    while True:
        _, state = await load_state(env.storage, saga_id)
        facts = facts_for(state)
        if facts is None:
            return state
        after = fold(state, state.version + 1, state.updated_at, facts)
        row = Row(
            status=after.status,
            attention=after.attention,
            due_in=None if after.at_rest else 0.0,
            recoveries=after.recoveries,
        )
        try:
            answer = await env.storage.append(
                saga_id, facts, row=row, expected_version=state.version, claim=None, write_id=env.clock.token()
            )
        except SagaVersionMovedError:
            continue
        env.observers.on_events(info_of(saga_id, state), facts)
        return fold(state, answer.version, answer.at, facts)


async def mark_lost(env: Environment, lost: SagaStateLostError, token: str) -> None:
    """Let a saga of which the storage lost a part rest until a person lets it go on."""
    saga_id = lost.saga_id or ""
    fact = AttentionSet(AttentionCode.STATE_LOST, str(lost), blocking=True)
    while True:
        try:
            await visit(env, saga_id, lambda state: None if state.at_rest else (fact,))
            await env.storage.release({saga_id: token})
        except SagaStorageUnavailableError:
            await sleep(env.clock, env.limits.storage_backoff)
        except SagaNotFoundError:
            return
        else:
            return


async def append_late(env: Environment, saga_id: str, ended: Ended) -> None:
    """Record the end of an attempt that this process had given up (R7), when the storage takes it."""
    fact = late_outcome(ended)
    while True:
        try:
            await visit(env, saga_id, lambda _state: (fact,))
        except SagaStorageUnavailableError:
            await sleep(env.clock, env.limits.storage_backoff)
        except SagaNotFoundError:
            return
        else:
            return


def check_same(saga_id: str, created: Created, state: SagaState) -> None:
    """Check that a saga which exists already is the one that was to be started (R19).

    Raises:
        SagaAlreadyExistsError: If it is not; says what differs.
    """
    differs: list[str] = []
    if created.name != state.name:
        differs.append(f"it is a {state.name}, not a {created.name}")
    elif created.version != state.saga_version:
        differs.append(f"its version is {state.saga_version}, not {created.version}")
    else:
        names = differing(state.arguments, created.arguments)
        if names:
            differs.append(f"its arguments differ: {', '.join(names)}")
    if differs:
        message = f"saga {saga_id} exists already and {differs[0]}"
        raise SagaAlreadyExistsError(message, saga_name=state.name, saga_id=saga_id)


def with_no_code(record: SagaRecord, now: float) -> SagaRecord:
    """Return a row with the attention that nobody has code for it, if it waits to be claimed for long."""
    due_since = None if record.due_at is None else now - record.due_at
    if due_since is None or due_since < NO_CODE_AFTER or record.owner is not None or record.attention is not None:
        return record
    message = (
        f"due for {due_since:.0f} s and nobody claims it: does a process run that has code for "
        f"{record.saga_name!r} version {record.saga_version!r}?"
    )
    since = (record.due_at or 0.0) + NO_CODE_AFTER
    return replace(record, attention=Attention(AttentionCode.NO_CODE, message, since, blocking=False))
