"""The enums and result types that users and every layer share. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from saga.checks import is_int, is_number, refuse
from saga.exceptions import SagaError
from saga.foreign import read
from saga.redaction import MASK, Redaction

T = TypeVar("T")


class Word(StrEnum):
    """Base of the library's enums: hashed as the string it is, since Enum's own hash is a Python function.

    Statuses and phases are looked up several times a step; this alone makes a saga in memory a fifth faster.
    """

    __hash__ = str.__hash__


class SagaStatus(Word):
    """Where a saga is in its life."""

    PENDING = "pending"
    EXECUTING = "executing"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


ENDED = frozenset({SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK})
"""Statuses that never change again."""

AT_REST = ENDED | {SagaStatus.FAILED}
"""Statuses in which nothing runs until somebody asks for it."""


class StepStatus(Word):
    """Where one step is in its life."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"
    SKIPPED = "skipped"


class Phase(Word):
    """Which of a step's two coroutines an attempt runs."""

    ACTION = "action"
    COMPENSATION = "compensation"


class Outcome(Word):
    """How an attempt, or all attempts of an action, ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class UnknownReason(Word):
    """Why the outcome of an attempt is not known."""

    TIMEOUT = "timeout"
    RAISED = "raised"
    NOT_STORABLE = "not_storable"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


class TurnCause(Word):
    """What made a saga turn back."""

    FAILURE = "failure"
    CANCEL = "cancel"
    DEADLINE = "deadline"


class SkipReason(Word):
    """Why a started step was not compensated."""

    NO_COMPENSATION = "no_compensation"
    NO_EFFECT = "no_effect"
    IN_DOUBT = "in_doubt"


class AttentionCode(Word):
    """Why a person should look at a saga."""

    PARKED = "parked"
    CRASH_LOOP = "crash_loop"
    STATE_LOST = "state_lost"
    BAD_CODE = "bad_code"
    PAST_DEADLINE = "past_deadline"
    RETRYING_LONG = "retrying_long"
    LATE_EFFECT = "late_effect"
    IN_DOUBT = "in_doubt"
    NO_CODE = "no_code"


class LeaveReason(Word):
    """Why a process stops driving a saga."""

    REST = "rest"
    RELEASED = "released"
    LOST = "lost"


class Attention(msgspec.Struct, frozen=True):
    """Says that a person should look at a saga.

    Attributes:
        code: The kind of trouble.
        message: What happened and what can be done.
        since: When it was set (seconds since the epoch, the storage's clock).
        blocking: Whether the saga rests until ``retry`` (or ``cancel``).
    """

    code: AttentionCode
    message: str
    since: float
    blocking: bool


def rests(status: SagaStatus, attention: Attention | None) -> bool:
    """Whether nothing of a saga runs until somebody asks for it: it has ended, is FAILED, or waits for a person."""
    return status in AT_REST or (attention is not None and attention.blocking)


def masked(text: str) -> str:
    """Return a text for people, masked by the default redaction; wholly, where that is the application's and raises."""
    return read(Redaction.default.text, text, otherwise=MASK)


class ErrorRecord(msgspec.Struct, frozen=True):
    """An exception as it is stored.

    Attributes:
        type: The exception type's name.
        message: Its text, bounded to 4 KiB.
    """

    type: str
    message: str

    def __repr__(self) -> str:
        """Show the text with secrets masked; the attribute has it as it is stored."""
        return f"ErrorRecord(type={self.type!r}, message={masked(self.message)!r})"


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one step.

    Attributes:
        name: The step's name.
        status: Where the step is.
        attempts: Attempts of the action so far.
        outcome: What is known of the action; None if it never started.
        error: The last error of the action.
        compensation_attempts: Attempts of the compensation so far.
        compensation_error: The last error of the compensation.
        skipped: Why it was not compensated, where it was skipped.
    """

    name: str
    status: StepStatus
    attempts: int = 0
    outcome: Outcome | None = None
    error: ErrorRecord | None = None
    compensation_attempts: int = 0
    compensation_error: ErrorRecord | None = None
    skipped: SkipReason | None = None


class SagaResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a saga, read from its journal at a resting point.

    Attributes:
        success: Whether the saga completed.
        saga_id: The saga's id.
        saga_name: The saga's name.
        status: Its status at the resting point.
        attention: Why a person should look, if one should.
        completed_steps: How many steps' actions succeeded, undone ones included.
        total_steps: How many steps the definition has.
        error: What turned the saga back or stopped it; None after success.
        compensation_errors: One error for each compensation that could not be done.
        context: The results of the steps that succeeded, by step name, and the keys that actions added.
        execution_time: Seconds from the start to the resting point, by the storage's clock.
        steps: One record a step, in the order of declaration.
    """

    success: bool
    saga_id: str
    saga_name: str
    status: SagaStatus
    attention: Attention | None
    completed_steps: int
    total_steps: int
    error: SagaError | None
    compensation_errors: tuple[SagaError, ...]
    context: Mapping[str, Any]
    execution_time: float
    steps: tuple[StepRecord, ...]

    def __repr__(self) -> str:
        """Say what became of the saga; values and error texts are left out, since they may be secret."""
        return f"SagaResult({self.saga_name!r}, {self.saga_id!r}, {self.status}, completed={self.completed_steps})"

    def raise_for_status(self) -> None:
        """Raise ``error`` unless the saga completed.

        Raises:
            SagaError: What turned the saga back or stopped it.
        """
        if self.success:
            return
        if self.error is not None:
            raise self.error
        message = f"saga {self.saga_name} {self.saga_id} is {self.status}"
        raise SagaError(message, saga_name=self.saga_name, saga_id=self.saga_id)


class SagaInfo(msgspec.Struct, frozen=True):
    """Says which saga an observer is told about.

    Attributes:
        saga_id: The saga's id.
        saga_name: The name of its definition.
        saga_version: The version of its definition.
        headers: What observers had stored with it.
        created_at: When it was created (seconds since the epoch, the storage's clock); None if that is not known here.
    """

    saga_id: str
    saga_name: str
    saga_version: str
    headers: Mapping[str, str] = {}
    created_at: float | None = None


class SagaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored saga's row: a projection of its journal.

    Attributes:
        saga_id: The saga's id.
        saga_name: The name of its definition.
        saga_version: The version of its definition.
        status: Its status.
        attention: Why a person should look, if one should.
        version: How many appends its journal has.
        created_at: When it was created (seconds since the epoch, the storage's clock).
        updated_at: When its journal last grew (same clock).
        due_at: From when on it may be claimed; None at rest.
        owner: The label of who claims it now; None if nobody does.
        fence: How often it was claimed.
        recoveries: How often in a row its claim expired without an outcome in between.
    """

    saga_id: str
    saga_name: str
    saga_version: str
    status: SagaStatus
    attention: Attention | None
    version: int
    created_at: float
    updated_at: float
    due_at: float | None
    owner: str | None
    fence: int
    recoveries: int

    @property
    def at_rest(self) -> bool:
        """Whether nothing runs until somebody asks for it."""
        return rests(self.status, self.attention)


class SagaStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of stored sagas.

    Attributes:
        by_status: How many sagas of each name are in each status.
        needs_attention: How many sagas have attention set or are FAILED.
        oldest_unfinished_at: When the oldest saga that is not at rest was created; None if there is none.
        needs_attention_by_name: The same by saga name, without names that have none.
        oldest_unfinished_by_name: The same by saga name, without names that have none.
    """

    by_status: Mapping[str, Mapping[SagaStatus, int]]
    needs_attention: int
    oldest_unfinished_at: float | None
    needs_attention_by_name: Mapping[str, int] = {}
    oldest_unfinished_by_name: Mapping[str, float] = {}


class SagaFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects sagas for ``query``; None selects all.

    Attributes:
        name: Only sagas of this name.
        statuses: Only sagas in one of these statuses: a set of them.
        attention: Only sagas that need attention (True) or don't (False).
    """

    name: str | None = None
    statuses: AbstractSet[SagaStatus] | None = None
    attention: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what would silently select nothing.

        Raises:
            SagaValidationError: Naming the value.
        """
        if not (self.name is None or isinstance(self.name, str)):
            refuse("name", self.name, "a saga's name, or None for all")
        if not (self.attention is None or isinstance(self.attention, bool)):
            refuse("attention", self.attention, "True, False, or None for all")
        statuses: object = self.statuses
        good = isinstance(statuses, AbstractSet) and all(isinstance(status, SagaStatus) for status in statuses)
        if statuses is not None and not good:
            refuse("statuses", statuses, "a set of SagaStatus, or None for all")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list and where the next one begins.

    Attributes:
        items: The rows of this page.
        cursor: Give it to the next call; None on the last page.
    """

    items: tuple[T, ...]
    cursor: str | None


PAYLOAD_BYTES_MAX = 1_048_576
"""The default size of one stored value, in bytes of JSON; the constructor's arguments have no other."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the engine, in one place.

    Attributes:
        max_in_flight: Sagas that one orchestrator runs at once, sleeping ones not counted.
        payload_bytes: Size of one stored result or context value, in bytes of JSON; arguments may have 1 MiB.
        abandon_after: Seconds that an interrupted attempt may take to end before it is left to itself.
        hold_claim: A saga that sleeps for less than this many seconds stays claimed here.
        storage_backoff: Longest pause, in seconds, between two tries of a write that the storage did not take.
    """

    max_in_flight: int = 1_000
    payload_bytes: int = PAYLOAD_BYTES_MAX
    abandon_after: float = 5.0
    hold_claim: float = 60.0
    storage_backoff: float = 5.0

    def __post_init__(self) -> None:
        """Refuse bounds that cannot work."""
        for name in self.__struct_fields__:
            value: object = getattr(self, name)
            whole = name in ("max_in_flight", "payload_bytes")
            if not (is_number(value) and value > 0 and (is_int(value) or not whole)):
                refuse(f"Limits.{name}", value, f"{'an integer' if whole else 'a finite number'} above 0")
