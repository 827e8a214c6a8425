"""The facts that a journal consists of.

Each fact is frozen, in the past tense, and carries the number of its format in its tag: a changed format is a new
struct with a new tag, so that old journals fold for ever. Facts carry delays, never instants: the storage stamps
each append.
"""

from __future__ import annotations

import msgspec

from saga.graph import Shape
from saga.types import AttentionCode, ErrorRecord, Outcome, Phase, SkipReason, TurnCause, UnknownReason


class Fact(msgspec.Struct, frozen=True, tag_field="fact", omit_defaults=True, gc=False):
    """Base of all facts."""


class Created(Fact, frozen=True, gc=False, kw_only=True, tag="created.1"):
    """The saga exists. ``arguments`` rebuild it, ``deadline`` is in seconds from here, ``headers`` are observers'."""

    name: str
    version: str
    shape: Shape
    arguments: msgspec.Raw
    deadline: float | None = None
    headers: dict[str, str] = {}


class Claimed(Fact, frozen=True, gc=False, tag="claimed.1"):
    """A process owns the saga from here on; ``expired`` says whether the claim before it ran out."""

    owner: str
    fence: int
    recoveries: int = 0
    expired: bool = False


class Began(Fact, frozen=True, gc=False, tag="began.1"):
    """The saga left PENDING."""


class Reshaped(Fact, frozen=True, gc=False, tag="reshaped.1"):
    """The saga goes on with a compatible new shape."""

    shape: Shape


class AttemptStarted(Fact, frozen=True, gc=False, tag="attempt_started.1"):
    """An attempt may run from here on; durable before its first line."""

    step: str
    phase: Phase
    attempt: int


class AttemptSucceeded(Fact, frozen=True, gc=False, tag="attempt_succeeded.1"):
    """An attempt returned. ``data`` says that the result is a mapping whose keys later steps see."""

    step: str
    phase: Phase
    attempt: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    data: bool = False


class AttemptFailed(Fact, frozen=True, gc=False, tag="attempt_failed.1"):
    """An attempt failed definitely: no effect. ``retry_in`` is in seconds; None means that it is not repeated."""

    step: str
    phase: Phase
    attempt: int
    error: ErrorRecord
    retry_in: float | None = None


class AttemptUnknown(Fact, frozen=True, gc=False, tag="attempt_unknown.1"):
    """Whether an attempt had its effect is not known. ``free`` attempts use up no retry budget."""

    step: str
    phase: Phase
    attempt: int
    reason: UnknownReason
    error: ErrorRecord
    retry_in: float | None = None
    free: bool = False


class AttemptNotRun(Fact, frozen=True, gc=False, tag="attempt_not_run.1"):
    """An attempt was started on paper only: its owner knows that the first line never ran."""

    step: str
    phase: Phase
    attempt: int


class LateOutcome(Fact, frozen=True, gc=False, tag="late_outcome.1"):
    """An attempt that had been given up ended after all, when that could change nothing any more."""

    step: str
    phase: Phase
    attempt: int
    outcome: Outcome
    error: ErrorRecord | None = None


class CompensationSkipped(Fact, frozen=True, gc=False, tag="compensation_skipped.1"):
    """A started step needs no compensation, or can have none."""

    step: str
    reason: SkipReason


class TurnedBack(Fact, frozen=True, gc=False, tag="turned_back.1"):
    """From here on the saga undoes. ``step`` is the one that failed, where a failure is the cause."""

    cause: TurnCause
    step: str | None = None


class Completed(Fact, frozen=True, gc=False, tag="completed.1"):
    """Every step succeeded."""


class RolledBack(Fact, frozen=True, gc=False, tag="rolled_back.1"):
    """Every compensation that was due succeeded."""


class RollbackFailed(Fact, frozen=True, gc=False, tag="rollback_failed.1"):
    """At least one compensation could not be done; a person must decide."""


class CancelRequested(Fact, frozen=True, gc=False, tag="cancel_requested.1"):
    """Somebody asked to cancel; the place in the journal decides whether it takes effect."""

    reason: str


class RetryRequested(Fact, frozen=True, gc=False, tag="retry_requested.1"):
    """Somebody asked to try again what rests."""

    reason: str


class AttentionSet(Fact, frozen=True, gc=False, tag="attention_set.1"):
    """A person should look."""

    code: AttentionCode
    message: str
    blocking: bool = False


class AttentionCleared(Fact, frozen=True, gc=False, tag="attention_cleared.1"):
    """What a person should have looked at is gone."""


Event = (
    Created
    | Claimed
    | Began
    | Reshaped
    | AttemptStarted
    | AttemptSucceeded
    | AttemptFailed
    | AttemptUnknown
    | AttemptNotRun
    | LateOutcome
    | CompensationSkipped
    | TurnedBack
    | Completed
    | RolledBack
    | RollbackFailed
    | CancelRequested
    | RetryRequested
    | AttentionSet
    | AttentionCleared
)
