"""What an attempt's end means: which fact it becomes and whether it is tried again. Pure."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from saga.events import AttemptFailed, AttemptNotRun, AttemptSucceeded, AttemptUnknown, Event, LateOutcome
from saga.exceptions import OutcomeUnknownError, SagaSerializationError
from saga.foreign import read
from saga.state import UNTOUCHED
from saga.types import ErrorRecord, Outcome, Phase, SagaStatus, StepStatus, UnknownReason

if TYPE_CHECKING:
    from saga.definition import RetryPolicy, SagaDefinition, SagaStep
    from saga.state import PhaseState, SagaState, StepState

ERROR_TEXT_MAX = 4_096
_UNKNOWN_ERRORS: tuple[type[Exception], ...] = (
    TimeoutError,
    ConnectionError,
    OutcomeUnknownError,
    SagaSerializationError,
)
_BY_ENGINE = (UnknownReason.TIMEOUT, UnknownReason.INTERRUPTED, UnknownReason.CANCELLED)
_USER_MUST_RETURN = (TypeError, AttributeError, KeyError)


NOTHING = msgspec.Raw(b"null")
"""The stored form of None."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended, as the executor saw it.

    Attributes:
        step: The step's name.
        phase: Which coroutine it was.
        attempt: Which attempt.
        result: The encoded result, where it returned one that can be stored.
        data: Whether the result is a mapping whose keys later steps see.
        error: What it raised, where it raised.
        reason: Why its outcome is not known, where the engine or a value that cannot be stored is the cause.
        not_run: Whether the first line never ran.
    """

    step: str
    phase: Phase
    attempt: int
    result: msgspec.Raw | None = None
    data: bool = False
    error: BaseException | None = None
    reason: UnknownReason | None = None
    not_run: bool = False


def record_of(error: BaseException | None, fallback: str = "") -> ErrorRecord:
    """Return an exception as it is stored: its type's name and its text, bounded and safe to encode."""
    if error is None:
        return ErrorRecord("", fallback)
    text = _cut(_text_of(error)).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return ErrorRecord(read(lambda: str(type(error).__name__), otherwise="Exception"), text)


def _text_of(error: BaseException) -> str:
    """Return the text of an exception, whatever it is made of: an end that cannot be told must not stop its saga."""
    # traceback reads notes, too, and the text of an exception whose own __str__ raises; what is odder raises here.
    lines = read(traceback.format_exception_only, error, otherwise=[": its text could not be read"])
    _, _, text = "".join(lines).strip().partition(": ")
    return text.strip()


def _cut(text: str) -> str:
    """Return a text of bounded length. It ends between words: half a secret is none that could be known and masked."""
    if len(text) <= ERROR_TEXT_MAX:
        return text
    kept = text[: ERROR_TEXT_MAX - 1]
    return (kept.rstrip() if text[len(kept)].isspace() else kept.rsplit(maxsplit=1)[0]) + "…"


def fact_of(definition: SagaDefinition, state: SagaState, ended: Ended, *, now: float, draw: float) -> Event:
    """Return the fact that the end of an attempt becomes.

    Args:
        definition: The saga's definition.
        state: The state before.
        ended: What happened.
        now: The present instant (the storage's clock).
        draw: A random number from 0 to 1 for the delay of a retry.
    """
    before = state.steps.get(ended.step, UNTOUCHED)
    if _is_late(before, ended):
        return late_outcome(ended)
    if ended.not_run:
        return AttemptNotRun(ended.step, ended.phase, ended.attempt)
    if ended.error is None and ended.reason is None:
        result = ended.result if ended.result is not None else NOTHING
        return AttemptSucceeded(ended.step, ended.phase, ended.attempt, result, ended.data)
    step = definition.steps[ended.step]
    if ended.phase is Phase.COMPENSATION:
        return _compensation_fact(step, state, ended, now, draw)
    return _action_fact(definition, step, state, ended, now, draw)


def _is_late(step: StepState, ended: Ended) -> bool:
    """Whether this end can change nothing any more (R3, R7)."""
    if ended.phase is Phase.COMPENSATION:
        return step.undo is None or step.undo.open != ended.attempt
    if step.result is not None or step.undo is not None:
        return True
    if step.action.open == ended.attempt:
        return False
    # An attempt given up earlier: only a success still counts.
    failed = ended.error is not None or ended.reason is not None
    return failed or step.status not in (StepStatus.RUNNING, StepStatus.UNKNOWN)


def late_outcome(ended: Ended) -> LateOutcome:
    """Return the fact that the end of an attempt becomes when it can change nothing any more."""
    raised = _raised(ended)
    error = None if raised is None else record_of(raised)
    if ended.error is None and ended.reason is None and not ended.not_run:
        outcome = Outcome.SUCCEEDED
    else:
        doubt = ended.reason is not None or _says_nothing(ended.error, _UNKNOWN_ERRORS)
        outcome = Outcome.UNKNOWN if doubt else Outcome.FAILED
    return LateOutcome(ended.step, ended.phase, ended.attempt, outcome, error)


def _action_fact(
    definition: SagaDefinition, step: SagaStep, state: SagaState, ended: Ended, now: float, draw: float
) -> Event:
    reason = ended.reason or _reason_of(step, ended.error)
    error = record_of(_raised(ended), fallback=_EXPLAINED.get(reason, "") if reason else "")
    phase = state.step(ended.step).action
    pivot = step.pivot
    if reason is None:
        retry_in = _retry_in(definition.retry_of(step), phase, ended.error, now, draw)
        return AttemptFailed(ended.step, ended.phase, ended.attempt, error, retry_in)
    if reason in (UnknownReason.INTERRUPTED, UnknownReason.CANCELLED):
        retry_in, free = interrupted(step, state, reason)
    elif pivot:
        # A pivot's answer is needed, whatever the budget; what returned but cannot be stored is parked instead.
        parks = step.on_interrupt == "park" or reason is UnknownReason.NOT_STORABLE
        retry_in, free = (None if parks else definition.retry_of(step).delay(phase.attempts - 1, draw)), False
    else:
        retry_in, free = _retry_in(definition.retry_of(step), phase, _judged(ended), now, draw), False
    return AttemptUnknown(ended.step, ended.phase, ended.attempt, reason, error, retry_in, free)


def interrupted(step: SagaStep, state: SagaState, reason: UnknownReason) -> tuple[float | None, bool]:
    """Say in how many seconds an interrupted action runs again (None: not), and that this costs no budget (R2)."""
    again = (
        reason is UnknownReason.INTERRUPTED
        and step.on_interrupt == "retry"
        and state.status in (SagaStatus.PENDING, SagaStatus.EXECUTING)
    )
    return (0.0 if again else None), True


def _compensation_fact(step: SagaStep, state: SagaState, ended: Ended, now: float, draw: float) -> Event:
    reason = ended.reason
    undo = state.step(ended.step).undo or UNTOUCHED.action
    if reason is UnknownReason.INTERRUPTED:
        error = record_of(_raised(ended), fallback=_EXPLAINED[reason])
        return AttemptUnknown(ended.step, ended.phase, ended.attempt, reason, error, 0.0, free=True)
    error = record_of(_raised(ended), fallback=_EXPLAINED.get(reason, "") if reason else "")
    if state.step(ended.step).result is None and issubclass(type(ended.error), _USER_MUST_RETURN):
        hint = (
            f"{error.message} (the action left no result, so the compensation got None: use ctx.action_key, or "
            f"declare compensate_on='success')"
        )
        error = ErrorRecord(error.type, hint)
    retry_in = _retry_in(step.compensation_retry, undo, _judged(ended), now, draw)
    if reason is None:
        return AttemptFailed(ended.step, ended.phase, ended.attempt, error, retry_in)
    return AttemptUnknown(ended.step, ended.phase, ended.attempt, reason, error, retry_in)


def _raised(ended: Ended) -> BaseException | None:
    """Return what the user's code raised; the cancellation that carried out an interruption is none of its own."""
    carried_out = ended.reason in _BY_ENGINE and not issubclass(type(ended.error), Exception)
    return None if carried_out else ended.error


def _judged(ended: Ended) -> BaseException | None:
    """Return what the retry policy is asked about: a timeout is one, whatever the code did when it was interrupted."""
    return TimeoutError() if ended.reason is UnknownReason.TIMEOUT else ended.error


def _reason_of(step: SagaStep, error: BaseException | None) -> UnknownReason | None:
    if issubclass(type(error), SagaSerializationError):
        return UnknownReason.NOT_STORABLE
    return UnknownReason.RAISED if _says_nothing(error, (*_UNKNOWN_ERRORS, *step.unknown_on)) else None


def _says_nothing(error: BaseException | None, kinds: tuple[type[Exception], ...]) -> bool:
    """Whether an error, or one of a group, leaves open whether there was an effect. In doubt about that, it does."""
    if error is None or issubclass(type(error), Exception):
        group = issubclass(type(error), BaseExceptionGroup)
        return read(issubclass, type(error), kinds, otherwise=True) or (
            group and read(_holds, error, kinds, otherwise=True)
        )
    return True


def _holds(group: BaseExceptionGroup, kinds: tuple[type[Exception], ...]) -> bool:
    return group.subgroup(kinds) is not None


def _retry_in(
    policy: RetryPolicy, phase: PhaseState, error: BaseException | None, now: float, draw: float
) -> float | None:
    """Return the delay before the next attempt, or None if there is none (R11)."""
    kind: type[Any] = type(error) if issubclass(type(error), Exception) else RuntimeError
    if not read(policy.retries, kind, otherwise=False):
        return None
    spent = phase.spent + 1
    if policy.max_attempts is not None and spent >= policy.max_attempts:
        return None
    delay = policy.delay(spent - 1, draw)
    first_at = now if phase.first_at is None else phase.first_at
    if policy.max_elapsed is not None and now + delay - first_at > policy.max_elapsed:
        return None
    return delay


_EXPLAINED = {
    UnknownReason.TIMEOUT: "it ran beyond its timeout",
    UnknownReason.INTERRUPTED: "its process stopped or lost the saga before the outcome was recorded",
    UnknownReason.CANCELLED: "it was cancelled while it ran",
    UnknownReason.NOT_STORABLE: "its result cannot be stored",
    UnknownReason.RAISED: "it raised",
}


def explain(reason: UnknownReason) -> ErrorRecord:
    """Return the record of an unknown outcome that no exception explains."""
    return ErrorRecord("", _EXPLAINED[reason])
